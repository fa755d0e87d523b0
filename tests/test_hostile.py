"""Damaged files that made earlier versions crash, hang or fill memory, through the command lines
that a user would give them to: each a clear error or a right result, soon and in little memory."""

from __future__ import annotations

import ast
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from k210tasks.cli import main
from k210tasks.errors import K210Error, visible
from k210tasks.kmodel import write
from k210tasks.steps.signature import read_signature
from tests.simulator.models import net_v3
from tests.steps.tiny import dense

HOSTILE = Path(__file__).resolve().parents[2] / "shared" / "fixtures" / "hostile"
FILES = sorted(path for path in HOSTILE.glob("*.*") if path.suffix != ".md")
MODELS = [path for path in FILES if path.suffix == ".tflite"]
pytestmark = pytest.mark.skipif(not FILES, reason="no ../shared/fixtures/hostile")

SECONDS, BYTES = 2.0, 300e6
NCC = "ncc-0.2.0-beta4"
DODO = """\
import k210tasks

DOIT_CONFIG = k210tasks.doit_config("models.yaml")
models = k210tasks.tasks_from("models.yaml")
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command line that ended: processor seconds, peak bytes of memory, what it showed."""

    status: int
    seconds: float
    peak: float
    text: str


def ended(start: Callable[[int], int], said: Path) -> Ended:
    """What became of the process that ``start`` starts, given where its output goes."""
    began = time.monotonic()
    with said.open("wb") as file:
        pid = start(file.fileno())
    _, status, usage = os.wait4(pid, 0)
    assert time.monotonic() - began < 10 * SECONDS  # of a busy machine
    return Ended(
        os.waitstatus_to_exitcode(status),
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1e3,
        said.read_text("utf-8", "replace"),
    )


def verb(arguments: list[str], said: Path) -> Ended:
    """A verb in a child that has all of its modules: what they take is not counted."""

    def start(fd: int) -> int:
        pid = os.fork()
        if not pid:
            status = 99
            try:
                os.dup2(fd, 1)
                os.dup2(fd, 2)
                sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
                status = main(arguments)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
        return pid

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1e3
    done = ended(start, said)
    return Ended(done.status, done.seconds, done.peak - min(base, done.peak), done.text)


def command(program: str, *words: str, folder: Path, said: Path) -> Ended:
    """A command line of an installed program, from its start to its end. Its peak is 0 where
    this process, whose memory Linux counts as the child's until it is another program, has more.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("K210_", "DOIT_", "CI"))}
    env = {**kept, "K210_CACHE": str(folder / "cache")}

    def start(fd: int) -> int:
        return subprocess.Popen(
            [Path(sys.executable).with_name(program), *words],
            cwd=folder, env=env, stdout=fd, stderr=fd,
        ).pid  # fmt: skip

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1e3
    done = ended(start, said)
    return Ended(done.status, done.seconds, done.peak if done.peak > base else 0, done.text)


def judge(done: Ended) -> None:
    assert done.status in (0, 1, 3), done.text
    assert done.seconds < SECONDS, f"{done.seconds} s of processor time"
    assert done.peak < BYTES
    assert done.text
    for bad in ("Traceback", "internal error", "unexpected", "[Errno", "INFO:"):
        assert bad not in done.text, done.text
    assert done.text == visible(done.text)


def project(folder: Path) -> None:
    """What stands beside models.yaml."""
    (folder / "dodo.py").write_text(DODO)
    (folder / "a.tflite").write_bytes(dense(np.ones((2, 48)), [1, 4, 4, 3]))
    (folder / "images").mkdir()
    np.save(folder / "images" / "0.npy", np.zeros((4, 4, 3), np.float32))


def samples(folder: Path, model: Path) -> Path:
    """A tensor of the shape that the model is said to take."""
    folder.mkdir()
    try:
        shape = read_signature(model.read_bytes(), model.name).input.shape
    except K210Error:
        shape = (1, 4, 4, 3)
    for number in range(2):
        random = np.random.default_rng(number)
        np.save(folder / f"{number}.npy", random.normal(size=shape[1:]).astype(np.float32))
    return folder


@pytest.mark.parametrize("name", ["check", "convert"])
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_models(model: Path, name: str, tmp_path: Path) -> None:
    arguments = [name, str(model)]
    made = tmp_path / "made.kmodel"
    if name == "convert":
        arguments += ["--images", str(samples(tmp_path / "samples", model)), "-o", str(made)]
    done = verb(arguments, tmp_path / "said")
    judge(done)
    assert made.exists() == (name == "convert" and done.status == 0)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("archive_000.archive", "it is damaged or no archive (Invalid argument)"),
        ("archive_002.archive", "has a longer name than file systems hold: 255 bytes, and 1000"),
        ("archive_004.archive", "has a longer name than file systems hold: 255 bytes, and 1000"),
        ("archive_006.archive", "its entry 'a/b/c' lies behind a file"),
        ("archive_008.archive", "its link 'ncc' leads nowhere"),
        ("archive_010.archive", f"its link '{'x' * 100}…' leads nowhere"),
    ],
)
def test_archives(file: str, why: str, tmp_path: Path) -> None:
    url = (HOSTILE / file).as_uri()
    (tmp_path / "models.yaml").write_text(
        f"toolchains: {{{NCC}: {{url: '{url}'}}}}\n"
        f"models: {{a: {{source: a.tflite, compiler: {NCC}, images: images}}}}\n"
    )
    project(tmp_path)
    done = command("doit", f"toolchain:{NCC}", folder=tmp_path, said=tmp_path / "said")
    judge(done)
    assert done.status
    assert f"{file} was not unpacked: " in done.text
    assert why in done.text
    left = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and "locks" not in p.parts]
    assert left == []


def test_lock_file(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        f"models: {{a: {{source: a.tflite, compiler: {NCC}, images: images}}}}\n"
    )
    project(tmp_path)
    shutil.copy(HOSTILE / "lock_016.lock", tmp_path / "k210.lock")
    done = command("doit", f"toolchain:{NCC}", folder=tmp_path, said=tmp_path / "said")
    judge(done)
    assert done.status
    assert "k210.lock cannot be used: it is of version \\x1b[31mX, this is 1. Restore" in done.text


def test_models_yaml(tmp_path: Path) -> None:
    shutil.copy(HOSTILE / "yaml_086.yaml", tmp_path / "models.yaml")
    project(tmp_path)
    for words in (("doit",), ("k210", "why")):
        done = command(*words, folder=tmp_path, said=tmp_path / "said")
        judge(done)
        assert done.status
        assert "models.yaml:24:5: models.digits_nncase.\\x00: unknown key\n" in done.text


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("samples_018.npy", "0.npy cannot be read as a tensor: "),
        ("token.npy", "0.npy cannot be read as a tensor: "),
        ("samples_020.picture", "0.jpg claims 8000x8000 = 64000000 pixels in 631 bytes; a large"),
        ("samples_022.picture", "0.jpg cannot be read as a picture: its content is no JPEG"),
    ],
)
def test_samples(file: str, why: str, tmp_path: Path) -> None:
    ending, data = f".{file.split('.')[-1]}", (HOSTILE / file).read_bytes()
    if data.startswith(b"("):  # as it was kept: the ending, and the content as Python writes it
        ending, data = ast.literal_eval(data.decode())
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / f"0{ending}").write_bytes(data)
    (tmp_path / "m.tflite").write_bytes(dense(np.ones((2, 48)), [1, 4, 4, 3]))
    words = ("k210", "convert", "m.tflite", "--images", "samples", "--mean", "0")
    done = command(*words, "--std", "1", folder=tmp_path, said=tmp_path / "said")
    judge(done)
    assert done.status
    assert why in done.text
    if ending == ".npy":
        (tmp_path / "m.kmodel").write_bytes(write(net_v3()))
        run = ("k210", "run", "m.kmodel", "--input", "samples/0.npy")
        done = command(*run, folder=tmp_path, said=tmp_path / "said")
        judge(done)
        assert "samples/0.npy cannot be read: it is no plain .npy array" in done.text


@pytest.mark.parametrize("file", ["contract_012.json", "contract_014.json"])
def test_contracts(file: str, tmp_path: Path) -> None:
    kmodel = write(net_v3())
    (tmp_path / "m.kmodel").write_bytes(kmodel)
    text = (HOSTILE / file).read_text()
    was = ast.literal_eval(text[text.index('"sha256": ') + 10 :].split(",")[0])
    text = text.replace(was, hashlib.sha256(kmodel).hexdigest())  # else nobody asks for its rest
    (tmp_path / "m.kmodel.contract.json").write_text(text)
    (tmp_path / "x.npy").write_bytes(b"no array")
    words = ("k210", "run", "m.kmodel", "--input", "x.npy")
    done = command(*words, folder=tmp_path, said=tmp_path / "said")
    judge(done)
    assert "m.kmodel.contract.json is not used: " in done.text
    pack = ("k210", "pack", "m.kmodel@0x300000", "-o", "m.kfpkg")
    done = command(*pack, folder=tmp_path, said=tmp_path / "said")
    judge(done)


def test_nothing_was_left_out() -> None:
    tried = {"archive", "lock", "yaml", "npy", "picture", "json", "tflite"}
    assert {path.suffix[1:] for path in FILES} == tried
    assert len(FILES) - len(MODELS) == 14
