"""Whether a kfpkg still holds what models.yaml and the files beside it say.

A kfpkg outlives the models it was made from: a build may have failed since, or somebody
copied another one in its place. Flashing the old one is a fault nobody sees on the board.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from k210tasks.firmware.errors import FirmwareError
from k210tasks.firmware.kfpkg import Kfpkg, Part
from k210tasks.manifest.model import Firmware


class NotCurrent(FirmwareError):
    def __init__(self, path: str, why: str, image: str) -> None:
        super().__init__(f"{path} is not current: {why}; build it: doit firmware:{image}")


def check_current(path: str, image: Kfpkg, wanted: Firmware, root: Path) -> None:
    """Refuse an image whose parts are not today's. ``path`` is its name in errors.

    ``root``: the folder of models.yaml. Raises :class:`NotCurrent`.
    """

    def stale(why: str) -> NotCurrent:
        return NotCurrent(path, why, wanted.name)

    if image.name is None:
        raise stale("it was not made by firmware:" + wanted.name)
    if (image.name, image.profile) != (wanted.name, wanted.profile):
        raise stale(
            f"it is image {image.name} for profile {image.profile}, models.yaml has"
            f" {wanted.name} for {wanted.profile}"
        )
    held = {_key(part): part for part in image.parts}
    named = {(part.model is not None, part.model or part.bin): part for part in wanted.parts}
    for key in held.keys() - named.keys():
        raise stale(f"it holds {_title(*key)}, which models.yaml does not put into it")
    for key, part in named.items():
        title = _title(*key)
        if key not in held:
            raise stale(f"it does not hold {title}")
        found = held[key]
        if part.address is not None and part.address != found.address:
            raise stale(f"it has {title} at {found.address:#x}, models.yaml at {part.address:#x}")
        file = f"workspace/{part.model}.kmodel" if part.model else str(part.bin)
        try:
            digest = hashlib.sha256((root / file).read_bytes()).hexdigest()
        except OSError as error:
            raise stale(f"{file} cannot be read: {error.strerror or error}") from None
        if digest != found.sha256:
            raise stale(
                f"it holds another {title} than {file} (sha256 {found.sha256[:12]}… in the image,"
                f" {digest[:12]}… now)"
            )


def _key(part: Part) -> tuple[bool, str | None]:
    return part.is_model, part.source


def _title(is_model: bool, name: str | None) -> str:
    return f"{'model' if is_model else 'bin'} {name}"
