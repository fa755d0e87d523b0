"""The ``.kfpkg``: a zip of binaries and kmodels with a list of their flash addresses.

Written for the stock flasher, which finds addresses by a regular expression and unpacks
without looking; read with suspicion, since such files are passed around
(docs/kpu-and-kmodel.md, section 5). The same parts give the same bytes on any day.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from k210tasks.firmware.errors import KfpkgError
from k210tasks.jsondata import Rule, loads, plain
from k210tasks.profiles import FLASH_BYTES

#: The list the flasher reads, and our own record beside it, which it ignores.
LIST_NAME = "flash-list.json"
RECORD_NAME = "k210tasks.json"


def _can_be_shown(text: str) -> bool:
    """Whether a terminal would show it; control characters it would obey."""
    return not any(unicodedata.category(character).startswith("C") for character in text)


_Shown = Annotated[str, Rule("a text without control characters", _can_be_shown)]


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What we know of a part beyond what the list says of the member ``bin``."""

    bin: _Shown
    source: _Shown | None
    is_model: bool
    kmodel: int | None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """Our own record."""

    name: _Shown | None
    profile: _Shown | None
    parts: tuple[PartRecord, ...]
    version: Literal[1] = 1


#: A reader's limits: no image holds more than the flash, or nearly as many parts.
MAX_PARTS = 256
MAX_JSON_BYTES = 1 << 20
MAX_BYTES = FLASH_BYTES + 2 * MAX_JSON_BYTES

_DAMAGED = "build or download it again"
_HOSTILE = "do not unpack or flash it"


@dataclass(frozen=True, slots=True)
class Part:
    """What lies at one flash address; ``data`` is without the flasher's prefix.

    ``source``: the model's name, or the path of the binary; None in a file made elsewhere.
    """

    address: int
    data: bytes
    sha256_prefix: bool
    bin: str = ""  # the name inside the zip; chosen by :func:`write`
    source: str | None = None
    is_model: bool = False
    kmodel: int | None = None  # version, for a model

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Kfpkg:
    """What a kfpkg holds, in the order it is flashed; names are None in one made elsewhere."""

    parts: tuple[Part, ...]
    name: str | None = None
    profile: str | None = None

    def only(self, model: str) -> Kfpkg | None:
        """The same image with nothing but that model; None when it does not hold it."""
        parts = tuple(p for p in self.parts if p.is_model and p.source == model)
        return Kfpkg(parts, self.name, self.profile) if parts else None


def write(image: Kfpkg) -> bytes:
    """The bytes of the kfpkg: members stored, in a fixed order, with a fixed time and mode."""
    parts = sorted(image.parts, key=lambda part: part.address)
    names = _member_names(parts)
    members = [
        (LIST_NAME, _flash_list(parts, names)),
        (RECORD_NAME, _record(image, parts, names)),
        *((name, part.data) for name, part in zip(names, parts, strict=True)),
    ]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return file.getvalue()


def is_kfpkg(data: bytes) -> bool:
    """Whether the bytes begin as a zip does."""
    return data[:2] == b"PK"


def read(data: bytes, where: str = "the kfpkg") -> Kfpkg:
    """Read a kfpkg, ours or anyone's, trusting nothing in it.

    Raises :class:`KfpkgError` for a file that is cut short or damaged, a member whose path
    would leave the folder it is unpacked in, names given twice, sizes no flash can hold, and
    a flash list the stock flasher would not understand.
    """
    members = _members(data, where)
    listed = _read_list(members, where)
    record = _read_record(members)
    told = {part.bin: part for part in record.parts} if record else {}
    parts = []
    for address, name, prefix in listed:
        part, about = Part(address, members[name], prefix, name), told.get(name)
        if about is not None:
            part = replace(part, source=about.source, is_model=about.is_model, kmodel=about.kmodel)
        parts.append(part)
    if record is None:
        return Kfpkg(tuple(parts))
    return Kfpkg(tuple(parts), record.name, record.profile)


# writing


def _member_names(parts: Sequence[Part]) -> list[str]:
    """A name for each part: ASCII, plain, unique without regard to case.

    The flasher prints it and opens a file of that name, on systems we know nothing of.
    """
    taken = {LIST_NAME, RECORD_NAME}
    names = []
    for number, part in enumerate(parts, 1):
        base = PurePosixPath((part.source or part.bin or "part").replace("\\", "/")).name
        base = re.sub(r"[^A-Za-z0-9._-]", "_", base).lstrip(".")[:80] or "part"
        if part.is_model:
            base += ".kmodel"
        name = base
        if re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name):
            name = f"{number:02d}-{base}"
        while name.lower() in taken:  # also by a part whose own name looks like one of ours
            name = f"{number:02d}-{name}"
        taken.add(name.lower())
        names.append(name)
    return names


def _flash_list(parts: Sequence[Part], names: Sequence[str]) -> bytes:
    """The list as the flasher's regular expression wants it.

    It quotes what follows ``"address": `` up to the last comma of the line: one key a line,
    the address never the last. Decimal, so that it is JSON before and after.
    """
    listed = {
        "version": "0.1.0",
        "files": [
            {"address": part.address, "bin": name, "sha256Prefix": part.sha256_prefix}
            for name, part in zip(names, parts, strict=True)
        ],
    }
    return (json.dumps(listed, indent=2) + "\n").encode("ascii")


def _record(image: Kfpkg, parts: Sequence[Part], names: Sequence[str]) -> bytes:
    told = tuple(
        PartRecord(name, part.source, part.is_model, part.kmodel, part.sha256)
        for name, part in zip(names, parts, strict=True)
    )
    record = plain(ImageRecord(image.name, image.profile, told))
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode("ascii")


# reading

#: What zipfile raises for bytes that are not a well-formed archive.
_ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    IndexError,
    OSError,
)


def _members(data: bytes, where: str) -> dict[str, bytes]:
    """Every file of the archive, unpacked in memory under the limits."""
    if not is_kfpkg(data):
        raise KfpkgError(where, "is not a kfpkg: a kfpkg is a zip file", "check the path")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _ZIP_FAULTS:
        raise KfpkgError(
            where, "is cut short or damaged: the list of members at its end is missing", _DAMAGED
        ) from None
    infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    if len(infos) > MAX_PARTS + 2:
        raise KfpkgError(
            where, f"has {len(infos)} members, at most {MAX_PARTS + 2} are accepted", _HOSTILE
        )
    if (total := sum(info.file_size for info in infos)) > MAX_BYTES:
        raise KfpkgError(
            where,
            f"unpacks to {total} bytes, more than the {FLASH_BYTES} of the flash",
            _HOSTILE,
        )
    members: dict[str, bytes] = {}
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        _check_name(info, where)
        if (folded := unicodedata.normalize("NFC", name).casefold()) in seen:
            raise KfpkgError(where, f"holds the member {name!r} twice", _HOSTILE)
        seen.add(folded)
        try:
            with archive.open(info) as file:
                members[name] = file.read(info.file_size + 1)
        except _ZIP_FAULTS as error:
            raise KfpkgError(
                where, f"is damaged: the member {name!r} cannot be read ({error})", _DAMAGED
            ) from None
        if len(members[name]) != info.file_size:
            raise KfpkgError(
                where,
                f"is damaged: the member {name!r} should have {info.file_size} bytes",
                _DAMAGED,
            )
    return members


def _check_name(info: zipfile.ZipInfo, where: str) -> None:
    """Refuse a member that could be written anywhere but below the folder it is unpacked in."""
    name = info.orig_filename
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name or "\\" in name:
        raise KfpkgError(
            where,
            f"holds the member {name!r}, a path outside the folder it is unpacked in",
            _HOSTILE,
        )
    if not _can_be_shown(name):
        raise KfpkgError(where, f"holds the member {name!r}, a name no one can read", _HOSTILE)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise KfpkgError(
            where,
            f"compresses the member {name!r} with method {info.compress_type}",
            "store or deflate it: other methods are not part of the format",
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise KfpkgError(where, f"holds the symbolic link {name!r}", _HOSTILE)


def _read_list(members: dict[str, bytes], where: str) -> list[tuple[int, str, bool]]:
    """Address, member and prefix of each part, as the stock flasher would see them."""
    if LIST_NAME not in members:
        raise KfpkgError(where, f"has no {LIST_NAME}", _DAMAGED)
    try:
        text = members[LIST_NAME][:MAX_JSON_BYTES].decode()
        quoted = re.sub(r'"address": (.*),', r'"address": "\1",', text)
        try:
            value = json.loads(quoted)
        except ValueError:
            value = json.loads(text)  # addresses quoted already: other flashers take them
        files = [
            (_address(entry["address"]), entry["bin"], entry.get("sha256Prefix", False))
            for entry in value["files"]
        ]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise KfpkgError(
            where, f"has a {LIST_NAME} that cannot be read: {error}", _DAMAGED
        ) from None
    for address, name, prefix in files:
        if not isinstance(name, str) or name not in members:
            raise KfpkgError(where, f"lists {name!r}, which is not in it", _DAMAGED)
        if not isinstance(prefix, bool):
            raise KfpkgError(where, f"gives {name!r} the sha256Prefix {prefix!r}", _DAMAGED)
        if not 0 <= address < FLASH_BYTES:
            raise KfpkgError(
                where, f"puts {name!r} at {address:#x}, outside the 16 MiB flash", _DAMAGED
            )
    return files


def _address(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"the address {value!r} is no number")
    return value if isinstance(value, int) else int(value, 0)


def _read_record(members: dict[str, bytes]) -> ImageRecord | None:
    """What we wrote beside the list; None for a file made elsewhere or a record we don't know.

    Only for show and for finding a model again: a wrong one never decides what is flashed.
    """
    try:
        return loads(ImageRecord, members.get(RECORD_NAME, b"{}")[:MAX_JSON_BYTES])
    except ValueError:
        return None
