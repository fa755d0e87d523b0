from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from k210tasks.kmodel import KmodelError, parse, v3_layers, v4_ops, write
from k210tasks.kmodel.codec import CONST, KPU, MAIN, MemoryRange, Pad, Shape
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4
from k210tasks.kpu.layout import read_map
from k210tasks.simulator import InputError, Simulator
from tests.simulator import models


def prepared(model: Any) -> Simulator:
    return Simulator(parse(write(model)))


def pixels(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


# inputs


def test_what_a_model_takes() -> None:
    v3, v4 = prepared(models.net_v3()).input, prepared(models.net_v4()).input
    assert (v3.kind, v3.dtype, v3.shape, v3.nbytes) == ("kpu", "uint8", (3, 12, 20), 720)
    assert (v4.kind, v4.dtype, v4.shape, v4.nbytes) == ("kpu", "uint8", (3, 12, 20), 720)
    dense = prepared(models.cpu_net_v3()).input
    assert (dense.kind, dense.dtype, dense.shape, dense.nbytes) == ("main", "float32", None, 16)
    assert (str(v3), str(dense)) == ("uint8 3x12x20 (CHW)", "float32 16 bytes")


@pytest.mark.parametrize("shape", [(3, 12, 20), (1, 3, 12, 20), (720,)])
def test_any_shape_of_the_right_size_is_taken(shape: tuple[int, ...]) -> None:
    simulator = prepared(models.net_v3())
    x = pixels((3, 12, 20))
    np.testing.assert_array_equal(simulator.run(x.reshape(shape))[0], simulator.run(x)[0])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 12, 21), np.uint8), "the array is uint8 3x12x21"),
        (np.zeros((3, 12, 20), np.float32), "the array is float32 3x12x20"),
        (
            np.zeros((12, 20, 3), np.uint8),
            "the array is 12x20x3: whole planes are fed one after the other; of height, width,"
            " channels make x.transpose(2, 0, 1)",
        ),
        (np.zeros((0,), np.uint8), "the array is uint8 0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: Any, message: str) -> None:
    simulator = prepared(models.net_v3())
    with pytest.raises(InputError) as error:
        simulator.run(x)
    assert str(error.value) == f"the model takes uint8 3x12x20 (CHW); {message}"


def test_float_inputs_of_any_float_type_and_raw_bytes() -> None:
    simulator = prepared(models.cpu_net_v3())
    x = np.linspace(-1, 1, 4)
    expected = simulator.run(x.astype(np.float32))[0]
    np.testing.assert_array_equal(simulator.run(x)[0], expected)
    np.testing.assert_array_equal(simulator.run(x.astype("<f4").view(np.uint8))[0], expected)


# runs


@pytest.mark.parametrize("make", [models.net_v3, models.net_v4])
def test_a_run_leaves_nothing_for_the_next(make: Any) -> None:
    simulator = prepared(make())
    first = [y.copy() for y in simulator.run(pixels((3, 12, 20), 1))]
    simulator.run(pixels((3, 12, 20), 2))
    for a, b in zip(first, simulator.run(pixels((3, 12, 20), 1)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_outputs_are_the_callers_own() -> None:
    simulator = prepared(models.net_v3())
    (first,) = simulator.run(pixels((3, 12, 20), 1))
    before = first.copy()
    simulator.run(pixels((3, 12, 20), 2))
    np.testing.assert_array_equal(first, before)


def test_layer_outputs_are_kept_on_request() -> None:
    simulator = prepared(models.net_v4())
    x = pixels((3, 12, 20))
    with pytest.raises(InputError, match="no layer outputs were kept"):
        simulator.layer_output(0)
    simulator.run(x, keep_layers=True)
    assert [simulator.layer_output(i).dtype for i in range(4)] == [np.uint8] * 3 + [np.float32]
    assert simulator.layer_output(0).shape == (4, 6, 10)
    registers = simulator.model.layers[1].registers  # type: ignore[union-attr]
    np.testing.assert_array_equal(
        simulator.layer_output(1),
        read_map(simulator._memory.kpu, registers.image_dst_addr, *registers.out_shape),
    )
    with pytest.raises(InputError, match=r"layer 9: the model has layers 0\.\.8"):
        simulator.layer_output(9)
    simulator.run(x)
    with pytest.raises(InputError, match="no layer outputs were kept"):
        simulator.layer_output(0)


def test_models_never_written_to_a_file_run_too() -> None:
    x = pixels((3, 12, 20))
    for make in (models.net_v3, models.net_v4):
        for a, b in zip(Simulator(make()).run(x), prepared(make()).run(x), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_batch_of_maps_in_one_node() -> None:
    model = models.net_v4()
    conv = model.nodes[0]
    assert isinstance(conv, v4_ops.KpuConv2d)
    rows_out = conv.registers.rows_out
    single = KmodelV4(
        nodes=[replace(conv, main_output=MemoryRange(MAIN, 1, 0, 240))],
        inputs=model.inputs,
        input_shapes=model.input_shapes,
        outputs=[MemoryRange(MAIN, 1, 0, 240)],
        main_mem=240,
    )
    batch = KmodelV4(
        nodes=[replace(conv, batches=2, main_output=MemoryRange(MAIN, 1, 0, 480))],
        inputs=[MemoryRange(KPU, 1, 0, 64 * 48)],
        input_shapes=[Shape(2, 3, 12, 20)],
        outputs=[MemoryRange(MAIN, 1, 0, 480)],
        main_mem=480,
    )
    x = pixels((2, 3, 12, 20))
    both = prepared(batch)
    (got,) = both.run(x)
    alone = prepared(single)
    np.testing.assert_array_equal(got, np.concatenate([alone.run(one)[0] for one in x]))
    second = read_map(both._memory.kpu, conv.registers.image_dst_addr + rows_out, 4, 6, 10)
    np.testing.assert_array_equal(second.reshape(-1), got[240:])


# refusals


def changed_v3(index: int, **changes: Any) -> KmodelV3:
    model = models.net_v3()
    model.layers[index] = replace(model.layers[index], **changes)
    return model


def changed_registers(**changes: Any) -> KmodelV3:
    model = models.net_v3()
    first = model.layers[0]
    assert isinstance(first, v3_layers.K210Conv)
    model.layers[0] = replace(first, registers=replace(first.registers, **changes))
    return model


def changed_v4(index: int, **changes: Any) -> KmodelV4:
    model = models.net_v4()
    model.nodes[index] = replace(model.nodes[index], **changes)
    return model


REFUSED: list[tuple[Any, str]] = [
    (lambda: replace(models.net_v3(), main_mem=(64 << 20) + 1),
     "byte 20 (0x14), main_mem: 67108865 bytes of main memory; at most 67108864 are accepted"),
    (lambda: replace(models.net_v4(), main_mem=1 << 31), "main_mem: 2147483648 bytes"),
    (lambda: replace(models.net_v3(), layers=[]), "byte 12 (0xc), layers: the model has none"),
    (lambda: replace(models.net_v3(), layers=models.net_v3().layers[4:]),
     "layer 0 (TensorflowFlatten): no K210 runtime starts with it: the first layer must be"),
    (lambda: changed_registers(image_src_addr=32760),
     "layer 0 (K210Conv2d): image_src_addr: 32760, not at most 32744: the map has 24 rows"),
    (lambda: changed_registers(image_dst_addr=5),
     "image_dst_addr: 5, not a map of 6 rows outside the input's rows 0..23"),
    (lambda: changed_registers(o_row_wid=10), "o_row_wid: 10, not 9"),
    (lambda: changed_registers(coef_group=1), "coef_group: 1, not 2"),
    (lambda: changed_registers(bypass_conv=1), "bypass_conv: 1, not 0"),
    (lambda: changed_v3(1, out_mem=1900),
     "layer 1 (K210Conv2d): out_mem: bytes 1900..2140 of main memory, which has 2048"),
    (lambda: changed_v3(3, count=1 << 30), "layer 3 (Dequantize): in_mem: bytes 1024..1073742848"),
    (lambda: changed_v3(2, stride_w=0), "stride_w, stride_h: 0; must be positive"),
    (lambda: changed_v3(2, in_shape=v3_layers.WHC(0, 6, 4)),
     "in_shape: (4, 6, 0) has a dimension below 1"),
    (lambda: changed_v3(7, out_kpu=32767), "out_kpu: rows 32767..32774 of KPU RAM, which has"),
    (lambda: replace(models.net_v3(), outputs=[v3_layers.Output(2040, 20)]),
     "byte 28 (0x1c), outputs[0]: address, size: bytes 2040..2060 of main memory"),
    (lambda: replace(models.net_v3(), outputs=[v3_layers.Output(0, 21)]),
     "21 bytes are no whole number of 4-byte values"),
    (lambda: replace(models.net_v4(), inputs=[], input_shapes=[]), "inputs: the model has none"),
    (lambda: replace(models.net_v4(), inputs=[MemoryRange(CONST, 1, 0, 0)]),
     "inputs[0]: memory_type: 0; 1 (main) or 2 (KPU RAM)"),
    (lambda: replace(models.net_v4(), inputs=[MemoryRange(KPU, 1, 3, 0)]),
     "start: byte 3 of KPU RAM is not the start of a 64-byte row"),
    (lambda: replace(models.net_v4(), input_shapes=[Shape(1, 3, 0, 20)]), "shape: (1, 3, 0, 20)"),
    (lambda: replace(models.net_v4(), outputs=[MemoryRange(CONST, 0, 0, 4)]),
     "outputs[0]: range.memory_type: 0; results go to main memory (1)"),
    (lambda: changed_v4(0, batches=0), "node 0 (kpu_conv2d): batches: 0; 1..32768 are possible"),
    (lambda: changed_v4(1, main_output=MemoryRange(MAIN, 1, 0, 359)),
     "main_output.size: 359 bytes for 1 map(s) of (6, 6, 10)"),
    (lambda: changed_v4(3, input=MemoryRange(KPU, 1, 0, 360)),
     "node 3 (dequantize): input.memory_type: 2; constants (0) or main (1) is needed"),
    (lambda: changed_v4(4, op=10), "node 4 (unary): op: 10; known are 0 abs, 1 ceil, 2 cos"),
    (lambda: changed_v4(5, filter_w=1 << 30, pad_w=Pad(1 << 29, 1 << 29)), "work up to here: "),
    (lambda: changed_v4(5, stride_h=0), "stride_h: 0; must be positive"),
    (lambda: changed_v4(6, shape_reduced=Shape(1, 6, 2, 1)),
     "shape_reduced: (1, 6, 2, 1) has 12 elements, the memory holds 6"),
    (lambda: changed_v4(8, code=bytes([0x40])), "code: add needs 2 values, the stack holds 0"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_cannot_run_is_refused_when_prepared(make: Any, message: str) -> None:
    model = parse(write(make()))
    with pytest.raises(KmodelError) as error:
        Simulator(model)
    assert message in str(error.value)
    assert error.value.offset is not None


def test_memory_is_refused_before_it_is_allocated() -> None:
    model = parse(write(replace(models.net_v3(), main_mem=(1 << 32) - 1)))
    tracemalloc.start()
    try:
        with pytest.raises(KmodelError, match="main_mem"):
            Simulator(model)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
