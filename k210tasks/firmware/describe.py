"""What is in a kfpkg, for people: every part, and every kmodel found in it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from k210tasks.firmware.flash_layout import PREFIX_BYTES
from k210tasks.firmware.kfpkg import Kfpkg, Part, read
from k210tasks.kmodel import KmodelError, detect, parse
from k210tasks.kmodel.detect import Detected
from k210tasks.kmodel.listing import memory_lines, summary
from k210tasks.kmodel.v4 import IDENTIFIER
from k210tasks.profiles import FLASH_FRAME_BYTES, loading

#: A second kmodel in one part begins at a multiple of this, the flash sector; version 3 has
#: no identifier and is looked for at the start only (docs/kpu-and-kmodel.md, section 5).
STEP_BYTES = 4096


def describe(data: bytes, where: str = "the kfpkg") -> str:
    """The listing of a kfpkg; raises :class:`~k210tasks.firmware.errors.KfpkgError`."""
    image = read(data, where)
    total = sum(len(part.data) for part in image.parts)
    named = f" {image.name}" if image.name else ""
    profile = f" for {image.profile}" if image.profile else ""
    lines = [
        f"{where}: firmware image{named}{profile},"
        f" {_count(len(image.parts), 'part')}, {total} bytes"
    ]
    for part in image.parts:
        lines += _part(part)
    lines += [f"warning: {text}" for text in overlaps(image)]
    return "\n".join(lines) + "\n"


def kmodels(data: bytes) -> Iterator[tuple[int, Detected]]:
    """Offset and version of every kmodel in the bytes of a part."""
    identifier = IDENTIFIER.to_bytes(4, "little")
    starts = [0] if data[:4] == b"\x03\0\0\0" else []
    at = data.find(identifier)
    while at >= 0:
        if at % STEP_BYTES == 0:
            starts.append(at)
        at = data.find(identifier, at + 1)
    for start in starts:
        try:
            found = detect(data, start)
        except KmodelError:
            continue
        try:
            whole = not found.readable or len(parse(data, start).layers) > 0
        except KmodelError:
            whole = False
        if whole or start == 0:  # a damaged one at the start is still one; elsewhere it is noise
            yield start, found


def overlaps(image: Kfpkg) -> list[str]:
    """What to say of parts that share a frame of the flasher, in a file made elsewhere.

    The later one overwrites the earlier.
    """
    told = []
    owner: dict[int, Part] = {}
    for part in image.parts:
        end = part.address + _stored(part)
        for frame in range(part.address // FLASH_FRAME_BYTES, -(-end // FLASH_FRAME_BYTES)):
            other = owner.setdefault(frame, part)
            if other is not part:
                told.append(
                    f"{part.bin} at {part.address:#x} shares the 64 KiB frame at"
                    f" {frame * FLASH_FRAME_BYTES:#x} with {other.bin}"
                )
                break
    return told


def _part(part: Part) -> list[str]:
    last = max(part.address + _stored(part) - 1, part.address)
    lines = [f"{part.address:#08x}..{last:#08x} {len(part.data):>9} bytes  {part.bin}"]
    if part.sha256_prefix:
        lines.append("    a program: its length and SHA-256 are stored with it")
    if part.source is not None and part.source != part.bin:
        lines.append(f"    {'model' if part.is_model else 'from'} {part.source}")
    lines.append(f"    sha256 {part.sha256}")
    for offset, found in kmodels(part.data):
        lines += _kmodel(part, offset, found)
    return lines


def _kmodel(part: Part, offset: int, found: Detected) -> list[str]:
    at = f" at {part.address + offset:#x}" if offset else ""
    loaded = ", ".join(loading(found.version)) or "no firmware known"
    lines = _wrapped(f"kmodel {found.version}{at} ({found.producer}), loaded by {loaded}")
    if not found.readable:
        return lines
    try:
        listed = summary(parse(part.data, offset))
    except KmodelError as error:
        return [*lines, *_wrapped(f"damaged: {error}")]
    for title, ports in (("input", listed.inputs), ("output", listed.outputs)):
        for port in ports:
            shape = "x".join(map(str, port.shape)) if port.shape else f"{port.nbytes} bytes"
            lines.append(f"    {title} {shape} {port.dtype}")
    totals = "; ".join(memory_lines(listed))
    return [*lines, f"    {_count(len(listed.layers), 'layer')}; {totals}"]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        80,
        initial_indent="    ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _stored(part: Part) -> int:
    return len(part.data) + (PREFIX_BYTES if part.sha256_prefix else 0)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
