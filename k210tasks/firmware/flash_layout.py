"""Where the parts of an image lie in flash, and whether they may lie there.

The flasher writes frames of 64 KiB, so a part owns whole frames: two parts that share one
would overwrite each other (docs/kpu-and-kmodel.md, section 5). No file is opened here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from k210tasks.firmware import errors
from k210tasks.profiles import (
    FLASH_BYTES,
    FLASH_FRAME_BYTES,
    SRAM_BYTES,
    Profile,
    loading,
)

#: What the flasher adds to a program: one byte of flags, the length in four, and a SHA-256
#: of 32 at its end (section 5).
PREFIX_BYTES = 5 + 32
#: The flasher erases sectors of this size.
SECTOR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Piece:
    """A part before it has a place. ``address`` and ``sha256_prefix`` None: ours to choose."""

    name: str  # the model's name, or the path of the binary as models.yaml gives it
    is_model: bool
    nbytes: int
    address: int | None = None
    sha256_prefix: bool | None = None

    @property
    def title(self) -> str:
        """How errors name it."""
        return f"{'model' if self.is_model else 'bin'} {self.name}"


@dataclass(frozen=True, slots=True)
class Placed:
    """A part with its place; ``start`` and ``end`` bound the frames it owns."""

    piece: Piece
    address: int
    sha256_prefix: bool

    @property
    def stored(self) -> int:
        """Bytes in flash, what the flasher adds included."""
        return self.piece.nbytes + (PREFIX_BYTES if self.sha256_prefix else 0)

    @property
    def start(self) -> int:
        return _frame_floor(self.address)

    @property
    def end(self) -> int:
        return _frame_ceil(self.address + self.stored)


def plan(image: str, pieces: Sequence[Piece], profile: Profile) -> tuple[Placed, ...]:
    """Give every piece an address and check them all; sorted by address.

    A piece without one gets the next free frames from ``profile.model_base`` on, in the order
    given, around the pieces that have one. Raises a :class:`~errors.FirmwareError`.
    """
    for piece in pieces:
        if piece.nbytes == 0:
            raise errors.Empty(image, piece.title)
    placed: list[Placed | None] = [
        None if piece.address is None else _place(image, piece, piece.address) for piece in pieces
    ]
    cursor = _frame_ceil(profile.model_base)
    for i, piece in enumerate(pieces):
        if piece.address is None:
            taken = [p for p in placed if p is not None]
            placed[i] = chosen = _next_free(image, piece, cursor, taken, profile)
            cursor = chosen.end
    result = sorted((p for p in placed if p is not None), key=lambda p: p.address)
    for part in result:
        _check_place(image, part, profile)
    for part, after in pairwise(result):
        if after.start < part.end:
            raise errors.PartsOverlap(
                image,
                after.piece.title,
                (after.address, after.address + after.stored),
                part.piece.title,
                (part.start, part.end),
            )
    return tuple(result)


def check_profile(image: str, model: str, its: str, kmodel: int, profile: Profile) -> None:
    """Refuse a model made for another profile, or one this profile's firmware cannot load."""
    if its != profile.name:
        raise errors.ProfileDiffers(image, model, its, profile.name)
    check_loads(image, model, kmodel, profile)


def check_loads(image: str, model: str, kmodel: int, profile: Profile) -> None:
    """Refuse a kmodel version the profile's firmware does not load (section 5)."""
    if not profile.loads(kmodel):
        raise errors.KmodelNotLoaded(
            image, model, kmodel, profile.name, profile.kmodels, ", ".join(loading(kmodel))
        )


def warnings(placed: Sequence[Placed], profile: Profile) -> tuple[str, ...]:
    """What is allowed and yet probably not meant."""
    if any(p.address == 0 for p in placed):
        return ()
    return tuple(
        f"{p.piece.title} at {p.address:#x} lies below {profile.model_base:#x}, where profile"
        f" {profile.name} keeps models; it may overwrite the firmware on the board"
        for p in placed
        if p.piece.is_model and p.start < profile.model_base
    )


def _place(image: str, piece: Piece, address: int) -> Placed:
    """The piece at that address, with its prefix decided: a program at 0 and nothing else."""
    prefix = piece.sha256_prefix
    if prefix is None:
        prefix = address == 0 and not piece.is_model
    if piece.is_model and prefix:
        raise errors.ModelAsProgram(
            image,
            piece.title,
            "cannot have sha256_prefix: the header would stand where the firmware expects the"
            " model; leave it out",
        )
    if piece.is_model and address == 0:
        raise errors.ModelAsProgram(
            image,
            piece.title,
            "is at 0x0, where the boot ROM expects the program; give it another address",
        )
    return Placed(piece, address, prefix)


def _next_free(
    image: str, piece: Piece, cursor: int, taken: Sequence[Placed], profile: Profile
) -> Placed:
    obstacles = sorted([(p.start, p.end) for p in taken] + _reserved(profile))
    placed = _place(image, piece, cursor)
    for start, end in obstacles:
        if start < placed.end and placed.start < end:
            placed = _place(image, piece, _frame_ceil(end))
    if placed.end > FLASH_BYTES:
        raise errors.NoRoom(image, piece.title, placed.stored, profile.model_base)
    return placed


def _check_place(image: str, part: Placed, profile: Profile) -> None:
    title, end = part.piece.title, part.address + part.stored
    if not 0 <= part.address < FLASH_BYTES:
        raise errors.BadAddress(image, title, part.address, FLASH_BYTES)
    if part.address % SECTOR_BYTES:
        raise errors.Unaligned(image, title, part.address, SECTOR_BYTES)
    if part.sha256_prefix and part.piece.nbytes > SRAM_BYTES:
        raise errors.ProgramTooLarge(image, title, part.piece.nbytes, SRAM_BYTES)
    if end > FLASH_BYTES:
        raise errors.BeyondFlash(image, title, part.address, end, FLASH_BYTES)
    for area in _reserved(profile):
        whole = not part.piece.is_model and area[0] <= part.address  # an image of the file system
        if part.start < area[1] and area[0] < part.end and not whole:
            raise errors.InFileSystem(image, title, (part.address, end), profile.name, area)


def _reserved(profile: Profile) -> list[tuple[int, int]]:
    return [profile.filesystem] if profile.filesystem is not None else []


def _frame_floor(address: int) -> int:
    return address // FLASH_FRAME_BYTES * FLASH_FRAME_BYTES


def _frame_ceil(address: int) -> int:
    return -(-address // FLASH_FRAME_BYTES) * FLASH_FRAME_BYTES
