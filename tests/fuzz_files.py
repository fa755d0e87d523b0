"""Damages the binary files that k210tasks reads, by their grammar: samples (pictures and
tensors), calibrations, archives of tools, and kfpkgs.

    python tests/fuzz_files.py KIND [--cases 3000] [--seed 0] [--keep FOLDER]
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import lzma
import random
import stat
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k210tasks.cli import main, run
from k210tasks.compiler import Calibration
from k210tasks.errors import K210Error, visible
from k210tasks.firmware.kfpkg import Kfpkg, Part, write
from k210tasks.kmodel import write as kmodel_bytes
from k210tasks.process_wide import unwarned
from k210tasks.reference.float_model import measure_to
from k210tasks.report.samples import thumbnail
from k210tasks.samples.folder import scan
from k210tasks.samples.loading import Loader
from k210tasks.samples.preprocess import Preprocess
from k210tasks.samples.seen import digest
from k210tasks.toolchains import unpacking
from tests import fuzzing
from tests.simulator.models import net_v3, net_v4
from tests.steps.tiny import dense

#: names that entries of archives were given to mislead whoever unpacks them
NAMES = (
    "", ".", "..", "../x", "/etc/x", "a/../../x", "a\\..\\x", "C:x", "x" * 300, "a/" * 400 + "x",
    "ü" * 200, "NCC", "ncc", "ncc/ncc", "bin", "bin/NCC", "a\0b", "\x1b[31mx", "\udcff", "con",
    "flash-list.json", "k210tasks.json", " ", "a//b", "./a",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """Good files, what reads them, and how they are damaged."""

    seeds: Callable[[], list[bytes]]
    target: fuzzing.Target
    mutate: fuzzing.Mutate


def verb(*words: str) -> str:
    """What a verb of ``k210`` shows; a :class:`K210Error` where it refuses."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    text = out.getvalue() + err.getvalue()
    assert text == visible(text), "raw control characters"
    if status:
        raise K210Error(text)
    return text


# -- samples: the ending of the name, an end of line, the content

ENDINGS = (".png", ".jpg", ".bmp", ".gif", ".npy", ".bin")


@functools.cache
def samples() -> list[bytes]:
    """Pictures of every format and mode, and tensors of every kind."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (9, 11, 3), np.uint8)
    picture, made = Image.fromarray(noise), []
    for mode in ("RGB", "L", "P", "RGBA", "1", "LA", "I;16"):
        deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
        made.append(_saved(deep if mode == "I;16" else picture.convert(mode), ".png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    made += [_saved(picture, ending, exif=exif) for ending in (".jpg", ".png")]
    made += [_saved(picture.convert(mode), ".jpg", quality=50) for mode in ("L", "CMYK")]
    made += [_saved(picture, ".jpg", progressive=True), _saved(picture, ".bmp")]
    made += [_saved(picture.convert("P"), ".bmp"), _saved(picture, ".gif")]
    made.append(_saved(picture, ".gif", save_all=True, append_images=[picture.rotate(90)] * 2))
    x = rng.normal(size=(1, 4, 4, 3)).astype(np.float32)
    for array in (x, x[0], x.repeat(3, 0), x.astype(np.float64), x.astype(np.float16)):
        file = io.BytesIO()
        np.save(file, array)
        made.append(b".npy\n" + file.getvalue())
    file = io.BytesIO()
    np.savez(file, a=x)
    return [*made, b".npy\n" + file.getvalue(), b".bin\n" + x.tobytes()]


def _saved(picture: Image.Image, ending: str, **options: object) -> bytes:
    file = io.BytesIO()
    kind = {".jpg": "JPEG"}.get(ending, ending[1:].upper())
    picture.save(file, kind, **options)
    return ending.encode() + b"\n" + file.getvalue()


def read_sample(data: bytes) -> str:
    """A folder of one sample, as calibration, ``k210 run`` and the report read it."""
    ending, content = data.split(b"\n", 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{ending.decode()}")
        path.write_bytes(content)
        thumbnail(path)
        if path.suffix == ".npy":
            with contextlib.suppress(K210Error):
                run.read_npy(str(path), 0)
        loader = Loader((1, 4, 4, 3), Preprocess(mean=0, std=1))
        names = loader.names(Path(folder), scan(folder).files)
        return " ".join(digest(loader.load(Path(folder, name), name)) for name in names[:3])


def damage_sample(rng: random.Random, data: bytes) -> bytes:
    ending, content = data.split(b"\n", 1)
    if rng.random() < 0.05:
        ending = rng.choice(ENDINGS).encode()
    if ending == b".npy" and content.startswith(b"\x93NUMPY") and rng.random() < 0.7:
        content = _npy(rng, content)
    elif content.startswith(b"\x89PNG") and rng.random() < 0.7:
        content = _png(rng, content)
    elif rng.random() < 0.5:  # heads are hit more often than pixels
        content = fuzzing.mutate_bytes(rng, content[:64]) + content[64:]
    else:
        content = fuzzing.mutate_bytes(rng, content)
    return ending + b"\n" + content


def _npy(rng: random.Random, data: bytes) -> bytes:
    """Another head, of the length that it says."""
    size = int.from_bytes(data[8:10], "little")
    head = fuzzing.mutate_text(rng, data[10 : 10 + size])
    version = rng.choice((b"\1\0", b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\4\0", b"\xff\xff"))
    length = len(head).to_bytes(2 if version == b"\1\0" else 4, "little", signed=False)
    return data[:6] + version + length[:4] + head + data[10 + size :]


def _png(rng: random.Random, data: bytes) -> bytes:
    """Chunks changed, left out, doubled or exchanged, each with its right checksum."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    place = rng.randrange(len(chunks))
    name, content = chunks[place]
    how = rng.randrange(6)
    if how < 2:
        chunks[place] = (name, fuzzing.mutate_bytes(rng, content))
    elif how == 2 and name == b"IHDR":
        sizes = (0, 1, 65536, 8000, 64_000_000, 0x7FFFFFFF, 0xFFFFFFFF)
        both = struct.pack(">II", rng.choice(sizes), rng.choice(sizes))
        chunks[place] = (name, both + content[8:])
    elif how == 3:
        del chunks[place]
    elif how == 4:
        chunks.insert(rng.randrange(len(chunks)), (name, content))
    else:
        text = zlib.compress(bytes(rng.choice((100, 1 << 20, 1 << 26))))
        extra = rng.choice(((b"zTXt", b"a\0\0" + text), (b"iCCP", b"a\0\0" + text), (b"acTL", b"")))
        chunks.insert(1, extra)
    return data[:8] + b"".join(
        struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks
    )


# -- calibrations


@functools.cache
def calibrations() -> list[bytes]:
    samples = [np.ones((1, 4, 4, 3), np.float32) * n for n in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.npz")
        measure_to(path, dense(np.ones((2, 48)), [1, 4, 4, 3]), samples, fed="tensors")
        return [path.read_bytes()]


def read_calibration(data: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.npz")
        path.write_bytes(data)
        return str(Calibration.from_npz(path).samples)


def damage_arrays(rng: random.Random, data: bytes) -> bytes:
    """An ``.npz`` of which an array, or the archive around them, is damaged."""
    if rng.random() < 0.3:
        return fuzzing.mutate_bytes(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    how = rng.randrange(4)
    if how == 0:
        del members[name]
    elif how == 1:
        members[name] = _npy(rng, members[name])
    elif how == 2:
        members[name] = members[rng.choice(sorted(members))]
    else:
        members[name] = fuzzing.mutate_bytes(rng, members[name])
    return _zip(rng, [_Entry(name, content) for name, content in members.items()])


# -- archives


@dataclass
class _Entry:
    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""


@functools.cache
def archives() -> list[bytes]:
    """One that installs, as a tar that nothing is packed in."""
    entries = [
        _Entry("./", kind=tarfile.DIRTYPE), _Entry("bin/ncc", b"#!/bin/sh\n" * 30),
        _Entry("lib/a.so.1", b"library" * 200), _Entry("lib/a.so", kind=b"2", link="a.so.1"),
        _Entry("bin/tool", kind=b"1", link="bin/ncc"), _Entry("README", b"read" * 50),
    ]  # fmt: skip
    return [_tar(entries), *(pack(_tar(entries)) for pack in (gzip.compress, lzma.compress))]


def _tar(entries: list[_Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname, info.size = entry.kind, entry.link, len(entry.content)
            with contextlib.suppress(ValueError, UnicodeError):  # what this form cannot write
                archive.addfile(info, io.BytesIO(entry.content))
    return file.getvalue()


def _zip(rng: random.Random, entries: list[_Entry]) -> bytes:
    file = io.BytesIO()
    stored, deflated = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    method = rng.choice((stored, stored, stored, stored, deflated, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(file, "w", method) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name)
            link = entry.kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
            info.external_attr = (stat.S_IFLNK if link else stat.S_IFREG | 0o755) << 16
            info.compress_type = method
            with contextlib.suppress(ValueError, UnicodeError), unwarned:
                archive.writestr(info, entry.link if link else entry.content)
    return file.getvalue()


def unpack(data: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        archive, into = Path(folder, "tool.tar"), Path(folder, "deep", "out")
        archive.write_bytes(data)
        try:
            unpacking.unpack(archive, into, max_bytes=1 << 22, max_files=100)
            found = unpacking.find_program(into, "ncc", archive)
            assert found.resolve().is_relative_to(into.resolve())
        finally:
            assert {p.name for p in Path(folder).iterdir()} <= {"tool.tar", "deep"}
            assert [p.name for p in Path(folder, "deep").iterdir()] == ["out"]
            for path in into.rglob("*"):
                assert path.resolve().is_relative_to(into.resolve()), path
        return found.name


def damage_archive(rng: random.Random, data: bytes) -> bytes:
    """Entries renamed, doubled, of another kind, and packed in some way; or bytes of it."""
    how = rng.random()
    if how < 0.15:
        return fuzzing.mutate_bytes(rng, data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        entries = [
            _Entry(
                info.name, archive.extractfile(info).read() if info.isreg() else b"",  # type: ignore[union-attr]
                info.type, info.linkname,
            ) for info in archive
        ]  # fmt: skip
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change(rng, entries)
    rng.shuffle(entries) if rng.random() < 0.3 else None
    if how > 0.7:
        made = _zip(rng, entries)
    else:
        made = _tar(
            entries, rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
        )
        if rng.random() < 0.3:
            made = _blocks(rng, made)
        made = rng.choice((bytes, gzip.compress, lzma.compress))(made)
    return fuzzing.mutate_bytes(rng, made) if rng.random() < 0.2 else made


def _change(rng: random.Random, entries: list[_Entry]) -> None:
    entry = rng.choice(entries)
    how = rng.randrange(6)
    if how == 0:
        entry.name = rng.choice(NAMES)
    elif how == 1:
        entries.append(_Entry(rng.choice((entry.name, *NAMES)), b"again"))
    elif how == 2:
        entry.kind = rng.choice((b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"x", b"S", b"Z"))
        entry.link = entry.link or rng.choice((entry.name, *NAMES))
    elif how == 3:
        entry.link = rng.choice((*NAMES, *(other.name for other in entries)))
    elif how == 4:
        entry.content = bytes(rng.choice((0, 1, 5000, 1 << 20, 1 << 23)))
    else:
        entry.name = f"{rng.choice(entries).name}/{entry.name}"


def _blocks(rng: random.Random, data: bytes) -> bytes:
    """A head of a tar changed, with its right checksum."""
    changed = bytearray(data)
    heads = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    if not heads:
        return data
    at = rng.choice(heads)
    field, size = rng.choice(((0, 100), (100, 8), (124, 12), (124, 12), (156, 1), (157, 100)))
    new = rng.choice((b"\xff" * size, b"7" * size, b"\x80" + bytes(size - 1), rng.randbytes(size)))
    changed[at + field : at + field + size] = new[:size]
    changed[at + 148 : at + 156] = b" " * 8
    changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
    return bytes(changed)


# -- kfpkg


@functools.cache
def kfpkgs() -> list[bytes]:
    models = [Part(0x300000 + (n << 20), kmodel_bytes(net()), False, source=f"m{n}", is_model=True,
                   kmodel=n) for n, net in ((3, net_v3), (4, net_v4))]  # fmt: skip
    program = Part(0, b"program" * 100, True, source="firmware/app.bin")
    return [write(Kfpkg((program, *models), "demo", "maixpy")), write(Kfpkg(tuple(models)))]


def read_kfpkg(data: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.kfpkg")
        path.write_bytes(data)
        return verb("inspect", str(path)) + verb("inspect", str(path), "--json")


def damage_kfpkg(rng: random.Random, data: bytes) -> bytes:
    """Members renamed, doubled and damaged, the two lists by their grammar; or bytes of it."""
    if rng.random() < 0.2:
        return fuzzing.mutate_bytes(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [_Entry(name, archive.read(name)) for name in archive.namelist()]
    for _ in range(rng.choice((1, 1, 2))):
        entry = rng.choice(entries)
        if entry.name.endswith(".json") and rng.random() < 0.8:
            entry.content = fuzzing.mutate_text(rng, entry.content)
        elif rng.random() < 0.5:
            entry.content = fuzzing.mutate_bytes(rng, entry.content)
        else:
            old, before = entry.name, json.dumps(entry.name)[1:-1].encode()
            _change(rng, entries)
            after = json.dumps(entry.name)[1:-1].encode()
            if entry.name != old and rng.random() < 0.7:  # and the lists say so
                for other in entries:
                    if other.name.endswith(".json"):
                        other.content = other.content.replace(before, after)
    made = _zip(rng, entries)
    return fuzzing.mutate_bytes(rng, made) if rng.random() < 0.1 else made


KINDS = {
    "samples": Kind(samples, read_sample, damage_sample),
    "calibration": Kind(calibrations, read_calibration, damage_arrays),
    "archive": Kind(archives, unpack, damage_archive),
    "kfpkg": Kind(kfpkgs, read_kfpkg, damage_kfpkg),
}


if __name__ == "__main__":
    name = fuzzing.chosen(tuple(KINDS))
    kind, given = KINDS[name], fuzzing.arguments(name, 3000).parse_args()
    sys.exit(fuzzing.reported(name, kind.target, kind.seeds(), kind.mutate, given))
