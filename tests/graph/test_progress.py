"""Progress: nothing for short steps, plain lines, a bar on a terminal."""

from __future__ import annotations

import io

import pytest

from k210tasks import progress
from k210tasks.progress import Shown, shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_short_step_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with shown("kmodel:x") as step:
        step(1, 2, "compiling")
        step(2, 2, "compiling")
    assert capsys.readouterr().err == ""


def test_plain_lines_after_a_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    step = Shown("calibrate:x")
    for second in range(25):
        now[0] = 100.0 + second
        step(second, 25, "reading samples")
    step.tell("   done")
    assert capsys.readouterr().err.splitlines() == [
        "   calibrate:x: reading samples 1 of 25",
        "   calibrate:x: reading samples 11 of 25",
        "   calibrate:x: reading samples 21 of 25",
        "   done",
    ]


def test_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET", 0.0)
    with shown("calibrate:x", quiet=True) as step:
        step(1, 2, "reading samples")
        step.tell("hello")
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "QUIET", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    with shown("calibrate:x") as step:
        step(1, 4, "reading samples")
        step.tell("a line between")
        step(4, 4, "reading samples")
    text = terminal.getvalue()
    assert "calibrate:x" in text
    assert "reading samples 1/4" in text
    assert "reading samples 4/4" in text
    assert "a line between" in text


def test_a_bar_of_unknown_length_and_names_with_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "QUIET", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    with shown("compare a[bold].kmodel") as step:
        step(3, 0, "fetching")
    text = terminal.getvalue()
    assert "compare a[bold].kmodel" in text
    assert "fetching 3 " in text


def test_bytes_are_told_in_megabytes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET", 0.0)
    for done, total in ((1_500_000, 64_000_000), (12_345_678, 0), (9_999_999, 0)):
        Shown("toolchain:x")(done, total, "downloading")
    assert capsys.readouterr().err.splitlines() == [
        "   toolchain:x: downloading 1.5 of 64.0 MB",
        "   toolchain:x: downloading 12.3 MB",
        "   toolchain:x: downloading 9999999",
    ]
