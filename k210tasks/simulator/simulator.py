"""Runs a parsed kmodel of version 3 or 4, bit exact (docs, sections 1.9, 2.4, 3.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from k210tasks.errors import K210Error
from k210tasks.kmodel import v3, v3_layers
from k210tasks.kmodel import v4 as v4_format
from k210tasks.kmodel.codec import FLOAT32, KPU, MAIN, UINT8
from k210tasks.kmodel.errors import KmodelError
from k210tasks.kmodel.lint import stops
from k210tasks.kmodel.runtimes import Runtime, runtime_of
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4
from k210tasks.kpu.blas import one_thread
from k210tasks.kpu.layout import map_rows, write_map
from k210tasks.simulator import run_v3, run_v4
from k210tasks.simulator.memory import Memory, Site
from k210tasks.simulator.step import Step


class InputError(K210Error):
    """An input array that is not what the model takes."""


@dataclass(frozen=True, slots=True)
class Input:
    """What a model takes, as far as its file tells."""

    kind: Literal["kpu", "main"]  # where the input is put
    dtype: Literal["uint8", "float32"]
    shape: tuple[int, ...] | None  # C, H, W, a batch in front where there is one
    nbytes: int  # of the array given to run

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape)) if self.shape else f"{self.nbytes} bytes"
        order = f" ({'N' if self.shape and len(self.shape) == 4 else ''}CHW)" if self.shape else ""
        return f"{self.dtype} {size}{order}"


class Simulator:
    """A model prepared once, to be run on any number of inputs.

    ``runtime`` is what executes it (docs, section 8): a :class:`Runtime` or its name. All but
    ``host`` keep their memory between runs, as boards do, so that a model that reads what none
    of its layers has written puts out what the runs before have left there.

    Raises :class:`KmodelError` naming byte offset and field where the model asks for what no
    K210 can do or ``runtime`` does not run, for more than 64 MiB of main memory (before
    allocating it), or for an absurd amount of work.
    """

    def __init__(self, model: KmodelV3 | KmodelV4, runtime: str | Runtime = "host"):
        self.model = model
        self.runtime = runtime_of(runtime)
        self._results: list[NDArray[Any]] | None = None
        if isinstance(model, KmodelV3):
            self._memory = Memory(model.main_mem, 20, runtime=self.runtime)
            prepare: dict[Any, Any] = dict(run_v3.PREPARE)
            describe: Callable[[int, Any], str] = v3.describe
        else:
            self._memory = Memory(model.main_mem, 20, model.constants, self.runtime)
            prepare = dict(run_v4.PREPARE)
            describe = v4_format.describe
        bodies: Sequence[Any] = model.layers
        if not bodies:
            raise KmodelError(12 if model.version == 3 else 24, "layers", "the model has none")
        refused = stops(model, self.runtime)
        if refused is not None:
            at = 0 if refused.layer is None else bodies[refused.layer].offset
            raise KmodelError(at, refused.name, f"{refused.problem}: {refused.remedy}")
        #: How messages and listings call each layer.
        self.names: list[str] = []
        self._steps: list[Step] = []
        for i, body in enumerate(bodies):
            self.names.append(describe(i, body))
            site = self._site(body.offset, self.names[-1])
            with np.errstate(all="ignore"):
                self._steps.append(prepare[type(body)](site, body))
        self.input, self._store = self._input()
        self._outputs = self._output_views()

    def _site(self, offset: int | None, what: str) -> Site:
        return Site(self._memory, offset, what, self.runtime)

    def run(self, x: NDArray[Any], keep_layers: bool = False) -> list[NDArray[Any]]:
        """The model's outputs in the file's order, flat float32 (or uint8) arrays of their own.

        ``x`` is a uint8 or float32 array as :attr:`input` says; any shape of the right size.
        With ``keep_layers`` every layer's output is kept for :meth:`layer_output`. Raises
        :class:`InputError` for an array the model does not take.
        """
        values = self._accept(x)
        self._memory.begin()
        self._store(values)
        self._results = None
        kept: list[NDArray[Any]] = []
        with np.errstate(all="ignore"), one_thread():
            for step in self._steps:
                step.run()
                if keep_layers:
                    kept.append(step.result())
        if keep_layers:
            self._results = kept
        return [view.copy() for view in self._outputs]

    def layer_output(self, index: int) -> NDArray[Any]:
        """What layer ``index`` produced in the last run with ``keep_layers``.

        KPU layers: uint8 C, H, W; others flat or in the shape their node declares.
        """
        if self._results is None:
            raise InputError("no layer outputs were kept; run(x, keep_layers=True) keeps them")
        if not 0 <= index < len(self._results):
            raise InputError(f"layer {index}: the model has layers 0..{len(self._results) - 1}")
        return self._results[index]

    def _accept(self, x: NDArray[Any]) -> NDArray[Any]:
        """``x`` as flat values of the input's type."""
        x = np.asarray(x)
        wanted = np.dtype(self.input.dtype)
        if x.dtype.kind == "f" and wanted.kind == "f":
            x = x.astype(np.float32, copy=False)
        if x.dtype != wanted and x.nbytes == self.input.nbytes and x.dtype == np.uint8:
            x = np.ascontiguousarray(x).reshape(-1).view(wanted)  # raw bytes of the input
        shape = "x".join(map(str, x.shape)) or "1"
        if x.dtype != wanted or x.nbytes != self.input.nbytes:
            raise InputError(f"the model takes {self.input}; the array is {x.dtype} {shape}")
        if self.input.shape and x.ndim >= 3:
            # As many values in another order of axes, planes last as a rule.
            given, asked = (tuple(n for n in s if n != 1) for s in (x.shape, self.input.shape))
            if given != asked:
                raise InputError(
                    f"the model takes {self.input}; the array is {shape}: whole planes are fed one "
                    "after the other; of height, width, channels make x.transpose(2, 0, 1)"
                )
        return np.ascontiguousarray(x).reshape(-1)

    def _input(self) -> tuple[Input, Callable[[NDArray[Any]], None]]:
        if isinstance(self.model, KmodelV3):
            return self._input_v3(self.model)
        return self._input_v4(self.model)

    def _input_v3(self, model: KmodelV3) -> tuple[Input, Callable[[NDArray[Any]], None]]:
        first, name = model.layers[0], self.names[0]
        site = self._site(first.offset, name)
        if isinstance(first, v3_layers.K210Conv):
            shape, row = first.registers.in_shape, first.registers.image_src_addr
            return (
                Input("kpu", "uint8", shape, int(np.prod(shape))),
                run_v3.uploader(site, row, shape, dma=shape[2] % 64 == 0),
            )
        assert isinstance(first, v3_layers.FullyConnected)  # else the runtime had been refused
        view = site.main("in_mem", first.in_mem, 4 * first.in_ch, "<f4")
        return Input("main", "float32", None, 4 * first.in_ch), lambda x: np.copyto(view, x)

    def _input_v4(self, model: KmodelV4) -> tuple[Input, Callable[[NDArray[Any]], None]]:
        if not model.inputs:
            raise KmodelError(28, "inputs", "the model has none")
        memory, shape = model.inputs[0], model.input_shapes[0]
        site = self._site(40, "inputs[0]")
        if memory.memory_type == KPU:
            batch, *chw = shape
            for dimension in shape:
                site.require(1 <= dimension <= 4096, "shape", f"{tuple(shape)}")
            rows, row = map_rows(*chw), site.row("start", memory.start)
            site.rows("start", row, rows * batch)
            full = (batch, *chw) if batch > 1 else tuple(chw)

            def upload(x: NDArray[Any]) -> None:
                for i, one in enumerate(x.reshape(shape)):
                    write_map(self._memory.kpu, row + i * rows, one)

            return Input("kpu", "uint8", full, int(np.prod(shape))), upload
        if memory.memory_type != MAIN:
            raise site.fail("memory_type", f"{memory.memory_type}; 1 (main) or 2 (KPU RAM)")
        dtype: Literal["uint8", "float32"] = "uint8" if memory.datatype == UINT8 else "float32"
        view = site.range("range", memory, "u1" if memory.datatype == UINT8 else "<f4")
        known = min(shape) > 0 and int(np.prod(shape, dtype=object)) == view.size
        full = tuple(shape[1:] if shape.n == 1 else shape) if known else ()
        return (
            Input("main", dtype, full or None, memory.size),
            lambda x: np.copyto(view, x),
        )

    def _output_views(self) -> list[NDArray[Any]]:
        model = self.model
        if isinstance(model, KmodelV3):
            return [
                self._site(28 + 8 * i, f"outputs[{i}]").main(
                    "address, size", output.address, output.size, "<f4"
                )
                for i, output in enumerate(model.outputs)
            ]
        first = 40 + 32 * len(model.inputs)
        return [
            self._site(first + 16 * i, f"outputs[{i}]").output(
                "range", output, "<f4" if output.datatype == FLOAT32 else "u1"
            )
            for i, output in enumerate(model.outputs)
        ]
