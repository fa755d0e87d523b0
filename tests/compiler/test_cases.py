"""The small models of the shared fixtures that once failed: right, or refused with a remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from k210tasks import compiler, toolchains
from k210tasks.compiler.ir import to_nchw
from k210tasks.compiler.options import Options
from k210tasks.compiler.problems import CompileError
from k210tasks.kmodel import parse
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.simulator import Simulator
from k210tasks.toolchains import tensorflow
from tests.check_and_convert import disagreement, samples, told
from tests.compiler.helpers import FIXTURES

_FIT = "a smaller input or fewer channels there would make it fit"
_TILES = f"the K210 has 2097152; alive at that layer: * {_FIT}"
_CONSTANT = (
    "output 'StatefulPartitionedCall_1:1': it is a constant of shape [1, 16, 4], the same for "
    "every input; leave this output out and keep its values as a table on the board"
)
_LOOP = (
    "the model cannot be compiled:\n  WHILE #1: this op is not supported; it is a loop, as Keras "
    "writes LSTM, GRU and SimpleRNN: give the layer unroll=True and convert again, or use "
    "convolutions along the time axis"
)

#: case -> for kmodel 3 and 4 the least dB against the variance over samples and outputs, or
#: the refusal; ``*`` stands for anything, as names of tensors
CASES: dict[str, tuple[float | str, float | str]] = {
    "concat_relu6_linear": (29.0, 29.0),
    "dense_on_rows": ("FULLY_CONNECTED #9: a dense layer on 144 rows; needs kmodel 4", 35.0),
    "dilated_conv1d_open_batch": (
        "MUL #5: mul of [1, 100, 16] and [1, 1, 16] on the CPU; needs kmodel 4",
        22.0,
    ),
    "dw5_24x24x288": (30.0, 30.0),
    "dw5_96x96x24": (
        f"DEPTHWISE_CONV_2D #0 needs 2949120 bytes of KPU memory at once, {_TILES}",
        f"DEPTHWISE_CONV_2D #0 needs 2949120 bytes of KPU memory at once, {_TILES}",
    ),
    "har_24x3": (
        "CONV_2D #0: a 5x1 kernel on a map of 3x24 pixels with 1 channels is beyond what the KPU "
        "can be made to compute; needs kmodel 4",
        100.0,
    ),
    "int8_curves": (28.0, 28.0),
    # Its softmax is rounded to 1/256 and hardly moves with the input.
    "int8_io": (1.0, 1.0),
    "int8_io_silent": (28.0, 28.0),
    "lstm": (_LOOP, _LOOP),
    "mobilenet_head": (38.0, 38.0),
    "posenet257_odd_same": (
        "input 'serving_default_keras_tensor_16:0' of shape [1, 3, 257, 257]: a kmodel 3 starts "
        "with a convolution on a map of 4x4 to 512x256 pixels and at most 1024 channels, which "
        "198147 values cannot make*; needs kmodel 4",
        f"DEPTHWISE_CONV_2D #1 needs 3170304 bytes of KPU memory at once, {_TILES}",
    ),
    "split_concat": (27.0, 27.0),
    "ssd_with_anchors": (_CONSTANT, _CONSTANT),
    "stem7_224": (
        f"CONV_2D #0 needs 5505024 bytes of KPU memory at once, {_TILES}",
        f"CONV_2D #0 needs 5505024 bytes of KPU memory at once, {_TILES}",
    ),
    "valid_s2": (
        f"CONV_2D #0 needs 2924544 bytes of KPU memory at once, {_TILES}",
        f"CONV_2D #0 needs 2924544 bytes of KPU memory at once, {_TILES}",
    ),
    "vendor_pad": (36.0, 36.0),
}


def case(name: str) -> bytes:
    path = FIXTURES / "cases" / f"{name}.tflite"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path.read_bytes()


def decibels(tflite: bytes, kmodel: int) -> float:
    """Of all outputs together, against their variance over the samples."""
    model, inputs = FloatModel(tflite), samples(tflite) * 3
    calibration = compiler.calibrate(tflite, inputs, measurable)
    made = compiler.compile(tflite, calibration, Options(kmodel=kmodel, fed=told(tflite)))
    simulator = Simulator(parse(made.kmodel))
    wanted, got = [], []
    for x in inputs[:3]:
        wanted.append(np.concatenate([to_nchw(y).ravel() for y in model.run(x)]))
        fed = to_nchw(x)
        if made.input.dtype == "uint8":
            codes = np.rint(fed / made.input.scale + made.input.zero_point)
            fed = np.clip(codes, 0, 255).astype(np.uint8)
        outputs = simulator.run(np.ascontiguousarray(fed))
        got.append(np.concatenate([np.array(y, np.float64).ravel() for y in outputs]))
    reference = np.stack(wanted).astype(np.float64)
    noise = float(np.square(reference - np.stack(got)).sum())
    return float(10 * np.log10(np.square(reference - reference.mean(0)).sum() / noise))


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", CASES)
def test_a_case_is_right_or_refused_with_what_to_do(name: str, kmodel: int) -> None:
    tflite, expected = case(name), CASES[name][kmodel - 3]
    assert disagreement(tflite, kmodel) is None
    if isinstance(expected, float):
        assert decibels(tflite, kmodel) > expected
        return
    calibration = compiler.calibrate(tflite, samples(tflite)[:1], measurable)
    with pytest.raises(CompileError) as caught:
        compiler.compile(tflite, calibration, Options(kmodel=kmodel, effort="fast"))
    found, pieces = str(caught.value), expected.split("*")
    assert found.startswith(pieces[0])
    assert found.endswith(pieces[-1])


#: sources that the converter reads first -> the least dB
CONVERTED = {"qat.pb": 25.0, "vendor_pad.pb": 36.0, "yolo_reshape.h5": 25.0}


@pytest.mark.toolchain
@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", CONVERTED)
def test_a_case_is_right_by_way_of_the_converter(name: str, kmodel: int, tmp_path: Path) -> None:
    source, out = FIXTURES / "cases" / name, tmp_path / "converted.tflite"
    tools = toolchains.get("tensorflow")
    if not source.exists() or not tools.installed():
        pytest.skip(f"{source} or the converter is absent")
    kind = source.suffix[1:]
    tensorflow.convert(tools, source=source, kind=kind, inputs=None, outputs=None, out=out)
    assert decibels(out.read_bytes(), kmodel) > CONVERTED[name]


def test_every_case_has_its_outcome() -> None:
    folder = FIXTURES / "cases"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    assert {p.stem for p in folder.glob("*.tflite")} <= set(CASES)
    others = {p.name for p in folder.iterdir() if p.suffix != ".tflite"}
    assert others == set(CONVERTED)
