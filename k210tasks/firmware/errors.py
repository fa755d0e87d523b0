"""What can be wrong with a firmware image; each error builds its own sentence from facts."""

from __future__ import annotations

from k210tasks.errors import K210Error


class FirmwareError(K210Error):
    """An image that cannot be made, or a kfpkg that cannot be used."""


def span(start: int, end: int) -> str:
    """``0x300000..0x30ffff``: both ends belong to the range; ``end`` is the first after it."""
    return f"{start:#x}..{end - 1:#x}"


class PartsOverlap(FirmwareError):
    def __init__(
        self, image: str, part: str, at: tuple[int, int], other: str, its: tuple[int, int]
    ):
        super().__init__(
            f"firmware {image}: {part} at {span(*at)} overlaps {other} at {span(*its)}; the"
            f" flasher writes whole 64 KiB frames, so move it to {its[1]:#x} or beyond, or leave"
            " its address out"
        )


class BeyondFlash(FirmwareError):
    def __init__(self, image: str, part: str, address: int, end: int, flash: int):
        super().__init__(
            f"firmware {image}: {part} at {address:#x} ends at {end:#x}, {end - flash} bytes beyond"
            f" the 16 MiB flash ({flash:#x}); lower its address or make it smaller"
        )


class NoRoom(FirmwareError):
    def __init__(self, image: str, part: str, nbytes: int, base: int):
        super().__init__(
            f"firmware {image}: no free {nbytes} bytes for {part} from {base:#x} on; make the"
            " parts smaller, or give addresses that leave a gap of that size"
        )


class InFileSystem(FirmwareError):
    def __init__(
        self, image: str, part: str, at: tuple[int, int], profile: str, area: tuple[int, int]
    ):
        super().__init__(
            f"firmware {image}: {part} at {span(*at)} lies in the file system of profile {profile}"
            f" ({span(*area)}), which the firmware writes to; end it below {area[0]:#x}"
        )


class Unaligned(FirmwareError):
    def __init__(self, image: str, part: str, address: int, sector: int):
        super().__init__(
            f"firmware {image}: {part} at {address:#x} does not start at a flash sector; use a"
            f" multiple of {sector:#x}, best of 0x10000, for example"
            f" {-(-address // 0x10000) * 0x10000:#x}"
        )


class BadAddress(FirmwareError):
    def __init__(self, image: str, part: str, address: int, flash: int):
        super().__init__(
            f"firmware {image}: {part} at {address:#x} is outside the flash; use"
            f" 0x0..{flash - 1:#x}"
        )


class BinMissing(FirmwareError):
    def __init__(self, image: str, path: str):
        super().__init__(f"firmware {image}: {path} does not exist; build it, or correct the path")


class Empty(FirmwareError):
    def __init__(self, image: str, part: str):
        super().__init__(f"firmware {image}: {part} is empty; there is nothing to flash")


class ProgramTooLarge(FirmwareError):
    def __init__(self, image: str, part: str, nbytes: int, sram: int):
        super().__init__(
            f"firmware {image}: {part} is {nbytes} bytes, {nbytes - sram} more than the {sram}"
            " bytes of SRAM the boot ROM copies it into; link a smaller program"
        )


class ModelAsProgram(FirmwareError):
    def __init__(self, image: str, part: str, problem: str):
        super().__init__(f"firmware {image}: {part} {problem}")


class ProfileDiffers(FirmwareError):
    def __init__(self, image: str, model: str, its: str, profile: str):
        super().__init__(
            f"firmware {image}: model {model} was made for profile {its}, this image is for"
            f" {profile}; set the same firmware: on the model, or profile: {its} on the image"
        )


class KmodelNotLoaded(FirmwareError):
    def __init__(
        self,
        image: str,
        model: str,
        version: int,
        profile: str,
        loads: tuple[int, ...],
        others: str,
    ):
        super().__init__(
            f"firmware {image}: model {model} is kmodel {version}, profile {profile} loads only"
            f" kmodel {' and '.join(map(str, loads))}; build it as kmodel {loads[0]}"
            + (f", or flash a firmware that loads version {version}: {others}" if others else "")
        )


class NotAKmodel(FirmwareError):
    def __init__(self, image: str, model: str, reason: str):
        super().__init__(f"firmware {image}: the file of model {model} is no kmodel: {reason}")


class ContractDiffers(FirmwareError):
    def __init__(self, image: str, model: str) -> None:
        super().__init__(
            f"firmware {image}: build/{model}/contract.json is not that of"
            f" workspace/{model}.kmodel; run doit kmodel:{model}"
        )


class KfpkgError(FirmwareError):
    """A kfpkg file that cannot be read or must not be trusted."""

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{where} {problem}; {remedy}")
