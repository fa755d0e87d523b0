"""The float reference: TensorFlow Lite models run by LiteRT.

The only module that touches ai-edge-litert; imported when a model is really run.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from k210tasks import tflite_schema
from k210tasks.compiler.float_protocol import FloatTensor
from k210tasks.errors import K210Error
from k210tasks.process_wide import unwarned
from k210tasks.reference.remarks import unremarked
from k210tasks.tflite_verifier import verify

#: Ops that only move values.
_MOVERS = frozenset({
    "PAD", "PADV2", "RESHAPE", "CONCATENATION", "TRANSPOSE", "STRIDED_SLICE", "SLICE", "SPLIT",
    "SPLIT_V", "SQUEEZE", "EXPAND_DIMS", "PACK", "UNPACK", "MIRROR_PAD", "SPACE_TO_BATCH_ND",
    "BATCH_TO_SPACE_ND",
})  # fmt: skip


class FloatModelError(K210Error):
    """LiteRT refuses the model, or it has a form no K210 runtime can feed."""


def loaded() -> None:
    """Import all that a model is opened with, which a process forked from now on has then."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    importlib.import_module("ai_edge_litert.interpreter")
    tflite_schema.members("BuiltinOperator")
    tflite_schema.Model  # noqa: B018 - its attributes import


class Details(TypedDict):
    """What LiteRT tells of a tensor, as far as it is used."""

    index: int
    name: str
    shape: NDArray[np.int32]
    dtype: type[Any]
    quantization: tuple[float, int]  # scale, 0 for none; zero point


class FloatModel:
    """A ``.tflite`` with one input, loaded once and run sample by sample.

    ``keep_all`` keeps every intermediate tensor readable after a run, at the price of
    memory for all of them. ``threads`` None uses LiteRT's choice of one.
    """

    def __init__(self, tflite: bytes, *, keep_all: bool = False, threads: int | None = None):
        loaded()
        from ai_edge_litert.interpreter import Interpreter

        verify(tflite)  # LiteRT looks at nothing
        try:
            with unremarked, unwarned:  # that keep_all costs memory we know
                self._interpreter = Interpreter(
                    model_content=tflite,
                    num_threads=threads,
                    experimental_preserve_all_tensors=keep_all,
                )
                self._interpreter.allocate_tensors()
        except MemoryError:
            raise
        except Exception as error:  # its native code raises whatever it meets
            raise FloatModelError(f"LiteRT cannot load the model: {error}") from error
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1:
            names = ", ".join(str(d["name"]) for d in inputs)
            raise FloatModelError(
                f"the model has {len(inputs)} inputs ({names}); K210 runtimes feed exactly one"
            )
        self.input: Details = inputs[0]
        self.outputs: list[Details] = self._interpreter.get_output_details()
        self._tflite = tflite

    @property
    def input_shape(self) -> tuple[int, ...]:
        """As the model declares it, batch first, e.g. ``(1, 28, 28, 1)``."""
        return tuple(int(n) for n in self.input["shape"])

    @property
    def output_names(self) -> list[str]:
        return [str(d["name"]) for d in self.outputs]

    def run(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs, in the model's order, for one input of :attr:`input_shape`; both in
        reals, also where the file's are integers with a scale."""
        self.invoke(x)
        return [_reals(self._interpreter.get_tensor(d["index"]), d) for d in self.outputs]

    def invoke(self, x: NDArray[Any]) -> None:
        """Run one input, of reals, and leave the results where they can be looked at."""
        try:
            self._interpreter.set_tensor(self.input["index"], _codes(x, self.input))
            self._interpreter.invoke()
        except MemoryError:
            raise
        except Exception as error:  # its native code raises whatever it meets
            raise FloatModelError(f"LiteRT cannot run the model: {error}") from error

    def values(
        self, inputs: Sequence[NDArray[np.float32]], wanted: Collection[int]
    ) -> Iterator[Mapping[int, NDArray[np.float32]]]:
        """For each input, what it makes of the tensors ``wanted``; needs ``keep_all``.

        They are views of LiteRT's memory, which refuses to run while one lives: none may be
        kept when the next mapping is asked for.
        """
        for x in inputs:
            self.invoke(x)
            views = {index: self._interpreter.tensor(index)() for index in wanted}
            yield views
            views.clear()

    @property
    def tensors(self) -> dict[int, FloatTensor]:
        """The float32 input and every float32 tensor made from it, by index in the file.

        What is made of constants alone, such as weights that a file holds in fewer bits, is
        left out: LiteRT may never write it, and a view of it shows what memory held before.
        So is what nothing reads, a part of a split perhaps: it may have no memory. And what is
        padded with a number: it may be minus infinity.
        """
        read = {int(d["index"]) for d in self.outputs}
        padded: set[int] = set()
        moved = {int(self.input["index"]): False}
        for name, inputs, outputs in self._ops:
            read.update(inputs)
            if any(i in moved for i in inputs):
                moved.update(dict.fromkeys(outputs, name in _MOVERS))
            if name == "PADV2":
                padded.update(outputs)
        return {
            i: FloatTensor(str(d["name"]), tuple(int(n) for n in d["shape"]), only_moved)
            for i, only_moved in moved.items()
            if i in read - padded and (d := self._details.get(i)) and d["dtype"] == np.float32
        }

    @cached_property
    def _details(self) -> dict[int, Details]:
        found = self._interpreter.get_tensor_details()
        if any((d["shape_signature"] < 0).any() for d in found):
            # What was left open gets its size when the model first runs.
            self.invoke(np.zeros(self.input_shape, np.float32))
            found = self._interpreter.get_tensor_details()
        return {d["index"]: d for d in found}

    @cached_property
    def _ops(self) -> list[tuple[str, list[int], list[int]]]:
        """Name, inputs and outputs of every op of the file, in its order."""
        names = tflite_schema.members("BuiltinOperator")
        model = tflite_schema.Model.GetRootAs(self._tflite, 0)
        graph = model.Subgraphs(0)
        ops = []
        for k in range(graph.OperatorsLength()):
            op = graph.Operators(k)
            code = model.OperatorCodes(op.OpcodeIndex())
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            inputs = [int(op.Inputs(i)) for i in range(op.InputsLength())]
            outputs = [int(op.Outputs(i)) for i in range(op.OutputsLength())]
            ops.append((names.get(number, "CUSTOM"), inputs, outputs))
        return ops

    def looked_at(self, x: NDArray[np.float32], wanted: Sequence[int]) -> list[NDArray[np.float32]]:
        """What one input makes of the tensors ``wanted``, in reals; needs ``keep_all``."""
        self.invoke(x)
        reals = (_reals(self._interpreter.get_tensor(i), self._details[i]) for i in wanted)
        return [np.asarray(y, np.float32) for y in reals]


def measurable(tflite: bytes) -> FloatModel:
    """The model as calibration runs it: every tensor kept, one thread of several."""
    return FloatModel(tflite, keep_all=True, threads=1)


def _codes(x: NDArray[Any], detail: Details) -> NDArray[Any]:
    """Reals as the interpreter takes them: rounded to codes where the tensor has a scale."""
    dtype, (scale, zero) = detail["dtype"], detail["quantization"]
    if not scale or not np.issubdtype(dtype, np.integer) or x.dtype.kind != "f":
        return x.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    codes = np.rint(np.asarray(x, np.float64) / scale) + zero
    return np.clip(codes, limits.min, limits.max).astype(dtype)


def _reals(raw: NDArray[Any], detail: Details) -> NDArray[Any]:
    """What a tensor's codes mean; floats, and integers without a scale, as they are."""
    scale, zero = detail["quantization"]
    if not scale or raw.dtype.kind not in "iu":
        return raw
    return ((raw.astype(np.float32) - np.float32(zero)) * np.float32(scale)).astype(np.float32)
