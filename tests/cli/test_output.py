"""The whole command: help within 80 columns, and output into whatever stands behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from k210tasks.cli import VERBS, build_parser, main, wrapped
from k210tasks.kmodel import write
from tests.simulator import models

PROGRAM = [sys.executable, "-c", "import sys; from k210tasks.cli import main; sys.exit(main())"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.kmodel").write_bytes(write(models.net_v3()))
    (tmp_path / "net4.kmodel").write_bytes(write(models.net_v4()))
    return tmp_path


def run(*arguments: str, stdout: int = subprocess.PIPE, **environment: str) -> tuple[int, str, str]:
    ended = subprocess.run(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        check=False,
    )
    out, err = ended.stdout or b"", ended.stderr
    return ended.returncode, out.decode("utf-8", "surrogateescape"), err.decode()


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_fits_80_columns(verb: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = build_parser(verb or "")
    if verb is not None:
        [sub] = [action for action in parser._actions if action.dest == "verb"]
        assert isinstance(sub.choices, dict)
        parser = sub.choices[verb]
    assert [line for line in parser.format_help().splitlines() if len(line) > 80] == []


def test_a_long_example_is_cut_before_options_and_stays_one_command() -> None:
    command = "k210 verb " + "file " * 8 + "--first value --second --third " + "x" * 30
    assert wrapped(command) == (
        f"k210 verb {'file ' * 8}--first value \\\n      --second --third {'x' * 30}"
    ).replace("file  ", "file ")
    said = subprocess.run(
        ["sh", "-c", f"printf '%s ' {wrapped(command)}"], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == command.split()
    assert wrapped("k210 why nn_xo") == "k210 why nn_xo"


def test_without_a_verb_the_verbs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    error = capsys.readouterr().err
    assert all(f"\n    {verb} " in error for verb in VERBS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["inspect", "net.kmodel"], ["completion", "bash"]])
def test_a_full_disk_is_said(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        status, _, err = run(*arguments, stdout=full.fileno())
    said = f"k210 {arguments[0]}: the output cannot be written: No space left on device\n"
    assert (status, err) == (1, said)


def test_a_pipe_that_closes_early_ends_it_in_silence() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    status, _, err = run("inspect", "net.kmodel", stdout=writing)
    os.close(writing)
    assert (status, err) == (141, "")


def test_an_encoding_without_our_signs_gets_the_nearest() -> None:
    status, out, err = run("diff", "net.kmodel", "net4.kmodel", PYTHONIOENCODING="ascii")
    assert (status, err) == (0, "")
    assert " -> " in out
    assert out.isascii()


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes are Linux's")
def test_a_file_name_of_another_encoding_is_printed_as_it_is(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.kmodel")
    (folder / name).write_bytes((folder / "net.kmodel").read_bytes())
    for encoding in ("utf-8", "ascii"):
        status, out, err = run("inspect", name, PYTHONIOENCODING=encoding)
        assert (status, err) == (0, "")
        assert out.startswith(f"{name}: kmodel 3 ")
