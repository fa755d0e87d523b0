"""A vendor's code in a process of its own, kept warm for a run.

One worker per tool and operating-system process, started at its first request. It ends
when its stdin closes, so that it never outlives us however we end. A forked child (doit
runs its tasks in such) forgets the workers of its parent and starts its own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TextIO

from k210tasks.jsondata import loads, spelled
from k210tasks.progress import Progress
from k210tasks.toolchains.errors import BadRequest, OperationFailed, WorkerDied
from k210tasks.toolchains.messages import explain
from k210tasks.toolchains.program import Ending

#: what goes to a worker and what an operation of one gives back
Json = dict[str, Any]


class Worker:
    """One child process; ``name`` is how errors call it. Requests are served one at a time."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]):
        self.name = name
        self._command = list(command)
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._output: IO[bytes] | None = None
        self._number = 0

    def call(
        self,
        op: str,
        args: Json,
        *,
        doing: str,
        log: TextIO | None = None,
        progress: Progress | None = None,
    ) -> Json:
        """The result of ``op``. ``doing`` completes sentences: "compiling nn_xo.tflite".

        What the vendor's code printed goes to ``log``. Raises :class:`BadRequest` where the
        user's files are at fault, :class:`OperationFailed` where the vendor's code raised,
        :class:`WorkerDied` where its process ended.
        """
        with self._lock:
            process = self._started()
            start = self._position()
            self._number += 1
            request = {"id": self._number, "op": op, "args": args}
            try:
                answer = self._exchange(process, request, progress)
            except _Broken as broken:
                how = broken.how or self._ending()
                printed = self._printed(start, log)
                self._forget()
                told = explain(printed)
                raise WorkerDied(self.name, doing, how, told, _log_name(log)) from None
            except BaseException:  # Ctrl-C among them: its state is unknown now
                self._forget()
                raise
            printed = self._printed(start, log)
        if isinstance(answer, Done):
            return {**answer.result, "printed": printed}
        if log is not None:
            log.write(answer.message + "\n")
        if answer.why == "refused":
            raise BadRequest(f"{doing}: {answer.message}")
        raise OperationFailed(self.name, doing, explain(printed, answer.message), _log_name(log))

    def close(self) -> None:
        """End the process, if it runs."""
        with self._lock:
            self._forget()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._forget()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
            env=self._environment,
            encoding="utf-8",
            errors="replace",
            cwd=tempfile.gettempdir(),  # whatever it drops does not land in the project
        )
        return self._process

    def _exchange(
        self, process: subprocess.Popen[str], request: Json, progress: Progress | None
    ) -> Done | NotDone:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except OSError:
            raise _Broken from None
        while line := process.stdout.readline(_LONGEST):
            answer = understood(line, request["id"])
            if not isinstance(answer, Progressed):
                return answer
            if progress is not None:
                progress(*answer.progress)
        raise _Broken

    def _ending(self) -> str:
        """How the process ended, once its stdout has."""
        assert self._process is not None
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return Ending(code, "").how

    def _position(self) -> int:
        # The child shares this file's offset: move it only while the child is idle.
        assert self._output is not None
        return self._output.seek(0, os.SEEK_END)

    def _printed(self, start: int, log: TextIO | None) -> str:
        """What the process printed since ``start``, also copied to ``log``."""
        assert self._output is not None
        self._output.seek(start)
        text = self._output.read().decode("utf-8", "replace")
        if log is not None:
            log.write(text)
            log.flush()
        return text

    def _forget(self) -> None:
        process, output = self._process, self._output
        self._process = self._output = None
        if process is not None:
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        if output is not None:
            output.close()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's process without touching it."""
        process = self._process
        self._process = self._output = None
        self._lock = threading.Lock()
        if process is None:
            return
        process.returncode = 0  # not ours to wait for
        for pipe in (process.stdin, process.stdout):
            # Our copy of the pipe's end must go, or the worker would outlive the parent with
            # us; but below the buffer, for nothing of it may be flushed into the parent's pipe.
            raw = getattr(getattr(pipe, "buffer", None), "raw", None)
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.close()


@dataclass(frozen=True, slots=True)
class Progressed:
    """The first answers to a request: how far it is."""

    id: int
    progress: tuple[int, int, str]  # done, total, what


@dataclass(frozen=True, slots=True)
class Done:
    """The last answer, with what the operation gave back."""

    id: int
    ok: Literal[True]
    result: Json


@dataclass(frozen=True, slots=True)
class NotDone:
    """The last answer; "refused": the user's files are at fault."""

    id: int
    ok: Literal[False]
    message: str
    why: Literal["refused", "failed"] = spelled("kind")


#: characters of an answer
_LONGEST = 16 << 20


def understood(line: str, number: int) -> Progressed | Done | NotDone:
    """The answer to request ``number`` in a line of a worker. Raises :class:`_Broken`."""
    try:
        answer: Progressed | Done | NotDone = loads(_ANSWER, line)
    except ValueError:
        raise _Broken(f"answered something unintelligible ({line[:60]!r})") from None
    if answer.id != number:
        raise _Broken(f"answered another request ({line[:60]!r})")
    return answer


_ANSWER: Any = Progressed | Done | NotDone


class _Broken(Exception):
    """The conversation ended; ``how``, where it is known already."""

    def __init__(self, how: str = ""):
        self.how = how


def _log_name(log: TextIO | None) -> str | None:
    name = getattr(log, "name", None)
    return str(name) if isinstance(name, str | Path) else None


_workers: dict[tuple[object, ...], Worker] = {}
_registry = threading.Lock()


def shared(name: str, command: Sequence[str], environment: Mapping[str, str]) -> Worker:
    """The worker of this process for ``command`` in ``environment``."""
    with _registry:
        key = (*command, *sorted(environment.items()))
        if key not in _workers:
            _workers[key] = Worker(name, command, environment)
        return _workers[key]


def close_all() -> None:
    """End every worker of this process."""
    with _registry:
        workers = list(_workers.values())
        _workers.clear()
    for worker in workers:
        worker.close()


def _after_fork() -> None:
    global _registry
    _registry = threading.Lock()
    for worker in _workers.values():
        worker.abandon()
    _workers.clear()


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
