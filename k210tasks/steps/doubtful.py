"""What is doubtful about a kmodel before it is run: its samples, its settings, where it runs."""

from __future__ import annotations

from collections.abc import Iterable

from k210tasks.artifacts.doubts import (
    FEW,
    AnyDoubt,
    FewCalibrated,
    FlatCalibration,
    NoKpu,
    Told,
    of_labels,
    of_pair,
)
from k210tasks.firmware.contract import Contract
from k210tasks.samples.preprocess import Preprocess
from k210tasks.samples.seen import Seen


def doubts_of(
    contract: Contract,
    preprocess: Preprocess,
    kmodel: bytes,
    seen: Seen | None,
    told: Iterable[str] = (),
) -> list[AnyDoubt]:
    """``preprocess`` as the user stated it. ``seen``: the calibration samples, None where there
    were none or they are not known. ``told``: warnings of the compiler."""
    pictures = contract.input.kind == "images"
    return [
        *map(Told, told),
        *(of_pair(preprocess.mean, preprocess.std) if pictures else ()),
        *(_of_samples(seen) if seen is not None else ()),
        *of_labels(contract.labels, [(out.name, out.shape) for out in contract.outputs]),
        *of_layers(kmodel),
    ]


def _of_samples(seen: Seen) -> list[AnyDoubt]:
    samples, distinct = len(seen.digests), len(set(seen.digests))
    found: list[AnyDoubt] = []
    if distinct < FEW:
        found.append(FewCalibrated(seen.noun, samples, distinct))
    if 2 * seen.flat > samples:
        found.append(FlatCalibration(seen.noun, seen.flat, samples))
    return found


def of_layers(kmodel: bytes) -> list[AnyDoubt]:
    """Whether the KPU has any part in a kmodel 3 or 4; other versions do not tell."""
    from k210tasks.kmodel import detect, parse
    from k210tasks.kmodel.listing import summary

    if detect(kmodel).version not in (3, 4):
        return []
    layers = summary(parse(kmodel)).layers
    return [] if any(row.kpu is not None for row in layers) else [NoKpu(len(layers))]
