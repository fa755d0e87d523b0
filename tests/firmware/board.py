"""A board on a pseudo-terminal: the boot ROM's loader, then the flash program it is sent.

Speaks the protocol as the stock flasher does: SLIP frames; ``u16 operation, u16 0, u32 CRC-32,
then address, length, data``; answers of operation and error code. It checks every CRC and the
order of things, and keeps what was written where.
"""

from __future__ import annotations

import os
import pty
import select
import struct
import threading
import tty
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

END, ESC, ESC_END, ESC_ESC = 0xC0, 0xDB, 0xDC, 0xDD
OK, BAD_CHECKSUM, BAD_COMMAND = 0xE0, 0xE2, 0xE3

ROM_NOP, ROM_WRITE, ROM_BOOT = 0xC2, 0xC3, 0xC5
FLASH_NOP, FLASH_WRITE, FLASH_REBOOT, FLASH_BAUD, FLASH_INIT = 0xD2, 0xD4, 0xD5, 0xD6, 0xD7

SRAM = 0x80000000

#: A pseudo-terminal has no reset and boot lines; pyserial's setters for them fail on it.
SITECUSTOMIZE = """\
import serial
serial.Serial._update_dtr_state = serial.Serial._update_rts_state = lambda self: None
"""


class Board(threading.Thread):
    """Runs until :meth:`stop`; ``port`` is the path to give the flasher."""

    def __init__(self, silent: bool = False, deaf_after: int | None = None) -> None:
        super().__init__(daemon=True)
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)  # held open: the flasher closes and opens the port at will
        self.port = os.ttyname(self._slave)
        self._silent = silent
        self._deaf_after = deaf_after  # stops answering after that many flash writes
        self._halt = threading.Event()
        self.sram = bytearray()
        self.booted = self.initialised = self.rebooted = False
        self.baud: int | None = None
        self.writes: list[tuple[int, bytes]] = []
        self.complaints: list[str] = []

    def flash(self, address: int, nbytes: int) -> bytes:
        """What lies in flash there; erased flash is 0xff."""
        content = bytearray(b"\xff" * nbytes)
        for start, data in self.writes:
            for i in range(max(start, address), min(start + len(data), address + nbytes)):
                content[i - address] = data[i - start]
        return bytes(content)

    def run(self) -> None:
        frame: bytearray | None = None
        escaped = False
        while not self._halt.is_set():
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            for byte in os.read(self._master, 65536):
                if byte == END:
                    if frame:
                        self._answer(bytes(frame))
                        frame = None
                    else:
                        frame = bytearray()
                elif frame is None:
                    continue  # noise between frames
                elif escaped:
                    frame.append({ESC_END: END, ESC_ESC: ESC}[byte])
                    escaped = False
                elif byte == ESC:
                    escaped = True
                else:
                    frame.append(byte)

    def stop(self) -> None:
        self._halt.set()
        self.join(10)
        os.close(self._master)
        os.close(self._slave)

    def _answer(self, frame: bytes) -> None:
        operation = frame[0]
        if self._silent:
            return
        if self._deaf_after is not None and len(self.writes) >= self._deaf_after:
            return
        if operation not in (ROM_NOP, FLASH_NOP, FLASH_REBOOT):
            checksum, content = struct.unpack_from("<I", frame, 4)[0], frame[8:]
            if zlib.crc32(content) != checksum:
                self._reply(operation, BAD_CHECKSUM)
                return
        if (operation < 0xD0) == self.booted:
            self.complaints.append(f"operation {operation:#x} while booted is {self.booted}")
            self._reply(operation, BAD_COMMAND)
            return
        if operation == ROM_WRITE:
            address, length = struct.unpack_from("<II", frame, 8)
            data = frame[16:]
            if address != SRAM + len(self.sram) or length != len(data):
                self.complaints.append(f"memory write of {length} at {address:#x}")
            self.sram += data
        elif operation == ROM_BOOT:
            self.booted = struct.unpack_from("<I", frame, 8)[0] == SRAM
            return  # the program that starts says nothing of itself
        elif operation == FLASH_BAUD:
            self.baud = struct.unpack_from("<I", frame, 16)[0]
            return
        elif operation == FLASH_INIT:
            self.initialised = True
        elif operation == FLASH_WRITE:
            address, length = struct.unpack_from("<II", frame, 8)
            data = frame[16:]
            if not self.initialised or length != len(data):
                self.complaints.append(f"flash write of {length} at {address:#x}")
            self.writes.append((address, data))
        elif operation == FLASH_REBOOT:
            self.rebooted = True
        self._reply(operation, OK)

    def _reply(self, operation: int, code: int) -> None:
        os.write(self._master, bytes([END, operation, code, 0, 0, END]))


@contextmanager
def board(silent: bool = False, deaf_after: int | None = None) -> Iterator[Board]:
    """A board that runs for the length of the block."""
    it = Board(silent, deaf_after)
    it.start()
    try:
        yield it
    finally:
        it.stop()


def environment(folder: Path) -> dict[str, str]:
    """Variables for a flasher that is to use a pseudo-terminal; ``folder`` holds the patch."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join(p for p in (str(folder), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path}
