"""The float reference of ONNX models, run by onnxruntime.

The only module that touches onnxruntime; imported when such a model is really run.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.float_protocol import FloatTensor
from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource
from k210tasks.reference.litert import FloatModelError

#: bytes of tensors that one session hands out at a time; more are looked at group by group
GROUP_BYTES = 64 << 20
_FATAL = 4  # onnxruntime's level of what it may say on stderr


def loaded() -> None:
    """Import all that a model is opened with, which a process forked from now on has then."""
    importlib.import_module("onnxruntime")
    importlib.import_module("onnx")


class OnnxFloatModel:
    """An ``.onnx`` with one input, loaded once and run sample by sample, on one thread.

    Maps go in and come out channels last, whatever the file has, so that whoever asks need not
    know the format. Nothing is optimised: every tensor is computed as the file says, and sums
    are the same in every process.
    """

    def __init__(self, source: OnnxSource, *, keep_all: bool = False) -> None:
        loaded()
        self._source = source
        self._given = source.of_port(source.inputs[0])
        self._shape = source.file.shape
        self._sessions: dict[tuple[str, ...], Any] = {}
        self._session(tuple(source.file.outputs))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """With the batch; maps channels last."""
        return self._source.inputs[0].shape

    @property
    def output_names(self) -> list[str]:
        return list(self._source.file.outputs)

    @property
    def tensors(self) -> dict[int, FloatTensor]:
        """The tensors that the compiler has a use for, by its reader's numbers."""
        return {
            number: FloatTensor(one.name, one.shape, one.moved)
            for number, one in self._source.tensors.items()
            if one.name not in self._codes
        }

    @cached_property
    def _codes(self) -> set[str]:
        """Tensors that the file has in codes, whose reals nobody can look at."""
        names = tuple(one.name for n, one in self._source.tensors.items() if n)
        found = self._session(names).get_outputs() if names else []
        return {o.name for o in found if o.type != "tensor(float)"}

    def run(self, x: NDArray[Any]) -> list[NDArray[np.float32]]:
        """The outputs, in the file's order, for one input of :attr:`input_shape`."""
        found = self._run(tuple(self._source.file.outputs), x)
        ports = self._source.outputs
        return [
            self._source.of_port(p).of_file(self._real(p.name, y))
            for p, y in zip(ports, found, strict=True)
        ]

    def _real(self, name: str, y: NDArray[Any]) -> NDArray[np.float32]:
        """What an output's codes stand for."""
        if y.dtype == np.float32:
            return y
        if name not in self._source.codes:
            raise FloatModelError(f"output {name!r} holds {y.dtype.name} values, not floats")
        scale, zero = self._source.codes[name]
        return np.asarray((y.astype(np.float64) - zero) * scale, np.float32)

    def looked_at(self, x: NDArray[np.float32], wanted: Sequence[int]) -> list[NDArray[np.float32]]:
        """What one input makes of the tensors ``wanted``."""
        found = next(self.values([x], wanted))
        return [np.asarray(found[number], np.float32) for number in wanted]

    def values(
        self, inputs: Sequence[NDArray[np.float32]], wanted: Collection[int]
    ) -> Iterator[Mapping[int, NDArray[np.float32]]]:
        """For each input, what it makes of the tensors ``wanted``."""
        tensors = self._source.tensors
        groups = self._groups(wanted)
        for x in inputs:
            found: dict[int, NDArray[np.float32]] = {}
            for group in groups:
                names = tuple(tensors[n].name for n in group if n)
                given = dict(zip((n for n in group if n), self._run(names, x), strict=True))
                for number in group:  # number 0 is the input itself
                    seen = given[number] if number else self._given.to_file(x)
                    try:
                        found[number] = tensors[number].of_file(seen)
                    except ValueError as error:
                        raise FloatModelError(
                            f"onnxruntime gives the tensor {tensors[number].name!r} the shape "
                            f"{list(seen.shape)}, which does not follow from the file: {error}; "
                            "export the model anew"
                        ) from error
            yield found

    def _groups(self, wanted: Collection[int]) -> list[list[int]]:
        groups: list[list[int]] = [[]]
        size = 0
        for number in wanted:
            size += 4 * int(np.prod(self._source.tensors[number].shape))
            if size > GROUP_BYTES and groups[-1]:
                groups.append([])
                size = 0
            groups[-1].append(number)
        return groups

    def _run(self, names: tuple[str, ...], x: NDArray[Any]) -> list[NDArray[Any]]:
        if not names:
            return []
        given = self._given.to_file(np.asarray(x, np.float32)).reshape(self._shape)
        try:
            feed = {self._source.file.input: np.ascontiguousarray(given)}
            found: list[NDArray[Any]] = self._session(names).run(list(names), feed)
        except MemoryError:
            raise
        except Exception as error:  # its native code raises whatever it meets
            raise FloatModelError(f"onnxruntime cannot run the model: {error}") from error
        return found

    def _session(self, names: tuple[str, ...]) -> Any:
        """A session that hands out these tensors."""
        if names in self._sessions:
            return self._sessions[names]
        import onnx
        import onnxruntime

        model = onnx.ModelProto()
        model.CopyFrom(self._source.file.proto)
        del model.graph.output[:]
        for name in names:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except MemoryError:
            raise
        except Exception as error:  # its native code raises whatever it meets
            raise FloatModelError(f"onnxruntime cannot load the model: {error}") from error
        self._sessions[names] = session
        return session
