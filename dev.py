"""What a commit must pass, as tasks: ``doit -f dev.py``, or one, ``doit -f dev.py check:types``.

Continuous integration runs the same (.ci/run), and so does pre-commit (.pre-commit-config.yaml).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

DOIT_CONFIG = {
    "default_tasks": ["check"],
    "continue": True,
    "verbosity": 2,
    "backend": "k210",
    "dep_file": ".k210/dev.json",
}

#: a short run for each kind of file; the suite has a shorter one
FUZZED = (
    "tests.fuzz_tflite --cases 500",
    "tests.fuzz_tflite --cases 100 --chain",
    "tests.fuzz_onnx --cases 500",
    "tests.fuzz_onnx --cases 200 --chain",
    *(
        f"tests.fuzz_files {kind} --cases 300"
        for kind in ("samples", "calibration", "archive", "kfpkg")
    ),
    *(
        f"tests.fuzz_texts {kind} --cases 500"
        for kind in ("models.yaml", "contract", "lock", "record", "result", "history")
    ),
)
#: name -> what it asks for, and the modules of Python that answer, each with its arguments
CHECKS = {
    "style": ("no lint, and the one format", ("ruff check .", "ruff format --check .")),
    "types": ("types, strictly", ("mypy",)),
    "generated": (
        "files that are made from the source are as it makes them",
        (
            "pytest -q -n 0 tests/manifest/test_keys_page.py tests/cli/test_verbs_page.py"
            " tests/compiler/test_supported.py tests/test_house.py",
        ),
    ),
    "tests": ("the suite", ("pytest",)),
    "fuzz": (
        "damaged files are read or refused",
        ("tests.fuzz_kmodel --cases 2000", *FUZZED),
    ),
}


def task_check() -> Iterator[dict[str, Any]]:
    """everything a commit must pass"""
    for name, (doc, commands) in CHECKS.items():
        yield {
            "name": name,
            "doc": doc,
            "actions": [f"{sys.executable} -m {command}" for command in commands],
            "uptodate": [False],
        }
