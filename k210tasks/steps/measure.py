"""Float model against kmodel, sample by sample: the measurement that ``verify`` judges.

The result has neither thresholds nor clock times, so that it can be stored, judged again and
again, and shown by the report. Samples are taken in groups: memory does not grow with their
number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from k210tasks.artifacts.doubts import AnyDoubt
from k210tasks.artifacts.measurement import (
    Accuracy,
    Measurement,
    OutputFigures,
    SampleFigures,
    Simulated,
)
from k210tasks.engine.job import Folder, StepFailed
from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.heads.declared import Head
from k210tasks.reference.float_model import Reference
from k210tasks.reference.metrics import Tally, max_abs_error, top1
from k210tasks.samples.loading import Loader, Sample, planar
from k210tasks.samples.seen import Seen
from k210tasks.steps.accuracy import Classes, find_classes, is_vector
from k210tasks.steps.answers import WorstAnswers
from k210tasks.steps.boxes import Boxes, Truth
from k210tasks.steps.trials import find_hint

#: Bytes of samples and outputs held at a time, about.
GROUP_BYTES = 48 << 20
#: kmodel versions whose four-dimensional outputs are channels first
#: (docs/kpu-and-kmodel.md, section 6.7); kmodel 5 is written with TFLite's own order.
PLANAR_OUTPUTS = (3, 4)


class Engine(Protocol):
    """Something that runs a kmodel."""

    name: str

    @property
    def runtime(self) -> Simulated | None:
        """What is simulated; None: it does not tell."""

    def run(self, inputs: NDArray[Any]) -> Iterable[list[NDArray[Any]]]:
        """The outputs of each of ``inputs`` (N, …), in the order of the file."""
        ...


class OutputsDiffer(StepFailed):
    """Float model and kmodel do not give the same outputs."""


def feed(given: Input, sample: Sample) -> NDArray[Any]:
    """One sample as the kmodel takes it: raw pixels, or numbers quantised as it says.

    Raises :class:`~k210tasks.firmware.contract.ScaleUnknown` where it does not say.
    """
    if given.dtype == "float32":
        return planar(sample.tensor).astype(np.float32).reshape(given.shape)
    if given.kind == "images":
        if sample.pixels is not None:
            return given.as_fed(sample.pixels)
        given = given.of_pixels()
    return given.as_fed(given.codes(planar(sample.tensor)))


def real_output(
    output: NDArray[Any], said: Output | None, reference: NDArray[Any], kmodel: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kmodel output and reference as flat float32 in one order, the kmodel's."""
    flat = output.ravel()
    if flat.dtype == np.uint8 and said is not None and said.scale is not None:
        flat = (flat.astype(np.float32) - (said.zero_point or 0.0)) * np.float32(said.scale)
    ordered = planar(reference) if kmodel in PLANAR_OUTPUTS else reference
    return flat.astype(np.float32), ordered.astype(np.float32).ravel()


def measure(
    reference: Reference,
    engine: Engine,
    contract: Contract,
    loader: Loader,
    folder: Folder,
    *,
    labels: Sequence[str] | None = None,
    head: Head | None = None,
    truth: Truth | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Measurement:
    """Run both on every sample of the folder. ``labels`` are by index of the score; ``head``: what
    the outputs of a detector mean; ``truth``: boxes that people have drawn, by sample.

    Raises:
        SampleError: a sample that cannot be used.
        OutputsDiffer: other outputs than the float model's, in number or size.
        HeadMisfit: outputs that are not what the head says.
    """
    running = _Running(reference.names, contract, loader, labels, head, truth or {})
    for group in _groups(folder, loader):
        samples = [loader.load(folder.path / f, f"{folder.path.as_posix()}/{f}") for f in group]
        inputs = np.stack([feed(contract.input, s) for s in samples])
        for name, sample, outputs in zip(group, samples, engine.run(inputs), strict=True):
            wanted = reference.run(sample.tensor)
            if not running.records:
                _same_outputs(reference.names, wanted, outputs)
                running.start(folder.files, wanted)
            running.add(name, sample, wanted, outputs)
            progress(len(running.records), len(folder.files), "comparing")
    doubts = [] if running.doubt is None else [running.doubt]
    if running.classes is not None:
        hint = find_hint(reference, loader, folder, running.classes, running.wrong)
        doubts += [] if hint is None else [hint]
    digests = running.seen.digests
    known = None if contract.calibration is None else set(contract.calibration)
    shared = None if known is None else sum(d in known for d in digests)
    return Measurement(
        engine=engine.name,
        runtime=engine.runtime,
        kmodel=contract.kmodel,
        folder=folder.path.as_posix(),
        kind=running.seen.kind,
        samples=len(running.records),
        held_out=None if shared is None else shared == 0,
        shared=shared,
        copies=len(digests) - len(set(digests)),
        outputs=running.outputs(),
        accuracy=running.accuracy(),
        boxes=None if running.boxes is None else running.boxes.figures(),
        doubts=tuple(doubts),
        answers=running.answers.worst(),
        images=tuple(running.records),
    )


class _Running:
    """What is known so far: sums over samples, and one record each."""

    def __init__(
        self,
        names: list[str],
        contract: Contract,
        loader: Loader,
        labels: Sequence[str] | None,
        head: Head | None,
        truth: Truth,
    ) -> None:
        self.records: list[SampleFigures] = []
        self.answers = WorstAnswers(contract.kmodel in PLANAR_OUTPUTS)
        self.classes: Classes | None = None
        self._names, self._contract = names, contract
        self._loader, self._labels, self._head = loader, labels, head
        self._truth = truth
        self.boxes: Boxes | None = None
        self.seen = Seen()
        self.doubt: AnyDoubt | None = None  # why there is no accuracy
        self._shapes: list[tuple[int, ...]] = []
        self._tallies = [Tally() for _ in names]
        self._agree = [0] * len(names)
        self._right = [0, 0]  # float model, kmodel

    def start(self, files: Sequence[str], wanted: list[NDArray[np.float32]]) -> None:
        """With the outputs of the first sample, whose shapes are those of all."""
        self._shapes = [w.shape for w in wanted]
        if self._head is not None:
            planar_outputs = self._contract.kmodel in PLANAR_OUTPUTS
            self.boxes = Boxes(
                self._head, self._shapes, self._loader.shape, planar_outputs, self._truth
            )
        self.classes, self.doubt = find_classes(files, self._shapes, self._labels)

    def add(
        self,
        name: str,
        sample: Sample,
        wanted: list[NDArray[np.float32]],
        outputs: list[NDArray[Any]],
    ) -> None:
        self.seen.add(sample)
        cosines, errors, top1s, answers = [], [], [], []
        for i, (out, want) in enumerate(zip(outputs, wanted, strict=True)):
            said = self._contract.outputs[i] if i < len(self._contract.outputs) else None
            got, expected = real_output(out, said, want, self._contract.kmodel)
            answers.append((expected, got, want.shape))
            value = self._tallies[i].add(expected, got)
            finite = value is not None
            picks = (top1(expected), top1(got)) if finite and is_vector(want.shape) else None
            cosines.append(value)
            errors.append(max_abs_error(expected, got) if finite else None)
            top1s.append(picks)
            self._agree[i] += picks is not None and picks[0] == picks[1]
        truth = None
        if self.classes is not None:
            index = self.classes.index_of[name]
            truth = self.classes.labels[index]
            for which, pick in enumerate(top1s[self.classes.output] or ()):
                self._right[which] += pick == index
        f1 = boxes = None
        if self.boxes is not None:
            f1, boxes = self.boxes.add(name, [a[0] for a in answers], [a[1] for a in answers])
        record = SampleFigures(name, tuple(cosines), tuple(errors), tuple(top1s), truth, f1)
        self.records.append(record)
        self.answers.add(record, answers, boxes)

    @property
    def wrong(self) -> int:
        """Samples on which the float model names another class."""
        return len(self.records) - self._right[0]

    def accuracy(self) -> Accuracy | None:
        if self.classes is None:
            return None
        return Accuracy(
            classes=len(self.classes.labels),
            output=self._names[self.classes.output],
            float_model=self._right[0] / len(self.records),
            kmodel=self._right[1] / len(self.records),
            labels=tuple(self.classes.labels),
            mean=self._loader.preprocess.effective_mean,
            std=self._loader.preprocess.effective_std,
        )

    def outputs(self) -> tuple[OutputFigures, ...]:
        return tuple(self._output(i) for i in range(len(self._names)))

    def _output(self, i: int) -> OutputFigures:
        tally = self._tallies[i]
        cosines = [(c, r.file) for r in self.records if (c := r.cosine[i]) is not None]
        errors = [(e, r.file) for r in self.records if (e := r.max_abs_error[i]) is not None]
        bad = [r.file for r in self.records if r.cosine[i] is None]
        lowest = min(cosines, key=lambda pair: pair[0], default=(0.0, None))
        scored = is_vector(self._shapes[i])
        return OutputFigures(
            name=self._names[i],
            shape=tuple(self._shapes[i]),
            cosine_mean=tally.cosine_mean,
            cosine_min=lowest[0],
            cosine_min_file=lowest[1],
            snr_db=tally.snr_db,
            max_abs_error=tally.max_abs_error,
            max_abs_error_file=max(errors, key=lambda pair: pair[0], default=(0.0, None))[1],
            top1_agreement=self._agree[i] / len(self.records) if scored else None,
            non_finite=tally.non_finite,
            non_finite_file=bad[0] if bad else None,
        )


def _groups(folder: Folder, loader: Loader) -> Iterator[Sequence[str]]:
    """The files in groups whose samples fit :data:`GROUP_BYTES`."""
    # pixels or float input for the kmodel, the float tensor, and as much again for outputs
    each = int(np.prod(loader.shape)) * 16
    size = max(1, min(256, GROUP_BYTES // max(1, each)))
    for start in range(0, len(folder.files), size):
        yield folder.files[start : start + size]


def _same_outputs(
    names: list[str], wanted: list[NDArray[Any]], outputs: list[NDArray[Any]]
) -> None:
    if len(wanted) != len(outputs):
        raise OutputsDiffer(
            f"the kmodel has {len(outputs)} outputs, the float model {len(wanted)} "
            f"({', '.join(names)}); they are not made from one model"
        )
    for i, (name, want, out) in enumerate(zip(names, wanted, outputs, strict=True)):
        if want.size != out.size:
            raise OutputsDiffer(
                f"output {i} of the kmodel has {out.size} elements, {name} of the float model "
                f"{want.size} ({'x'.join(map(str, want.shape))}); they are not made from one model"
            )
