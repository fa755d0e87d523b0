"""``k210 pack``: binaries and kmodels to a ``.kfpkg``, without a models.yaml."""

from __future__ import annotations

import argparse
from pathlib import Path

from k210tasks.errors import K210Error

EXAMPLE = "k210 pack workspace/nn_xo.kmodel@0x300000 --firmware canmv-kpu5 -o build/nn_xo.kfpkg"


class SameName(K210Error):
    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is given twice; a part is given once")


class NotAPart(K210Error):
    def __init__(self, path: str, reason: object) -> None:
        super().__init__(f"{path} ends in .kmodel and is none: {reason}")


class NoAddress(K210Error):
    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}@{text}: {text!r} is no address; write it like {path}@0x300000")


class OutputIsPart(K210Error):
    def __init__(self, path: str) -> None:
        super().__init__(f"the output {path} is one of the parts; give another -o")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from k210tasks.profiles import PROFILES

    parser.add_argument(
        "parts",
        metavar="FILE[@ADDRESS]",
        nargs="+",
        help="a kmodel, or a binary such as the firmware, and where in flash it goes (0x…); "
        "without an address: the next free 64 KiB from the profile's base",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT.kfpkg", required=True, type=Path, help="the file to write"
    )
    parser.add_argument(
        "--firmware",
        metavar="PROFILE",
        choices=PROFILES,
        default="maixpy",
        help=f"what the board runs (default maixpy): {', '.join(PROFILES)}",
    )
    parser.add_argument(
        "--no-prefix",
        action="store_true",
        help="store a binary at address 0 as it is, without length and SHA-256; such a program "
        "does not start by itself",
    )


def run(args: argparse.Namespace) -> int:
    import os

    from k210tasks.cli.given import CannotWrite, refuse_foreign
    from k210tasks.firmware import flash_layout
    from k210tasks.firmware.describe import describe
    from k210tasks.firmware.kfpkg import Kfpkg, Part, write
    from k210tasks.profiles import PROFILES
    from k210tasks.store.files import write_atomically

    profile = PROFILES[args.firmware]
    name = args.output.name.removesuffix(".kfpkg")
    pieces: dict[str, flash_layout.Piece] = {}
    content: dict[str, bytes] = {}
    versions: dict[str, int | None] = {}
    for path, address in map(split, args.parts):
        content_of, version = _read(name, path)
        title = path if version is None else Path(path).name.removesuffix(".kmodel")
        if title in pieces:
            raise SameName(path)
        if Path(path).resolve() == args.output.resolve():
            raise OutputIsPart(path)
        prefix = False if args.no_prefix and version is None else None
        pieces[title] = flash_layout.Piece(
            title, version is not None, len(content_of), address, prefix
        )
        content[title], versions[title] = content_of, version
        if version is not None:
            flash_layout.check_loads(name, title, version, profile)
            _refuse_damaged(path, content_of)
    placed = flash_layout.plan(name, list(pieces.values()), profile)
    parts = tuple(
        Part(
            place.address,
            content[place.piece.name],
            place.sha256_prefix,
            source=place.piece.name,
            is_model=place.piece.is_model,
            kmodel=versions[place.piece.name],
        )
        for place in placed
    )
    refuse_foreign(args.output, "kfpkg", lambda found: found.startswith(b"PK"))
    data = write(Kfpkg(parts, name, profile.name))
    try:
        write_atomically(os.fspath(args.output), data)
    except OSError as error:
        raise CannotWrite(os.fspath(args.output), error.strerror or str(error)) from error
    print(describe(data, os.fspath(args.output)), end="")
    for warning in flash_layout.warnings(placed, profile):
        print(f"warning: {warning}")
    return 0


def split(text: str) -> tuple[str, int | None]:
    """``FILE[@ADDRESS]``; an ``@`` that no number follows belongs to the name."""
    path, at, number = text.rpartition("@")
    try:
        return (path, int(number, 0)) if at and path else (text, None)
    except ValueError:
        return text, None


def _read(image: str, path: str) -> tuple[bytes, int | None]:
    """The file's bytes, and the version where it is a kmodel."""
    from k210tasks.cli.given import read_bytes
    from k210tasks.firmware.errors import BinMissing
    from k210tasks.kmodel import KmodelError, detect

    if not Path(path).exists():
        file, _, address = path.rpartition("@")
        if file and Path(file).exists():
            raise NoAddress(file, address)
        raise BinMissing(image, path)
    data = read_bytes(path)
    if not path.lower().endswith(".kmodel"):
        return data, None
    try:
        return data, detect(data).version
    except KmodelError as error:
        raise NotAPart(path, error) from None


def _refuse_damaged(path: str, data: bytes) -> None:
    """A kmodel that is cut short is found here, not on the board."""
    from k210tasks.cli.given import UnreadableKmodel
    from k210tasks.kmodel import KmodelError, detect, parse

    try:
        if detect(data).readable:
            parse(data)
    except KmodelError as error:
        raise UnreadableKmodel(path, error) from None
