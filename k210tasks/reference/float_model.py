"""The float model as ``calibrate``, ``verify`` and ``compare`` ask it; in a process of its own
where it might end ours."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.constraints import violations
from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.numerics.collect import collect
from k210tasks.compiler.options import Fed
from k210tasks.compiler.problems import BadModel
from k210tasks.compiler.source import source_of
from k210tasks.reference import litert
from k210tasks.reference.apart import Apart

if TYPE_CHECKING:
    from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource
    from k210tasks.reference.onnx_model import OnnxFloatModel

#: a ``.tflite``, or an ``.onnx`` taken apart
Given: TypeAlias = "bytes | OnnxSource"

_DOING = "running the float model"
_FORKS = hasattr(os, "fork")  # elsewhere all run with us

#: values of all tensors together that a model may have which runs with us
MOST_VALUES = 32 << 20


def _load(model: Given) -> None:
    """Import what the model is run by, which a process forked from now on has then."""
    if isinstance(model, bytes):
        litert.loaded()
    else:
        from k210tasks.reference import onnx_model

        onnx_model.loaded()


def _open(model: Given, *, keep_all: bool = False) -> litert.FloatModel | OnnxFloatModel:
    if isinstance(model, bytes):
        return litert.FloatModel(model, keep_all=keep_all)
    from k210tasks.reference.onnx_model import OnnxFloatModel

    return OnnxFloatModel(model)


def _collected(model: Given, samples: Iterable[NDArray[np.float32]], **more: Any) -> Calibration:
    if isinstance(model, bytes):
        return collect(model, samples, litert.measurable, **more)
    from k210tasks.reference.onnx_model import OnnxFloatModel

    return collect(model.data, samples, lambda data: OnnxFloatModel(model), **more)


def understood(model: Given) -> bool:
    """Whether every op of the file is one whose operands, settings and shapes we know to belong
    together, and all of it is small: nothing that could end LiteRT.

    Such a model runs with us, others apart. To run all of them apart would cost every compilation
    6 to 16 % of its time (a fork, and the pages that are copied after it), of bench/compile.py
    with 20 and 60 images; to look at the ops costs 2 %.
    """
    if not isinstance(model, bytes):  # its reader has followed every node
        return sum(math.prod(t.shape) for t in model.tensors.values()) <= MOST_VALUES
    try:
        source = source_of(model)
    except BadModel:
        return False
    if source.rewritten or len(source.inputs) != 1 or any(violations(op) for op in source.ops):
        return False
    tensors = {t.index: t.shape for op in source.ops for t in (*op.inputs, *op.outputs) if t}
    return sum(math.prod(shape) for shape in tensors.values()) <= MOST_VALUES


class Reference:
    """The float model, real numbers in, real numbers out; a quantised one too.

    ``keep_all`` is for :meth:`tensors`. Raises :class:`~k210tasks.reference.litert.FloatModelError`
    for what LiteRT or onnxruntime refuses, :class:`~k210tasks.reference.apart.EndedApart` for what
    ends it.
    """

    def __init__(self, model: Given, *, keep_all: bool = False) -> None:
        def opened() -> _Answers:
            return _Answers(_open(model, keep_all=keep_all))

        def serve(inbox: Iterator[Any], reply: Callable[[Any], None]) -> None:
            answers = opened()
            for name, *args in inbox:
                reply(getattr(answers, name)(*args))

        _load(model)
        if _FORKS and not understood(model):
            apart = Apart(serve, _DOING)
            self._ask: Callable[..., Any] = lambda *item: apart.ask(item)
        else:
            here = opened()
            self._ask = lambda name, *args: getattr(here, name)(*args)
        self.shape: tuple[int, ...]
        self.names: list[str]
        self.shape, self.names = self._ask("signature")

    def run(self, tensor: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs for one input of ``shape``."""
        found: list[NDArray[np.float32]] = self._ask("run", tensor)
        return found

    def tensors(
        self, tensor: NDArray[np.float32], wanted: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        """What one input makes of the tensors ``wanted``, by their indices in the file."""
        found: list[NDArray[np.float32]] = self._ask("tensors", tensor, wanted)
        return found


class _Answers:
    """What a :class:`Reference` asks."""

    def __init__(self, model: litert.FloatModel | OnnxFloatModel) -> None:
        self._model = model

    def signature(self) -> tuple[tuple[int, ...], list[str]]:
        return self._model.input_shape, self._model.output_names

    def run(self, tensor: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [np.asarray(y, np.float32) for y in self._model.run(tensor)]

    def tensors(
        self, tensor: NDArray[np.float32], wanted: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        return self._model.looked_at(tensor, wanted)


def measure_to(
    path: Path,
    model: Given,
    samples: Iterable[NDArray[np.float32]],
    *,
    total: int = 0,
    fed: Fed | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> None:
    """Write to ``path`` what the samples tell of the model's tensors (``Calibration.to_npz``).

    Where it runs apart, so does ``compiler.calibrate``, which looks at all that a model makes
    of a sample, twenty times what the sample is; only samples cross.
    """
    if not _FORKS or understood(model):
        _collected(model, samples, total=total, fed=fed, progress=progress).to_npz(path)
        return

    def measure(inbox: Iterator[Any], reply: Callable[[Any], None]) -> None:
        _collected(model, inbox, fed=fed).to_npz(path)
        reply(None)

    _load(model)
    with Apart(measure, _DOING) as apart:
        for number, sample in enumerate(samples, 1):
            if not apart.send(sample):
                break
            progress(number, max(total, number), "samples")
        apart.end()
        apart.receive()
