"""Calibration: the float model runs once over the samples, every tensor looked at.

Two interpreters work in two threads, each on its own samples. All that is gathered is
independent of which thread saw which sample when: extremes and histograms merge exactly
in any order, and kept samples and pixels are chosen by the number of the sample. Memory
does not grow with the number of samples: at most :data:`KEEP` of them are kept.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.float_protocol import FloatModel, FloatTensor, OpenModel
from k210tasks.compiler.numerics.calibration import (
    Calibration,
    CalibrationError,
    TensorStats,
    pixel_count,
)
from k210tasks.compiler.numerics.histogram import Histogram
from k210tasks.compiler.options import Fed
from k210tasks.process_wide import WhileUsed

KEEP = (24, 256)  # whole samples kept, at most: the more the smaller they are
KEPT_BYTES = 12_000_000  # what is kept of them may take, where they are more than the fewest
PIXELS = 256  # pixels of each tensor kept per kept sample
#: Seconds after which a thread that waits gets its turn. A small model runs for less than a
#: millisecond; by Python's 5 ms two threads would take longer than one.
SWITCH = 0.0005
COUNTED = 8192  # values of each tensor counted per sample; extremes look at all of them

Progress = Callable[[int, int, str], None]


@dataclass(slots=True)
class _Gathered:
    """What one thread saw."""

    low: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    high: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    histograms: dict[int, Histogram] = field(default_factory=dict)


@contextmanager
def _set_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


_short_turns = WhileUsed(_set_turns)


class _Feed:
    """Hands out numbered samples to the threads and remembers which are kept."""

    def __init__(
        self, samples: Iterable[NDArray[np.float32]], total: int, progress: Progress, room: int
    ):
        self._samples: Iterator[NDArray[np.float32]] = iter(samples)
        self._lock = threading.Lock()
        self._progress = progress
        self._total = total
        self._room = room
        self.seen = 0
        self.stride = 1
        self.kept: dict[int, NDArray[np.float32]] = {}
        self.values: dict[int, dict[int, NDArray[np.float32]]] = {}
        self.failure: BaseException | None = None

    def next(self) -> tuple[int, NDArray[np.float32]] | None:
        with self._lock:
            if self.failure is not None:
                return None
            try:
                sample = next(self._samples)
            except StopIteration:
                return None
            number = self.seen
            self.seen += 1
            self._progress(self.seen, max(self._total, self.seen), "samples")
            return number, sample

    def wanted(self, number: int) -> bool:
        return number % self.stride == 0

    def keep(
        self, number: int, sample: NDArray[np.float32], values: dict[int, NDArray[np.float32]]
    ) -> None:
        """Keep a sample; when there are too many, every other number is dropped."""
        with self._lock:
            self.kept[number], self.values[number] = sample, values
            while len(self.kept) > self._room:
                self.stride *= 2
                for old in [n for n in self.kept if n % self.stride]:
                    del self.kept[old], self.values[old]
            if number % self.stride:
                self.kept.pop(number, None)
                self.values.pop(number, None)


def sampled_pixels(count: int, number: int) -> NDArray[np.int32]:
    """Which of ``count`` pixels are kept of sample ``number``, ascending; all if few.

    One out of every equal stretch, at a place that differs from stretch to stretch.
    """
    if count <= PIXELS:
        return np.arange(count, dtype=np.int32)
    edges = np.arange(PIXELS + 1, dtype=np.int64) * count // PIXELS
    # A multiplicative hash: the same everywhere, no generator to seed.
    mixed = (np.arange(PIXELS, dtype=np.uint64) + np.uint64(number * PIXELS + 1)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    share = (mixed >> np.uint64(40)).astype(np.int64)
    return (edges[:-1] + (share * (edges[1:] - edges[:-1]) >> 24)).astype(np.int32)


def collect(
    data: bytes,
    samples: Iterable[NDArray[np.float32]],
    open_model: OpenModel,
    *,
    threads: int = 2,
    total: int = 0,
    fed: Fed | None = None,
    progress: Progress = lambda done, total, what: None,
) -> Calibration:
    """Run the model of the file ``data`` over ``samples`` (float32, of its input's shape, batch
    1). ``open_model`` opens it, once for each of the ``threads``.

    ``fed`` says what they were made of, pixels or tensors; it is only handed on. ``total`` is
    the number of samples if known, for ``progress`` only. Raises :class:`CalibrationError` for
    no samples, a sample of a wrong shape, or a tensor that becomes infinite or NaN; what
    ``open_model`` raises goes through.
    """
    models = [open_model(data)]
    wanted = {
        i: t for i, t in models[0].tensors.items() if t.shape[:1] == (1,) and 0 not in t.shape
    }
    gathered = [_Gathered()]
    feed = _Feed(samples, total, progress, _room(models[0].input_shape, wanted.values()))

    def work(model: FloatModel, into: _Gathered) -> None:
        try:  # of the samples' own errors too: a sample left out would go unnoticed
            while (item := feed.next()) is not None:
                _look(model, wanted, feed, into, *item)
        except BaseException as error:
            feed.failure = error

    helpers = []
    with _short_turns if threads > 1 else nullcontext():
        for _ in range(threads - 1):
            models.append(open_model(data))
            gathered.append(_Gathered())
            helpers.append(threading.Thread(target=work, args=(models[-1], gathered[-1])))
            helpers[-1].start()
        work(models[0], gathered[0])
        for helper in helpers:
            helper.join()
    if feed.failure is not None:
        raise feed.failure
    if not feed.seen:
        raise CalibrationError("no samples to calibrate with: give the folder at least one image")
    return _assemble(data, wanted, feed, gathered, fed)


def _room(input_shape: tuple[int, ...], wanted: Iterable[FloatTensor]) -> int:
    """How many samples are kept, by the bytes each takes."""
    each = int(np.prod(input_shape))
    for tensor in wanted:
        if not tensor.moved:
            each += min(pixel_count(tensor.shape), PIXELS) * tensor.shape[-1]
    fewest, most = KEEP
    return max(fewest, min(most, KEPT_BYTES // (4 * each)))


def _look(
    model: FloatModel,
    wanted: dict[int, FloatTensor],
    feed: _Feed,
    into: _Gathered,
    number: int,
    sample: NDArray[np.float32],
) -> None:
    """Run one sample and take from every tensor what is needed."""
    if sample.shape != model.input_shape:
        raise CalibrationError(
            f"sample {number + 1} has the shape {list(sample.shape)}, the model's input is "
            f"{list(model.input_shape)}"
        )
    keep = feed.wanted(number)
    seen = next(model.values([sample], wanted))
    values: dict[int, NDArray[np.float32]] = {}
    at: dict[int, NDArray[np.int32]] = {}  # by number of pixels: most maps share theirs
    for index, tensor in wanted.items():
        x = _pixels_of(seen[index])
        low, high = _extremes(x)
        magnitude = max(float(high.max()), -float(low.min()))
        if not np.isfinite(magnitude):
            raise CalibrationError(
                f'the tensor "{tensor.name}" becomes infinite or not a number with sample '
                f"{number + 1}: the float model itself fails on it"
            )
        if index in into.low:
            np.minimum(into.low[index], low, out=into.low[index])
            np.maximum(into.high[index], high, out=into.high[index])
        else:
            into.low[index], into.high[index] = low, high
            into.histograms[index] = Histogram()
        step = -(-x.size // COUNTED)
        into.histograms[index].add(x[number % step :: step].ravel(), magnitude)
        if keep and not tensor.moved:
            if len(x) not in at:
                at[len(x)] = sampled_pixels(len(x), number)
            values[index] = x[at[len(x)]]
    if keep:
        feed.keep(number, np.array(sample[0], np.float32), values)


def _pixels_of(y: NDArray[np.float32]) -> NDArray[np.float32]:
    """[..., C] as [P, C], of maps that lie channel by channel without copying them."""
    if y.ndim == 4 and len(y) == 1:
        planes: NDArray[np.float32] = y[0].transpose(2, 0, 1)
        if planes.flags.c_contiguous:
            return planes.reshape(len(planes), -1).T
    return y.reshape(-1, y.shape[-1])


def _extremes(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Minimum and maximum of each column of [P, C]; long rows first, for speed."""
    if x.flags.f_contiguous:
        return x.min(axis=0), x.max(axis=0)
    rows, channels = x.shape
    fold = 1
    while rows % (fold * 2) == 0 and fold * channels < 512:
        fold *= 2
    wide = x.reshape(rows // fold, fold * channels)
    low, high = wide.min(axis=0), wide.max(axis=0)
    return low.reshape(fold, channels).min(axis=0), high.reshape(fold, channels).max(axis=0)


def _assemble(
    data: bytes,
    wanted: dict[int, FloatTensor],
    feed: _Feed,
    gathered: list[_Gathered],
    fed: Fed | None,
) -> Calibration:
    order = sorted(feed.kept)
    tensors: dict[int, TensorStats] = {}
    pixels: dict[int, NDArray[np.int32]] = {}
    for index, tensor in wanted.items():
        parts = [g for g in gathered if index in g.low]
        histogram = Histogram()
        for part in parts:
            histogram.merge(part.histograms[index])
        values = None
        if index in feed.values[order[0]]:
            values = np.stack([feed.values[n].pop(index) for n in order])
            count = pixel_count(tensor.shape)
            if count not in pixels:
                pixels[count] = np.stack([sampled_pixels(count, n) for n in order])
        tensors[index] = TensorStats(
            index,
            tensor.name,
            tensor.shape,
            np.stack([g.low[index] for g in parts]).min(axis=0),
            np.stack([g.high[index] for g in parts]).max(axis=0),
            histogram,
            values,
        )
    return Calibration(
        hashlib.sha256(data).hexdigest(),
        feed.seen,
        tensors,
        np.stack([feed.kept[n] for n in order]),
        tuple(order),
        pixels,
        fed,
    )
