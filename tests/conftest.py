"""For the whole suite, whoever starts it and from where."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores Ctrl-C, and so does what it starts. Tests press it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("K210_TEST_GOLDEN") == "required" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(GoldenRequired())


class GoldenRequired:
    """Fails the run where recorded results are at hand and one of them was not compared.

    Asked for by ``K210_TEST_GOLDEN=required``; else such tests skip without ../shared/fixtures.
    """

    def __init__(self) -> None:
        self.passed = 0
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        golden = "test_golden" in report.nodeid
        if report.skipped and (golden or "shared/fixtures" in str(report.longrepr)):
            self.skipped.append(report.nodeid)
        self.passed += golden and report.when == "call" and report.passed

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped or not self.passed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.skipped or not self.passed:
            missing = ", ".join(self.skipped) or "any of tests/simulator/test_golden.py"
            terminalreporter.write_line(f"FAILED: golden results were not compared: {missing}")


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
