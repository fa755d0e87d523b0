"""Float model against kmodel, sample by sample: the measurement that ``verify`` judges.

The result is a dictionary of JSON values, without thresholds and without clock times, so
that it can be stored, judged again and again, and shown by the report. Samples are taken
in groups: memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.images import Loader, Sample, normalise, planar
from k210tasks.litert import FloatModel
from k210tasks.metrics import Tally, top1
from k210tasks.samples import evenly_spaced
from k210tasks.steps.job import Folder, StepFailed

#: Form of the measurement; a reader refuses what it does not know.
FORMAT = 1
#: Bytes of samples and outputs held at a time, about.
GROUP_BYTES = 48 << 20
#: Below this accuracy of the float model the usual mean/std pairs are tried on it.
LOW_ACCURACY = 0.9
#: Another pair is named only where it is better by this much.
CLEARLY_BETTER = 0.05
#: Samples used for trying a pair, at most.
TRIED_SAMPLES = 200
#: mean, std: what training frameworks feed, the commonest first.
USUAL = (
    (0.0, 1.0),
    (0.5, 0.5),
    (0.5, 1.0),
    (0.0, 1 / 255),
    (0.5, 1 / 255),
    (0.449, 0.226),
)
#: kmodel versions whose four-dimensional outputs are channels first
#: (docs/kpu-and-kmodel.md, section 6.7); kmodel 5 is written with TFLite's own order.
PLANAR_OUTPUTS = (3, 4)


class Engine(Protocol):
    """Something that runs a kmodel."""

    name: str

    def run(self, inputs: NDArray[Any]) -> Iterable[list[NDArray[Any]]]:
        """The outputs of each of ``inputs`` (N, …), in the order of the file."""
        ...


class OutputsDiffer(StepFailed):
    """Float model and kmodel do not give the same outputs."""


class Reference:
    """The float model; a quantised ``.tflite`` is fed and read in real numbers too."""

    def __init__(self, tflite: bytes) -> None:
        self._model = FloatModel(tflite)
        self.shape = self._model.input_shape
        self.names = self._model.output_names

    def run(self, tensor: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        scale, zero = self._model.input["quantization"]
        dtype = self._model.input["dtype"]
        fed: NDArray[Any] = tensor
        if scale and np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            fed = np.clip(np.rint(tensor / scale) + zero, limits.min, limits.max)
        outputs = []
        for detail, raw in zip(self._model.outputs, self._model.run(fed), strict=True):
            scale, zero = detail["quantization"]
            real = raw.astype(np.float32)
            if scale and raw.dtype.kind in "iu":
                real = (real - zero) * scale
            outputs.append(real.astype(np.float32))
        return outputs


def feed(given: Input, sample: Sample) -> NDArray[Any]:
    """One sample as the kmodel takes it: raw pixels, or numbers quantised as it says."""
    if given.dtype == "float32":
        return planar(sample.tensor).astype(np.float32).reshape(given.shape)
    if sample.pixels is not None:
        return sample.pixels.reshape(given.shape)
    scale = 1 / (255 * given.std) if given.scale is None else given.scale
    zero = 255 * given.mean if given.zero_point is None else given.zero_point
    codes = np.floor(planar(sample.tensor) / scale + zero + 0.5)
    return np.clip(codes, 0, 255).astype(np.uint8).reshape(given.shape)


def real_output(
    output: NDArray[Any], said: Output | None, reference: NDArray[Any], kmodel: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kmodel output and reference as flat float32 in one order, the kmodel's."""
    flat = output.ravel()
    if flat.dtype == np.uint8 and said is not None and said.scale is not None:
        flat = (flat.astype(np.float32) - (said.zero_point or 0.0)) * np.float32(said.scale)
    ordered = planar(reference) if kmodel in PLANAR_OUTPUTS else reference
    return flat.astype(np.float32), ordered.astype(np.float32).ravel()


@dataclass(frozen=True, slots=True)
class Classes:
    """The class of each file, by the output that scores them."""

    labels: tuple[str, ...]  # by index of the score
    output: int  # which output holds the scores
    index_of: dict[str, int] = field(repr=False)  # file -> index of its class


def find_classes(
    files: Sequence[str], shapes: Sequence[tuple[int, ...]], labels: Sequence[str] | None
) -> tuple[Classes | None, str | None]:
    """How accuracy can be told, or None and, where somebody may expect it, why not.

    Files lie in one folder per class. ``labels`` are by index of the score; without them
    the sorted names of the folders are. ``shapes`` are those of the outputs.
    """
    folders = [name.split("/", 1)[0] if "/" in name else None for name in files]
    if None in folders or (len(set(folders)) < 2 and not labels):
        return None, None
    named = sorted({f for f in folders if f is not None})
    known = tuple(labels) if labels else tuple(named)
    strange = [name for name in named if name not in known]
    if strange:
        # Folders that are no classes at all: nothing was promised.
        why = f"no accuracy: folder {strange[0]} is none of the labels {', '.join(known)}"
        return None, None if len(strange) == len(named) else why
    scores = [i for i, shape in enumerate(shapes) if is_vector(shape) and shape[-1] == len(known)]
    if not scores:
        sizes = " or ".join(str(s[-1]) for s in shapes if is_vector(s))
        if not sizes:
            return None, None
        return None, f"no accuracy: {len(known)} classes, but the model gives {sizes} scores"
    index_of = {f: known.index(folder) for f, folder in zip(files, folders, strict=True) if folder}
    return Classes(known, scores[0], index_of), None


def class_folders(files: Sequence[str]) -> tuple[str, ...] | None:
    """The sorted names of the class folders, where every file lies in one of several."""
    folders = {name.split("/", 1)[0] for name in files if "/" in name}
    return tuple(sorted(folders)) if len(folders) > 1 and all("/" in f for f in files) else None


def is_vector(shape: tuple[int, ...]) -> bool:
    """Whether an output can be a row of class scores: one axis longer than 1, the last."""
    return len(shape) > 0 and shape[-1] > 1 and all(n == 1 for n in shape[:-1])


def measure(
    reference: Reference,
    engine: Engine,
    contract: Contract,
    loader: Loader,
    folder: Folder,
    *,
    labels: Sequence[str] | None = None,
    held_out: bool = True,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, Any]:
    """Run both on every sample of the folder; :func:`_result` shows the form of the result.

    All numbers in it are finite. ``labels`` are by index of the score.

    Raises:
        SampleError: a sample that cannot be used.
        OutputsDiffer: other outputs than the float model's, in number or size.
    """
    files = folder.files
    names = reference.names
    tallies = [Tally() for _ in names]
    agree = [0] * len(names)
    shapes: list[tuple[int, ...]] = []
    classes: Classes | None = None
    note: str | None = None
    right_float = right_kmodel = 0
    records: list[dict[str, Any]] = []
    for group in _groups(folder, loader):
        samples = [loader.load(folder.path / f, f"{folder.path.as_posix()}/{f}") for f in group]
        inputs = np.stack([feed(contract.input, s) for s in samples])
        for name, sample, outputs in zip(group, samples, engine.run(inputs), strict=True):
            wanted = reference.run(sample.tensor)
            if not shapes:
                shapes = [w.shape for w in wanted]
                _same_outputs(names, wanted, outputs, engine.name)
                classes, note = find_classes(files, shapes, labels)
            record: dict[str, Any] = {"file": name, "cosine": [], "max_abs_error": []}
            picks: list[tuple[int, int] | None] = []
            for i, (out, want) in enumerate(zip(outputs, wanted, strict=True)):
                said = contract.outputs[i] if i < len(contract.outputs) else None
                got, expected = real_output(out, said, want, contract.kmodel)
                value = tallies[i].add(expected, got)
                record["cosine"].append(value)
                error = None if value is None else float(np.abs(expected - got).max(initial=0))
                record["max_abs_error"].append(error)
                pick = None
                if is_vector(want.shape):
                    pick = (top1(expected), top1(got)) if value is not None else (-1, -2)
                    agree[i] += pick[0] == pick[1]
                picks.append(pick)
            if classes is not None and (pick := picks[classes.output]) is not None:
                truth = classes.index_of[name]
                record["class"] = classes.labels[truth]
                right_float += pick[0] == truth
                right_kmodel += pick[1] == truth
            record["top1"] = [None if p is None or p[0] < 0 else list(p) for p in picks]
            records.append(record)
            progress(len(records), len(files), "comparing")
    result = _result(names, shapes, tallies, agree, records)
    result |= {"engine": engine.name, "kmodel": contract.kmodel, "held_out": held_out}
    result["folder"] = folder.path.as_posix()
    result["notes"] = [note] if note else []
    result["accuracy"] = None
    if classes is not None:
        accuracy = right_float / len(records)
        result["accuracy"] = {
            "classes": len(classes.labels),
            "output": names[classes.output],
            "float": accuracy,
            "kmodel": right_kmodel / len(records),
            "mean": loader.preprocess.effective_mean,
            "std": loader.preprocess.effective_std,
            "better": _better_pair(reference, loader, folder, classes, accuracy),
        }
    return result


def _groups(folder: Folder, loader: Loader) -> Iterator[Sequence[str]]:
    """The files in groups whose samples fit :data:`GROUP_BYTES`."""
    # pixels or float input for the kmodel, the float tensor, and as much again for outputs
    each = int(np.prod(loader.shape)) * 16
    size = max(1, min(256, GROUP_BYTES // max(1, each)))
    for start in range(0, len(folder.files), size):
        yield folder.files[start : start + size]


def _same_outputs(
    names: list[str], wanted: list[NDArray[Any]], outputs: list[NDArray[Any]], engine: str
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


def _result(
    names: list[str],
    shapes: list[tuple[int, ...]],
    tallies: list[Tally],
    agree: list[int],
    records: list[dict[str, Any]],
) -> dict[str, Any]:
    outputs = []
    for i, (name, shape, tally) in enumerate(zip(names, shapes, tallies, strict=True)):
        seen = [(r["cosine"][i], r["file"]) for r in records if r["cosine"][i] is not None]
        errors = [
            (-r["max_abs_error"][i], r["file"]) for r in records if r["cosine"][i] is not None
        ]
        bad = [r["file"] for r in records if r["cosine"][i] is None]
        outputs.append(
            {
                "name": name,
                "shape": list(shape),
                "cosine_mean": tally.cosine_mean,
                "cosine_min": min(seen)[0] if seen else 0.0,
                "cosine_min_file": min(seen)[1] if seen else None,
                "snr_db": tally.snr_db,
                "max_abs_error": tally.max_abs_error,
                "max_abs_error_file": min(errors)[1] if errors else None,
                "top1_agreement": agree[i] / len(records) if is_vector(shape) else None,
                "non_finite": tally.non_finite,
                "non_finite_file": bad[0] if bad else None,
            }
        )
    return {
        "format": FORMAT,
        "samples": len(records),
        "outputs": outputs,
        "layers": [],
        "images": records,
    }


def _better_pair(
    reference: Reference, loader: Loader, folder: Folder, classes: Classes, accuracy: float
) -> dict[str, float] | None:
    """The usual mean/std pair that makes a poor float model clearly better, if any."""
    if accuracy >= LOW_ACCURACY:
        return None
    mine = (loader.preprocess.effective_mean, loader.preprocess.effective_std)
    pairs = [p for p in USUAL if p != mine]
    right = [0] * (1 + len(pairs))
    files = evenly_spaced(folder.files, TRIED_SAMPLES)
    for name in files:
        sample = loader.load(folder.path / name, f"{folder.path.as_posix()}/{name}")
        if sample.pixels is None:  # tensors come with mean and std applied
            return None
        for i, (mean, std) in enumerate([mine, *pairs]):
            tensor = normalise(sample.pixels, mean, std).reshape(reference.shape)
            scores = reference.run(tensor)[classes.output]
            sound = bool(np.isfinite(scores).all())
            right[i] += sound and top1(scores) == classes.index_of[name]
    best = max(range(len(pairs)), key=lambda i: right[i + 1])
    if (right[best + 1] - right[0]) / len(files) < CLEARLY_BETTER:
        return None
    mean, std = pairs[best]
    return {"mean": mean, "std": std, "accuracy": right[best + 1] / len(files)}
