"""The loop of a worker: one JSON request a line on stdin, JSON answers on stdout.

Runs inside a vendor's environment (CPython 3.7 or later), so it imports the standard
library only. Requests ``{"id", "op", "args"}``; answers ``{"id", "progress": [done,
total, what]}`` any number of times, then ``{"id", "ok": true, "result"}`` or ``{"id",
"ok": false, "kind", "message"}``. File descriptor 1 is taken away from the vendor's
code, which prints to it, and both its outputs go to stderr, which is a log file.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

try:
    import fcntl
except ImportError:  # Windows: the reader thread alone notices the end of stdin
    fcntl = None  # type: ignore[assignment]


class Refused(Exception):
    """The request cannot be fulfilled for a reason in the user's files; the text is for them."""


if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[[int, int, str], None]
    Operation = Callable[..., object]
else:
    Say = Operation = object  # CPython 3.7 cannot subscript them


def _line_buffer_c_stdout() -> Any:
    """Make what C and C++ code prints appear at once, also when it aborts; returns libc."""
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        stdout = ctypes.c_void_p.in_dll(libc, "stdout")
        libc.setvbuf(stdout, None, 1, 0)
        return libc
    except (OSError, AttributeError, ValueError, TypeError):
        return None


def _die_with_stdin(busy: bool) -> None:
    """While busy, let the kernel end this process when the other end of stdin goes away.

    A vendor's call may hold the interpreter lock for minutes, so the reader thread would
    learn of it too late. A pipe in O_ASYNC mode raises SIGIO when its last writer is gone,
    and on Linux the default action of SIGIO is to end the process. Where it is not, the reader
    thread ends it as soon as the call lets it.
    """
    if fcntl is None or not hasattr(os, "O_ASYNC"):
        return
    flags = fcntl.fcntl(0, fcntl.F_GETFL)
    if not busy:
        fcntl.fcntl(0, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        return
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()  # gone between the last read and now?
    poll.register(0, select.POLLIN)
    if any(event & select.POLLHUP for _, event in poll.poll(0)):
        os._exit(0)


def serve(load: Callable[[], dict[str, Operation]]) -> NoReturn:
    """Answer requests until stdin ends. Each operation gets its arguments and ``say``.

    ``load`` gives the operations by name; it is called with the first request.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other end to handle
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    libc = _line_buffer_c_stdout()
    requests: queue.Queue[str] = queue.Queue()

    def read() -> None:
        with os.fdopen(os.dup(0), encoding="utf-8") as lines:
            for line in lines:
                requests.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    operations: dict[str, Operation] | None = None
    while True:
        request = json.loads(requests.get())
        number = request["id"]

        def send(number: int = number, **fields: Any) -> None:
            answers.write(json.dumps(dict(fields, id=number)) + "\n")
            answers.flush()

        def say(done: int, total: int, what: str, send: Callable[..., None] = send) -> None:
            send(progress=[done, total, what])

        _die_with_stdin(True)
        try:
            operations = operations or load()
            result = operations[request["op"]](say=say, **request["args"])
            reply: dict[str, Any] = {"ok": True, "result": result}
        except Refused as error:
            reply = {"ok": False, "kind": "refused", "message": str(error)}
        except BaseException as error:
            traceback.print_exc()
            text = "".join(traceback.format_exception_only(type(error), error)).strip()
            reply = {"ok": False, "kind": "failed", "message": text}
        _die_with_stdin(False)
        sys.stderr.flush()
        if libc is not None:
            libc.fflush(None)
        send(**reply)
