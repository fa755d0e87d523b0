"""No layer reads or writes what is not its own, and where a runtime makes it so, lint tells."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks.compiler.problems import NoCalibration, Unsupported
from k210tasks.kmodel import KmodelError, parse, v3_layers, write
from k210tasks.kmodel.lint import lint
from k210tasks.kmodel.runtimes import RUNTIMES
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v3_layers import WHC
from k210tasks.simulator import Simulator
from k210tasks.simulator.guards import audit
from tests.compiler.judging import compile_network, network, outside
from tests.simulator import models

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "golden"


def accesses_of(model: Any, runtime: str) -> list[str] | None:
    """What the audit finds with a random input; None where the runtime refuses the file."""
    try:
        simulator = Simulator(model, runtime)
    except KmodelError:
        return None
    random, wanted = np.random.default_rng(1), simulator.input
    x = random.integers(0, 256, wanted.nbytes, np.uint8)
    if wanted.dtype == "float32":
        x = random.normal(size=wanted.nbytes // 4).astype(np.float32).view(np.uint8)
    return [str(access) for access in audit(simulator, x)]


def check(model: Any, runtime: str) -> None:
    found = accesses_of(model, runtime)
    if found:
        assert lint(model, runtime), found


@pytest.mark.parametrize("net", [models.net_v3, models.cpu_net_v3, models.net_v4])
def test_small_models_keep_to_their_buffers(net: Any) -> None:
    """Stale pixels of a padded vector among them, which reach no output."""
    model = parse(write(net()))
    assert accesses_of(model, "host") == []
    for runtime in RUNTIMES:
        check(model, runtime)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("seed", range(1, 9))
def test_compiled_networks_keep_to_their_buffers(kmodel: int, seed: int) -> None:
    made = network(seed)
    with contextlib.suppress(Unsupported, NoCalibration):
        assert outside(made, compile_network(made, made.tflite, kmodel)) == ""


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs ../shared/fixtures")
@pytest.mark.parametrize("runtime", ["maixpy", "sdk_develop", "freertos"])
def test_recorded_files_leave_their_buffers_only_where_lint_tells(runtime: str) -> None:
    files = np.load(GOLDEN / "runtime_v3.npz")
    names = [name for name in files.files if name.endswith(".kmodel")]
    for name in [*names[::12], "repro_pad_right2.v3.kmodel", "width64.v3.kmodel"]:
        check(parse(files[name].tobytes()), runtime)


def test_what_is_read_and_written_outside_is_found() -> None:
    """A pad by two on the right, whose last window reads the byte behind its map."""
    data: Any = models.net_v3().layers[0]
    pad = v3_layers.QuantizedMaxPool2d(
        in_mem=0, out_mem=256, in_shape=WHC(10, 6, 4), out_shape=WHC(12, 6, 4), kernel_w=1,
        kernel_h=1, stride_w=1, stride_h=1, pad_w=0, pad_h=0,
    )  # fmt: skip
    data.flags = v3_layers.TO_MAIN
    real = v3_layers.Dequantize(in_mem=256, out_mem=1024, count=288, scale=1.0, bias=0.0)
    model = KmodelV3(
        layers=[data, pad, real], outputs=[v3_layers.Output(1024, 1152)], main_mem=4096
    )
    assert accesses_of(parse(write(model)), "host") == []
    outside, unwritten = accesses_of(parse(write(model)), "maixpy") or []
    assert outside == "layer 1 (QuantizedMaxPool2d) reads outside: 1 bytes of main memory from 543"
    assert unwritten.startswith("outputs[0] reads unwritten: ")  # its bytes from 2172 to 2176


def test_a_buffer_that_another_layer_overwrites_is_found() -> None:
    """A sum of four bytes is written in words of eight, over the next tensor's first byte."""
    first: Any = models.net_v3().layers[0]
    first.flags = v3_layers.TO_MAIN
    add = v3_layers.QuantizedAdd(
        a_mem=0, b_mem=0, out_mem=256, count=4, a_offset=0, a_mul=1, a_shift=0, b_offset=0,
        b_mul=1, b_shift=0, out_offset=0, out_mul=1, out_shift=0,
    )  # fmt: skip
    kept = v3_layers.Requantize(in_mem=0, out_mem=260, count=4, table=np.arange(256, dtype="u1"))
    real = v3_layers.Dequantize(in_mem=256, out_mem=512, count=8, scale=1.0, bias=0.0)
    outputs = [v3_layers.Output(512, 32)]
    right = KmodelV3(layers=[first, add, kept, real], outputs=outputs, main_mem=4096)
    wrong = KmodelV3(layers=[first, kept, add, real], outputs=outputs, main_mem=4096)
    assert accesses_of(parse(write(right)), "maixpy") == []
    assert accesses_of(parse(write(wrong)), "maixpy") == [
        "layer 3 (Dequantize) reads damaged: 4 bytes of main memory from 260"
    ]
