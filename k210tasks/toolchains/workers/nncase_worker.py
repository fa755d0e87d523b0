"""Runs nncase 1.x, alone in its process: another native library loaded first makes it abort."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from typing import Any

import nncase
import numpy as np
from serve import Refused, Say
from tidy import tidy


def hello(say: Say) -> object:
    """Proof that the package loads and knows the K210."""
    if not nncase.test_target("k210"):
        raise Refused("this nncase does not know the target k210")
    return {"version": _version(), "python": sys.version.split()[0]}


def _version() -> str:
    """From the metadata folder: importlib.metadata is not in CPython 3.7."""
    site = os.path.dirname(os.path.dirname(nncase.__file__))
    for entry in sorted(os.listdir(site)):
        if entry.startswith("nncase-") and entry.endswith(".dist-info"):
            return str(entry[len("nncase-") : -len(".dist-info")])
    return "unknown"


def compile(
    say: Say,
    model: str,
    onnx: bool,
    samples: str,
    method: str,
    mean: list[float],
    std: list[float],
    input_shape: list[int],
    out: str,
) -> object:
    """Write a kmodel 5; see ``k210tasks.toolchains.nncase`` for the contract it has.

    ``input_shape`` is the model's (NHWC where it has four dimensions, also that of an ONNX).
    """
    data = np.load(samples, mmap_mode="r")
    options = nncase.CompileOptions()
    options.target = "k210"
    options.quant_type = "uint8"
    options.w_quant_type = "uint8"
    if len(input_shape) == 4:
        _, height, width, channels = input_shape
        pixels = data.dtype == np.uint8
        options.preprocess = True
        options.input_type = "uint8" if pixels else "float32"
        options.input_layout = "NCHW"
        # NHWC leaves the outputs as TFLite has them; with NCHW, nncase transposes the
        # four-dimensional ones and moves them behind the others.
        options.output_layout = "NHWC"
        options.input_shape = [1, channels, height, width]
        options.input_range = [0.0, 1.0]
        options.mean = mean if pixels else [0.0] * channels
        options.std = std if pixels else [1.0] * channels
    say(0, 3, "reading")
    with open(model, "rb") as file:
        content = file.read()
    with tempfile.TemporaryDirectory() as scratch:
        options.dump_dir = scratch
        compiler = nncase.Compiler(options)
        take = compiler.import_onnx if onnx else compiler.import_tflite
        take(content, nncase.ImportOptions())
        calibration = nncase.PTQTensorOptions()
        calibration.calibrate_method = method
        calibration.samples_count = len(data)
        calibration.set_tensor_data(np.ascontiguousarray(data).tobytes())
        compiler.use_ptq(calibration)
        say(1, 3, "calibrating %d samples" % len(data))
        compiler.compile()
        say(2, 3, "writing")
        kmodel = tidy(compiler.gencode_tobytes())
    with open(out, "wb") as file:
        file.write(kmodel)
    return {"bytes": len(kmodel)}


def simulate(say: Say, kmodel: str, inputs: str, out: str) -> object:
    """Run a kmodel on every array of ``inputs``; outputs become ``output_0``, … of an .npz."""
    start = time.perf_counter()
    with open(kmodel, "rb") as file:
        model = file.read()
    simulator = nncase.Simulator()
    simulator.load_model(model)
    loaded = time.perf_counter() - start
    if simulator.inputs_size != 1:
        raise Refused("the kmodel has %d inputs; exactly one is fed" % simulator.inputs_size)
    wanted = simulator.get_input_tensor(0)
    shape, dtype = list(wanted.shape), np.dtype(wanted.dtype)
    data = np.load(inputs, mmap_mode="r")
    if data.dtype != dtype or int(np.prod(data.shape[1:])) != int(np.prod(shape)):
        raise Refused(
            "the kmodel takes %s%s, but the inputs are %s%s"
            % (dtype, shape, data.dtype, list(data.shape[1:]))
        )
    outputs: list[list[Any]] = [[] for _ in range(simulator.outputs_size)]
    seconds = []
    for index, x in enumerate(data):
        tensor = nncase.RuntimeTensor.from_numpy(np.ascontiguousarray(x).reshape(shape))
        start = time.perf_counter()
        simulator.set_input_tensor(0, tensor)
        simulator.run()
        seconds.append(time.perf_counter() - start)
        for number, arrays in enumerate(outputs):
            y = simulator.get_output_tensor(number).to_numpy()
            arrays.append(y[0].copy() if y.ndim > 1 and y.shape[0] == 1 else y.copy())
        say(index + 1, len(data), "simulating")
    stacked: dict[str, Any] = {"output_%d" % n: np.stack(a) for n, a in enumerate(outputs) if a}
    with open(out, "wb") as file:
        np.savez(file, **stacked)
    return {
        "load_seconds": loaded,
        "run_seconds": seconds,
        "input": {"shape": shape, "dtype": str(dtype)},
        "outputs": [{"shape": list(a.shape[1:]), "dtype": str(a.dtype)} for a in stacked.values()],
    }


OPERATIONS = {"hello": hello, "compile": compile, "simulate": simulate}
