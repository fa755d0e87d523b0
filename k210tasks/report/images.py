"""Firmware images: where their parts lie in flash, from the kfpkg, or from what is planned."""

from __future__ import annotations

from pathlib import Path

from k210tasks.errors import K210Error
from k210tasks.firmware import kfpkg
from k210tasks.firmware.flash_layout import PREFIX_BYTES
from k210tasks.manifest.model import Firmware
from k210tasks.profiles import PROFILES
from k210tasks.report.facts import FlashPart, ImageFacts, Status
from k210tasks.report.recorded import StepRecord, read_bytes


def image_facts(image: Firmware, root: Path, record: StepRecord, failure: str | None) -> ImageFacts:
    """``record``: what is known of its task; ``failure``: what it failed with last, if so."""
    profile = PROFILES[image.profile]
    data = read_bytes(root / f"build/{image.name}.kfpkg")
    parts: tuple[FlashPart, ...] = ()
    messages = [] if failure is None else [failure]
    status: Status = "missing" if data is None else "verified"
    if data is not None:
        try:
            parts = tuple(_part(part) for part in kfpkg.read(data, f"{image.name}.kfpkg").parts)
        except K210Error as error:
            messages.append(str(error))
            status = "failed"
    if failure is not None:
        status = "failed"
    elif record.outcome == "skipped":
        status = "skipped"
        messages.append(record.because)
    judged = "" if record.judge is None else record.judge.message
    return ImageFacts(
        name=image.name,
        profile=image.profile,
        status=status,
        messages=tuple(m for m in (*messages, judged) if m),
        parts=parts,
        filesystem=profile.filesystem,
        nbytes=None if data is None else len(data),
        built=record.finished if data is not None else None,
    )


def _part(part: kfpkg.Part) -> FlashPart:
    return FlashPart(
        name=part.source or part.bin,
        address=part.address,
        nbytes=len(part.data) + (PREFIX_BYTES if part.sha256_prefix else 0),
        is_model=part.is_model,
        kmodel=part.kmodel,
    )
