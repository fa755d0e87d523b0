"""Real projects in temporary folders, driven through the real command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

from tests.graph import toy

REPOSITORY = Path(__file__).resolve().parents[2]

MODEL = """\
  {name}:
    source: src/{name}.pb
    inputs: {{input: [1, 4, 4, 1]}}
    outputs: [output]
    compiler: nncase-1.9.0
    firmware: canmv-kpu5
    images: images/{name}/calibration
    preprocess: {{color: gray, mean: 0.0, std: 1.0}}
    calibrate: {{method: minmax, samples: 4}}
    verify: {{images: images/{name}/verification, min_cosine: 0.98}}
"""

DODO = """\
import multiprocessing
import os
from tests.graph import toy

if os.environ.get("TOY_START"):
    multiprocessing.set_start_method(os.environ["TOY_START"], force=True)
DOIT_CONFIG = toy.config()
models = toy.Tasks()
"""


class Toy:
    """A project of toy models. Paths are relative to ``root``."""

    def __init__(self, root: Path, names: tuple[str, ...] = ("one", "two")) -> None:
        self.root = root
        self.env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("K210_", "DOIT_", "PYTEST_", "TOY_"))
        }
        self.env["PYTHONPATH"] = str(REPOSITORY)
        self.names = names
        self.write("dodo.py", DODO)
        self.manifest(*names)
        for name in names:
            self.write(f"src/{name}.pb", f"graph of {name}\n")
            for i in range(8):
                self.write(f"images/{name}/calibration/{i}.png", f"{name} calibration {i}")
            for i in range(3):
                for kind in "ab":
                    self.write(f"images/{name}/verification/{kind}/{i}.png", f"{name} {kind} {i}")

    def manifest(self, *names: str, change: Callable[[str], str] = lambda text: text) -> None:
        text = "models:\n" + "".join(MODEL.format(name=name) for name in names)
        self.write("models.yaml", change(text))

    def edit(self, old: str, new: str, count: int = 1) -> None:
        text = self.read("models.yaml")
        assert old in text
        self.write("models.yaml", text.replace(old, new, count))

    def write(self, path: str, text: str) -> Path:
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text, "utf-8")
        return full

    def read(self, path: str) -> str:
        return (self.root / path).read_text("utf-8")

    def wish(self, **tasks: dict[str, Any]) -> None:
        """``one_kmodel={"sleep": 1}``: see toy.py."""
        named = {":".join(reversed(k.rsplit("_", 1))): v for k, v in tasks.items()}
        self.write("toy.json", json.dumps(named))

    def popen(self, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "doit", *args],
            cwd=self.root,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def doit(
        self, *args: str, status: int | None = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.popen(*args, **env)
        out, err = process.communicate(timeout=120)
        done = subprocess.CompletedProcess(args, process.returncode, out, err)
        if status is not None:
            assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in err, err
        return done

    def inside(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """doit in this process: the same, without starting a Python."""
        out, err = io.StringIO(), io.StringIO()
        before = Path.cwd()
        os.chdir(self.root)
        try:
            with (
                mock.patch.dict(os.environ, {**self.env, **env}, clear=True),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                config = {**toy.config(), "outfile": out}
                loader = ModuleTaskLoader({"DOIT_CONFIG": config, "models": toy.Tasks()})
                status = DoitMain(loader).run(list(args))
        finally:
            os.chdir(before)
        return subprocess.CompletedProcess(args, status, out.getvalue(), err.getvalue())

    def history(self) -> list[dict[str, Any]]:
        path = self.root / ".k210/history.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    def did(self, what: str, since: int = 0) -> list[str]:
        """The tasks that did ``what``, sorted, in history lines from ``since`` on."""
        return sorted(e["task"] for e in self.history()[since:] if e["did"] == what)

    def computed(self) -> list[str]:
        """The bodies that ran to their end, in order."""
        path = self.root / "computed.log"
        return path.read_text("utf-8").splitlines() if path.exists() else []

    def run(self, *args: str, status: int | None = 0, **env: str) -> list[str]:
        """Run doit here; what it computed, sorted. The bodies' own log and the history agree."""
        bodies, lines = len(self.computed()), len(self.history())
        self.last = self.inside(*args, **env)
        if status is not None:
            assert self.last.returncode == status, self.last.stdout + self.last.stderr
        found = sorted(self.computed()[bodies:])
        assert self.did("computed", lines) == found
        return found

    def files(self) -> list[str]:
        """Every file of the project outside .k210, relative."""
        return sorted(
            p.relative_to(self.root).as_posix()
            for p in self.root.rglob("*")
            if p.is_file()
            and ".k210" not in p.relative_to(self.root).parts
            and "__pycache__" not in p.parts
        )


@pytest.fixture(name="toy")
def project(tmp_path: Path) -> Toy:
    return Toy(tmp_path)
