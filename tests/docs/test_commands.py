"""Every command printed in the README and the documentation does what the page says.

A document is one scenario; see :mod:`tests.docs.scenario` for its hidden directions. Where
the converter's toolchain is not installed, what needs it is skipped: nothing is fetched here.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from k210tasks import toolchains
from tests.docs.scenario import (
    LANGUAGES,
    REPOSITORY,
    Shell,
    Step,
    blocks,
    commands,
    copy_repository,
    make_venv,
    missing,
    steps,
)
from tests.firmware.board import SITECUSTOMIZE, Board, board

SET_UP = "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/doit"
TEST = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest"

#: Lines that make a virtual environment from a package index: the tests' own stands in for
#: it, and the rest of the line runs as printed.
INSTALLS = {
    SET_UP: ".venv/bin/doit",
    "python3 -m venv .venv && .venv/bin/pip install -e .": "true",
    "python3 -m venv .venv && .venv/bin/pip install k210tasks": "true",
}

#: What is printed and not carried out here, each with the reason.
NOT_RUN = {
    TEST: "is this suite: continuous integration runs the line itself",
    "doit -f dev.py check:style check:types check:generated": "is a step of continuous integration",
    "doit -f dev.py": "likewise",
    "tests/all_pythons.sh": "is this suite, once for every Python",
    "python tests/fuzz_kmodel.py --cases 100000": "takes the better part of an hour",
    "python tests/fuzz_tflite.py --cases 20000 && "
    "python tests/fuzz_tflite.py --cases 3000 --chain": "takes half an hour",
    "python tests/fuzz_onnx.py --cases 20000 && "
    "python tests/fuzz_onnx.py --cases 3000 --chain": "takes some minutes",
    "python tests/fuzz_graphs.py --cases 3000": "takes ten minutes",
    'for kind in samples calibration archive kfpkg; do python tests/fuzz_files.py "$kind" --cases '
    "3000; done": "takes some minutes",
    "python -m tests.compiler.random_networks --count 5000 --kmodel 3 --seed 1 --runtime maixpy "
    "-j 2": "takes some ten minutes",
    "python -m tests.compiler.random_networks --count 5000 --kmodel 4 --seed 1 --runtime maixpy "
    "-j 2": "likewise",
    "python tests/check_and_convert.py --networks 500": "takes some minutes",
    "python tests/kill_trials.py --kills 500": "takes half an hour",
    'for kind in models.yaml contract lock record result "kept manifest" history bookkeeping '
    '"worker answer"; do python tests/fuzz_texts.py "$kind" --cases 20000; '
    "done": "takes half an hour",
    "python tests/flip_trials.py && python tests/flip_trials.py --removed": "takes some minutes",
}

#: The chapters that need another vendor's tool than the converter, or none; each is several
#: hundred megabytes.
TOOLCHAINS: dict[str, tuple[str, ...]] = {
    "docs/how-to/sensors.md": (),
    "README.md": ("tensorflow", "nncase-1.9.0"),
}

DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md")
    for path in REPOSITORY.glob(pattern)
)

#: A board is found as boards are: by the USB chip of its serial port.
FIND_BOARD = """\
import os
import serial.tools.list_ports
from serial.tools.list_ports_common import ListPortInfo

def comports(include_links=False):
    port = ListPortInfo(os.environ["DOCS_BOARD"])
    port.description = port.hwid = "USB VID:PID=1A86:7523"
    return [port]

serial.tools.list_ports.comports = comports
"""


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text("utf-8")


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "docs-store"


class Scenario:
    """One document on the way: its folder, its shell, its board."""

    def __init__(self, scratch: Path, store: Path, end: contextlib.ExitStack) -> None:
        self.scratch = scratch
        self.store = store
        self.end = end
        self.folders = 0
        self.shell: Shell | None = None
        self.boards: list[Board] = []

    def take(self, step: Step) -> None:
        if step.kind in ("clone", "empty"):
            self.begin(copy=step.kind == "clone")
        elif step.kind == "own store":
            self.sh.set("K210_STORE", str(self.scratch / "store"))
        elif step.kind == "board":
            target = self.end.enter_context(board())
            self.boards.append(target)
            patch = self.scratch / "patch"
            patch.mkdir(exist_ok=True)
            (patch / "sitecustomize.py").write_text(SITECUSTOMIZE + FIND_BOARD)
            self.sh.set("PYTHONPATH", str(patch))
            self.sh.set("DOCS_BOARD", target.port)
        elif step.kind == "file":
            path = self.sh.folder() / step.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text, "utf-8")
        elif step.kind == "append":
            path = self.sh.folder() / step.path
            path.write_text(f"{path.read_text('utf-8')}\n{step.text}", "utf-8")
        elif step.text not in NOT_RUN:
            self.run(step)

    def begin(self, *, copy: bool) -> None:
        self.folders += 1
        self.folder = self.scratch / f"at-{self.folders}" / "project"
        self.folder.mkdir(parents=True)
        if copy:
            copy_repository(self.folder)
        self.shell = Shell(self.folder, self.store, self.scratch)

    @property
    def sh(self) -> Shell:
        assert self.shell is not None, "the document says neither clone nor empty"
        return self.shell

    def run(self, step: Step) -> None:
        command = step.text
        if command in INSTALLS:
            make_venv(self.sh.folder() / ".venv")
            command = INSTALLS[command]
        status, output = self.sh.run(command)
        assert status == step.status, f"line {step.line}: {step.text}\nstatus {status}\n{output}"
        self.compare(step, output)

    def compare(self, step: Step, output: str) -> None:
        absent = missing(step.expected, output)
        assert absent is None, f"line {step.line}: {step.text}\nno line {absent!r} in\n{output}"


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="the commands are bash's")
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_does_what_it_says(name: str, tmp_path: Path, shared_store: Path) -> None:
    todo = steps(text_of(name))
    if not any(step.kind == "run" for step in todo):
        pytest.skip("no commands")
    absent = [
        tool
        for tool in TOOLCHAINS.get(name, ("tensorflow",))
        if not toolchains.get(tool, None, None).installed()
    ]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    with contextlib.ExitStack() as end:
        scenario = Scenario(tmp_path, shared_store, end)
        for step in todo:
            scenario.take(step)
        for target in scenario.boards:
            assert target.rebooted
            assert target.complaints == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_says_what_it_holds(name: str) -> None:
    """A command in a block of no language would be printed and never tried."""
    assert [b for b in blocks(text_of(name)) if b.language not in LANGUAGES] == []


def test_the_lists_of_exceptions_are_short_and_all_printed() -> None:
    printed = {command for name in DOCUMENTS for command in commands(text_of(name))}
    assert set(NOT_RUN) | set(INSTALLS) <= printed


def test_continuous_integration_runs_the_readmes_own_line() -> None:
    assert TEST in text_of(".ci/run").splitlines()
