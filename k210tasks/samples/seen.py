"""What a set of samples was, in a few bytes each: to know them again, and to know bad ones.

Two samples are the same where the model is fed the same: equal pixels (before mean and
std), whatever their files are called and however they are compressed, or equal tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np

from k210tasks.samples.folder import Kind, noun_of
from k210tasks.samples.loading import Sample

#: Pixels of a channel whose standard deviation is below are one colour, noise apart.
FLAT_PIXELS = 1.5


def digest(sample: Sample) -> str:
    """16 hexadecimal digits of the SHA-256 of what is fed."""
    data = sample.tensor if sample.pixels is None else sample.pixels
    head = f"{data.dtype} {data.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(data).tobytes()).hexdigest()[:16]


def is_flat(sample: Sample) -> bool:
    """Whether it is (nearly) one colour or, a tensor, one number throughout."""
    if sample.pixels is not None:
        planes = sample.pixels.reshape(len(sample.pixels), -1)
        return planes.shape[1] > 1 and float(planes.std(axis=1).max()) < FLAT_PIXELS
    return sample.tensor.size > 1 and bool(np.ptp(sample.tensor) == 0)


@dataclass(slots=True)
class Seen:
    """``digests`` in the order of the samples; ``flat``: how many are of one value."""

    kind: Kind = "images"
    digests: list[str] = field(default_factory=list)
    flat: int = 0

    def add(self, sample: Sample) -> None:
        self.kind = "images" if sample.pixels is not None else "tensors"
        self.digests.append(digest(sample))
        self.flat += is_flat(sample)

    def each(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """The samples, noted as they pass."""
        for sample in samples:
            self.add(sample)
            yield sample

    @property
    def noun(self) -> str:
        return noun_of(self.kind)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"
