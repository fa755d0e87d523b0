"""A project in a folder, worked on through the command line as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
DODO = """\
import k210tasks
DOIT_CONFIG = k210tasks.doit_config("models.yaml")
models = k210tasks.tasks_from("models.yaml")
"""


class Project:
    def __init__(self, root: Path, manifest: str, **env: str) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.env = env
        (root / "models.yaml").write_text(manifest)
        (root / "dodo.py").write_text(DODO)

    def call(self, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("K210_STORE", "DOIT_"))}
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env={**env, "PYTHONPATH": str(REPOSITORY), **self.env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def doit(self, *tasks: str, status: int = 0) -> tuple[list[str], str]:
        """What was computed, sorted, and what was said."""
        before = len(self.history())
        said = self.call("-m", "doit", *tasks, status=status).stderr
        rows = self.history()[before:]
        return sorted(row["task"] for row in rows if row["did"] == "computed"), said

    def history(self) -> list[dict[str, Any]]:
        path = self.root / ".k210/history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def read(self, path: str) -> str:
        return (self.root / path).read_text("utf-8")

    def edit(self, old: str, new: str) -> None:
        text = self.read("models.yaml")
        assert old in text
        (self.root / "models.yaml").write_text(text.replace(old, new))
