"""A Python toolchain that installs in a moment: one wheel of our own, from a folder."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

from k210tasks.toolchains.catalogue import PythonTool, ToolchainOverride
from k210tasks.toolchains.toolchain import PythonToolchain

NAME = "tiny-1.0"


def wheel(folder: Path, code: str = "ANSWER = 42\n") -> Path:
    """``tinypkg`` 1.0 for any Python."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tinypkg-1.0-py3-none-any.whl"
    files = {
        "tinypkg.py": code.encode(),
        "tinypkg-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n",
        "tinypkg-1.0.dist-info/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = ""
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"
    files["tinypkg-1.0.dist-info/RECORD"] = record.encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


WORKER = """
import os, time
import tinypkg
def hello(say):
    with open({calls!r}, "a") as file: file.write("hello\\n")
    while os.path.exists({hang!r}): time.sleep(0.05)
    return {{"version": "1.0", "answer": tinypkg.ANSWER}}
OPERATIONS = {{"hello": hello}}
"""


def make(
    base: Path, *, digest: str | None = None, pythons: tuple[str, ...] = (), worker: str = ""
) -> PythonToolchain:
    """The toolchain, its wheel, worker and requirements written below ``base``."""
    path = wheel(base / "wheels")
    digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    (base / "requirements.txt").write_text(f"tinypkg==1.0 --hash=sha256:{digest}\n")
    script = worker or WORKER.format(calls=str(base / "calls"), hang=str(base / "hang"))
    (base / "worker.py").write_text(script)
    return made(base, pythons)


def made(base: Path, pythons: tuple[str, ...] = ()) -> PythonToolchain:
    """The toolchain whose files :func:`make` has written."""
    tool = PythonTool(
        name=NAME,
        title="tiny",
        version="1.0",
        pythons=pythons or (f"{sys.version_info[0]}.{sys.version_info[1]}",),
        requirements=str(base / "requirements.txt"),
        worker=str(base / "worker.py"),
        megabytes=1,
    )
    override = ToolchainOverride(NAME, url=(base / "wheels").as_uri(), python=sys.executable)
    return PythonToolchain(tool, override)
