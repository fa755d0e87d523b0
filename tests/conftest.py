"""For the whole suite, whoever starts it and from where."""

from __future__ import annotations

import os
import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores Ctrl-C, and so does what it starts. Tests press it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """In continuous integration the vendors' environments are there before the first test.

    Elsewhere, tests that fetch nothing skip what is not installed.
    """
    if not os.environ.get("CI") or os.environ.get("PYTEST_XDIST_WORKER"):
        return
    if session.config.option.collectonly:
        return
    from k210tasks import toolchains

    for name in ("tensorflow", "nncase-1.9.0"):
        try:
            toolchains.get(name).install(print)
        except toolchains.ToolchainError as error:
            print(f"{name} cannot be installed here: {str(error).splitlines()[0]}")
