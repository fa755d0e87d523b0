"""Work in a process of its own, which a file may end without ending ours.

LiteRT is native code: on a damaged model it may crash, fill the memory or never come back. So it
runs in a child that is forked when a model is opened, with all modules loaded, in some
milliseconds: nothing has to be kept warm, and no two models share a process. The child has limits
of memory and of processor time, closes every file of ours, locks among them, and ends when its
end of the pipe does, which is when we end, however that happens.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import select
import signal
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from k210tasks.errors import K210Error
from k210tasks.process_wide import unwarned

#: Bytes that a child may take beyond what we had when it was forked. The largest model that a K210
#: can hold takes a tenth of it in floats.
MOST_BYTES = 768 << 20
#: Seconds of processor time for what is asked at once, a sample for one.
MOST_SECONDS = 60
#: Seconds after which a child that uses no time either is given up.
SILENCE = 600

#: what the child does: takes what was sent, one after the other, and replies
Body = Callable[[Iterator[Any], Callable[[Any], None]], None]


class EndedApart(K210Error):
    """The child ended, or had to be ended, before it replied."""

    def __init__(self, doing: str, how: str, said: str):
        last = f" ({said})" if said else ""
        super().__init__(
            f"{doing} {how}{last}: the model is damaged, or larger than any that a K210 can hold; "
            "convert it again from its source"
        )


class Apart:
    """A child that carries out ``body``. ``doing`` begins sentences: "running the float model".

    To be closed, or left by ``with``; whoever forgets is forgiven. One thread at a time.
    """

    def __init__(self, body: Body, doing: str):
        self._doing = doing
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _end
        inbox, outbox = _pipe(), _pipe()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        with unwarned:  # of forking beside other threads; the child starts none of ours again
            pid = os.fork()
        if not pid:
            _child(body, inbox[0], outbox[1], self._said.fileno())
        os.close(inbox[0])
        os.close(outbox[1])
        self._pid = pid
        self._silent = False
        os.set_blocking(inbox[1], False)
        self._to: IO[bytes] = os.fdopen(inbox[1], "wb", buffering=0)
        self._from: IO[bytes] = os.fdopen(outbox[0], "rb")
        self.close = weakref.finalize(
            self, _end, os.getpid(), pid, [self._to, self._from, self._said]
        )

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, item: Any) -> bool:
        """Hand ``item`` over; False where the child takes no more, as :meth:`receive` will say."""
        rest = memoryview(pickle.dumps(item, protocol=5))
        try:
            while rest:
                if not self._ready(self._to, select.POLLOUT):
                    return False
                rest = rest[os.write(self._to.fileno(), rest) :]
        except BrokenPipeError:
            return False
        return True

    def end(self) -> None:
        """Say that nothing more is sent."""
        self._to.close()

    def receive(self) -> Any:
        """The next reply. Raises what ``body`` raised, or :class:`EndedApart`."""
        self._ready(self._from, select.POLLIN)
        try:
            kind, value = pickle.load(self._from)
        except (EOFError, pickle.UnpicklingError):
            self._ended()
        if kind == "raised":
            raise _rebuilt(*value)
        return value

    def ask(self, item: Any) -> Any:
        """Send and receive."""
        self.send(item)
        return self.receive()

    def _ready(self, stream: IO[bytes], how: int) -> bool:
        """Wait for the child to take or to give something; where it does not, it is ended."""
        poll = select.poll()
        poll.register(stream, how)
        if not poll.poll(SILENCE * 1000):
            self._silent = True
            os.kill(self._pid, signal.SIGKILL)
        return not self._silent

    def _ended(self) -> NoReturn:
        _, status = os.waitpid(self._pid, 0)
        self._said.seek(0)
        said = self._said.read()[-4096:].decode("utf-8", "replace")
        lines = [line.strip() for line in said.splitlines() if _telling(line)]
        detach = self.close.detach()
        if detach is not None:
            for stream in detach[2][2]:
                stream.close()
        raise EndedApart(self._doing, _how(status, silent=self._silent), lines[-1] if lines else "")


def _pipe() -> tuple[int, int]:
    """With room for what is made while the other side is busy, where that can be had."""
    made = os.pipe()
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(made[1], fcntl.F_SETPIPE_SZ, 1 << 20)
    return made


def _telling(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(
        ("INFO: ", "Fatal Python", "  File", "Thread")
    )


def _how(status: int, *, silent: bool) -> str:
    if silent:
        return f"did not come back within {SILENCE} s"
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return f"took more than {MOST_SECONDS} s of processor time at once"
    if code == _NO_MEMORY:
        return f"needs more than {MOST_BYTES >> 20} MiB of memory"
    if code < 0:
        return f"ended its process by {signal.Signals(-code).name}"
    return f"ended its process with status {code}"


def _end(owner: int, pid: int, streams: list[IO[bytes]]) -> None:
    for stream in streams:
        with contextlib.suppress(OSError):
            stream.close()
    if os.getpid() == owner:  # a child of ours has no children of its own
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _rebuilt(kind: type[BaseException], args: tuple[Any, ...], state: Any, text: str) -> Any:
    """An error of the child, whatever its constructor takes."""
    error = kind.__new__(kind, *args)
    error.args = args
    if state:
        error.__dict__.update(state)
    error.__cause__ = RuntimeError(text)
    return error


# -- in the child

_NO_MEMORY = 77  # its exit status then


def _child(body: Body, inbox: int, outbox: int, said: int) -> NoReturn:
    """Never returns: what stands on the stack above is the parent's."""
    status = 1
    try:
        _settle(inbox, outbox, said)
        taken, given = os.fdopen(inbox, "rb"), os.fdopen(outbox, "wb")

        def reply(value: Any) -> None:
            pickle.dump(value, given, protocol=5)
            given.flush()

        try:
            body(_items(taken), lambda value: reply(("made", value)))
            status = 0
        except MemoryError:
            status = _NO_MEMORY
        except BrokenPipeError:
            pass  # nobody listens any more
        except BaseException as error:
            text = traceback.format_exc()
            try:
                told = pickle.dumps((type(error), error.args, error.__dict__, text))
            except Exception:
                told = pickle.dumps((RuntimeError, (str(error),), None, text))
            reply(("raised", pickle.loads(told)))
            status = 0
    finally:
        os._exit(status)


def _settle(inbox: int, outbox: int, said: int) -> None:
    """Become a process that has nothing of ours but the pipes, and is limited."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    for fd in _open_files():
        if fd > 2 and fd not in (inbox, outbox):
            with contextlib.suppress(OSError):
                os.close(fd)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError, IndexError):  # where there is no /proc
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[5])
        _lower(resource.RLIMIT_DATA, pages * os.sysconf("SC_PAGE_SIZE") + MOST_BYTES)


def _open_files() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(entry.name) for entry in Path("/dev/fd").iterdir()]
    return list(range(3, min(os.sysconf("SC_OPEN_MAX"), 65536)))


def _lower(what: int, soft: int) -> None:
    import resource

    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (soft if hard < 0 else min(soft, hard), hard))


def _items(taken: IO[bytes]) -> Iterator[Any]:
    """What the parent sends, until it ends; each with its own share of time."""
    import resource

    while True:
        try:
            item = pickle.load(taken)
        except EOFError:
            return
        _lower(resource.RLIMIT_CPU, int(time.process_time()) + MOST_SECONDS)
        yield item
