"""Run the stock flasher, show how far it is, and say its failures in words that help.

kflash runs as a process of its own: it prints, changes its arguments and exits as it likes,
and when a board falls silent it waits for ever, which only the outside can end.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from k210tasks.firmware.errors import FirmwareError
from k210tasks.firmware.kfpkg import Kfpkg
from k210tasks.progress import Progress, no_progress

#: The stock flasher's names for boards, which decide how it resets them.
BOARDS = ("dan", "bit", "bit_mic", "goE", "goD", "kd233", "maixduino", "trainer")
#: Bits a second; what the boards' serial chips and the flasher's own examples use.
BAUD = 1_500_000
#: Seconds of silence after which the flasher is taken to wait for a board that is gone. A
#: frame of 64 KiB takes under six at the slowest rate.
STALL_SECONDS = 45.0
#: Seconds it may knock at a board's boot ROM, board after board: it repeats a refused command
#: without end, printing all the while, so silence alone does not tell.
KNOCK_SECONDS = 180.0

#: Done and total in bytes of flash content, and what is being written.


class FlashFailed(FirmwareError):
    """The board was not flashed, or not wholly."""

    def __init__(self, problem: str, remedy: str, said: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" + (f" (kflash: {said})" if said else ""))


#: ``python -m kflash``, but never the kflash.py, or the runpy.py, of the current folder. Python
#: 3.10 has no -P, and -I would not find what is installed for the user alone.
_KFLASH = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; import runpy; "
    "runpy.run_module('kflash', run_name='__main__', alter_sys=True)"
)


def flash(
    path: Path,
    image: Kfpkg,
    *,
    port: str | None = None,
    board: str | None = None,
    baud: int = BAUD,
    progress: Progress = no_progress,
    stall_seconds: float = STALL_SECONDS,
    knock_seconds: float = KNOCK_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Write the kfpkg at ``path``, which holds ``image``, to a board.

    ``port`` None: the first serial port of a known USB chip. ``board`` None: kflash tries one
    after the other. Raises :class:`FlashFailed`.
    """
    command = [sys.executable, "-u", "-c", _KFLASH, "-n", "-b", str(baud)]
    command += ["-p", port] if port else []
    command += ["-B", board] if board else []
    process = subprocess.Popen(
        [*command, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=None if environment is None else dict(environment),
    )
    lines = _Lines(process)
    watch = _Watch(image, progress)
    try:
        limit = max(stall_seconds, STALL_SECONDS)  # it may take its time to start
        knock_until = time.monotonic() + knock_seconds
        while (line := lines.next(limit)) is not None:
            watch.see(line)
            if not watch.answered and time.monotonic() > knock_until:
                raise _silent(
                    _named_port("\n".join(watch.last)) or port or "the port",
                    board,
                    baud,
                    watch.said,
                )
            limit = stall_seconds
        code = process.wait(stall_seconds)
    except (queue.Empty, subprocess.TimeoutExpired):
        raise FlashFailed(
            f"the board stopped answering {watch.where}",
            "what is in its flash is incomplete: check the cable, reset the board and flash"
            " again, with a lower --baud (115200) if it happens twice",
        ) from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        lines.close()
    if code != 0:
        raise translate(watch.last, port, board, baud)
    if not watch.complete:
        raise FlashFailed("kflash ended without writing every part", "flash again", watch.said)


class _Lines:
    """The process's output, cut at newlines and carriage returns, with a time limit."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._pipe = process.stdout
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def next(self, seconds: float) -> str | None:
        """The next line; None at the end. Raises ``queue.Empty`` after ``seconds`` of silence."""
        return self._queue.get(timeout=seconds)

    def close(self) -> None:
        self._thread.join()
        self._pipe.close()

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(self._pipe.fileno(), 65536):
            *whole, rest = re.split(rb"[\r\n]+", rest + chunk)
            for line in whole or [b""]:  # a sign of life, while it knocks with dots alone
                self._queue.put(line.decode(errors="replace").strip())
        self._queue.put(rest.decode(errors="replace").strip())
        self._queue.put(None)


class _Watch:
    """Follows the flasher through its output: the loader first, then part after part."""

    def __init__(self, image: Kfpkg, progress: Progress) -> None:
        self._sizes = {part.bin: len(part.data) for part in image.parts}
        self._total = sum(self._sizes.values())
        self._progress = progress
        self._bin: str | None = None
        self._before = 0  # bytes of the parts already written
        self._written: set[str] = set()
        self.last: deque[str] = deque(maxlen=30)
        self.where = "before the first byte was written"
        self.answered = False  # whether the boot ROM took the first bytes

    @property
    def complete(self) -> bool:
        return self._written == set(self._sizes)

    @property
    def said(self) -> str:
        return next((line for line in reversed(self.last) if line), "")

    def see(self, line: str) -> None:
        if match := re.match(r"(Downloading ISP|Programming BIN): \|.*\| ([\d.]+)%", line):
            self._see_percent(match[1] == "Downloading ISP", float(match[2]))
            return
        self.last.append(line)
        if match := re.search(r"Writing (.+) into 0x([0-9a-f]{8})", line):
            self._bin = match[1]
            self.where = f"while {match[1]} was written to {int(match[2], 16):#x}"

    def _see_percent(self, loader: bool, percent: float) -> None:
        self.answered = True
        if loader or self._bin not in self._sizes:
            self._progress(0, self._total, "the flash program")
            return
        size = self._sizes[self._bin]
        self._progress(self._before + round(size * percent / 100), self._total, self._bin)
        if percent >= 100 and self._bin not in self._written:
            self._written.add(self._bin)
            self._before += size


def ports() -> list[str]:
    """The serial ports of this machine."""
    from serial.tools import list_ports

    return sorted(port.device for port in list_ports.comports())


def translate(
    lines: deque[str] | list[str], port: str | None, board: str | None, baud: int
) -> FlashFailed:
    """The failure in our words, from what kflash said last."""
    text = "\n".join(lines)
    said = next((line for line in reversed(lines) if line), "")
    said = re.sub(r"^\[ERROR\]\s*", "", said)
    name = _named_port(text) or port or "the port"
    for pattern, build in _FAILURES:
        if re.search(pattern, text):
            return build(name, board, baud, said)
    return FlashFailed("the flasher failed", "see what it said", said or "nothing")


def _named_port(text: str) -> str | None:
    match = re.search(r"could not open port '?([^':]+)'?:", text) or re.search(
        r"COM Port (?:Auto Detected|Selected Manually)[:,]\s*(?:Selected\s+)?(\S+)", text
    )
    return match[1] if match else None


def _no_port(name: str, board: str | None, baud: int, said: str) -> FlashFailed:
    return FlashFailed(
        "no serial port of a K210 board found",
        f"connect the board, or name its port with --port ({_ports_here()})",
    )


def _absent(name: str, board: str | None, baud: int, said: str) -> FlashFailed:
    return FlashFailed(
        f"there is no port {name}", f"connect the board, or name another ({_ports_here()})"
    )


def _ports_here() -> str:
    here = ports()
    return "ports here: " + ", ".join(here) if here else "this machine has no serial port now"


def _forbidden(name: str, board: str | None, baud: int, said: str) -> FlashFailed:
    return FlashFailed(
        f"no permission to open {name}",
        f"join its group, sudo usermod -a -G {_group(name)} $USER, and log in again",
    )


def _group(port: str) -> str:
    """The group that owns the port; serial ports belong to ``dialout`` where we cannot see."""
    try:
        return Path(port).group()
    except (OSError, KeyError, NotImplementedError):
        return "dialout"


def _no_serial(name: str, board: str | None, baud: int, said: str) -> FlashFailed:
    return FlashFailed(f"{name} is no serial port", f"name the board's port ({_ports_here()})")


def _busy(name: str, board: str | None, baud: int, said: str) -> FlashFailed:
    return FlashFailed(
        f"{name} is in use by another program", "close its terminal or IDE and flash again"
    )


def _silent(name: str, board: str | None, baud: int, said: str) -> FlashFailed:
    tried = f"as board {board}" if board else "as any known board"
    return FlashFailed(
        f"no answer from a K210 on {name}, reset {tried}",
        "check that it is the board's port and that the cable carries data, name the board with"
        f" --board ({', '.join(BOARDS)}), or hold its BOOT key while it is reset",
    )


def _fast_mode(name: str, board: str | None, baud: int, said: str) -> FlashFailed:
    return FlashFailed(
        f"the board on {name} answers at 115200 baud and not as board {board} at {baud}",
        "name the right --board, or use --baud 115200",
    )


def _lost(name: str, board: str | None, baud: int, said: str) -> FlashFailed:
    return FlashFailed(
        f"the board on {name} answered and was lost again at {baud} baud",
        "use a lower --baud (115200), another cable or port",
        said,
    )


def _missing(name: str, board: str | None, baud: int, said: str) -> FlashFailed:
    return FlashFailed(
        "kflash is not installed for this Python", f"run {sys.executable} -m pip install kflash"
    )


_Build = Callable[[str, "str | None", int, str], FlashFailed]

#: What kflash and pyserial say -> our sentence; the first that matches.
_FAILURES: tuple[tuple[str, _Build], ...] = (
    (r"No module named '?(kflash|serial)", _missing),
    (r"PySerial must be installed", _missing),
    (r"No valid COM Port found", _no_port),
    (r"Permission denied|Access is denied", _forbidden),
    (r"could not open port.*(No such file|cannot find the (file|path))", _absent),
    (r"Device or resource busy|multiple access on port|Could not exclusively lock", _busy),
    (r"Could not configure port|Inappropriate ioctl", _no_serial),
    (r"Fast mode failed", _fast_mode),
    (r"Failed to (Connect|initialize|write|erase|communicat|reboot)", _lost),
    (r"has been disconnected|device disconnected|Input/output error|write failed", _lost),
    (r"No valid Kendryte K210 found|Greeting fail", _silent),
)
