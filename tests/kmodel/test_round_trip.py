from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.kmodel import KmodelV3, KmodelV4, parse, v3_layers, v4_ops, write
from k210tasks.kmodel.codec import record_fields
from k210tasks.kpu.registers import check
from tests.kmodel import samples

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
real = pytest.mark.skipif(not FIXTURES.is_dir(), reason="needs ../shared/fixtures")
FILES = sorted(FIXTURES.glob("kmodel/v*/*.kmodel"))

SEEDS = st.integers(0, 2**32 - 1)


def assert_equal_records(a: Any, b: Any) -> None:
    """Every field of the format is the same in two records."""
    assert type(a) is type(b)
    for name, _ in record_fields(type(a)):
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, np.ndarray):
            assert left.shape == right.shape
            assert left.tobytes() == right.tobytes(), name
        elif isinstance(a, v4_ops.NnilUnary) and name == "code":
            assert right.rstrip(b"\0") == left.rstrip(b"\0")  # the body's padding comes along
        else:
            assert left == right, name
    if isinstance(a, (v3_layers.K210Conv, v4_ops.KpuConv2d)):
        assert a.registers == b.registers
        assert a.bn.encode() == b.bn.encode()
        assert a.activation.encode() == b.activation.encode()
        np.testing.assert_array_equal(a.weights, b.weights)


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_v3_models_round_trip(seed: int) -> None:
    model = samples.model_v3(seed)
    data = write(model)
    back = parse(data)
    assert isinstance(back, KmodelV3)
    for a, b in zip(model.layers, back.layers, strict=True):
        assert_equal_records(a, b)
    assert (back.outputs, back.main_mem, back.flags) == (
        model.outputs,
        model.main_mem,
        model.flags,
    )
    assert write(back) == data
    assert len(data) % 8 == 0 or not model.layers


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_v4_models_round_trip(seed: int) -> None:
    model = samples.model_v4(seed)
    data = write(model)
    back = parse(data)
    assert isinstance(back, KmodelV4)
    for a, b in zip(model.nodes, back.nodes, strict=True):
        assert_equal_records(a, b)
    assert back.inputs == model.inputs
    assert back.input_shapes == model.input_shapes
    assert bytes(back.constants) == model.constants
    assert (back.outputs, back.main_mem, back.reserved0) == (
        model.outputs,
        model.main_mem,
        model.reserved0,
    )
    assert write(back) == data


@pytest.mark.parametrize("cls", v3_layers.BODIES.values(), ids=lambda c: c.NAME)
def test_every_v3_layer_type_round_trips(cls: type[v3_layers.Body]) -> None:
    rng = np.random.default_rng(1)
    body = samples.conv_v3(rng, 1) if cls is v3_layers.K210Conv else samples.record(cls, rng)
    back = parse(write(KmodelV3(layers=[body], outputs=[], main_mem=8)))
    assert_equal_records(body, back.layers[0])


@pytest.mark.parametrize("cls", v4_ops.NODES.values(), ids=lambda c: c.NAME)
def test_every_v4_opcode_round_trips(cls: type[v4_ops.Node]) -> None:
    rng = np.random.default_rng(1)
    node = samples.conv_v4(rng) if cls is v4_ops.KpuConv2d else samples.record(cls, rng)
    model = KmodelV4(nodes=[node], inputs=[], input_shapes=[], outputs=[], main_mem=8)
    back = parse(write(model))
    assert_equal_records(node, back.layers[0])


def test_the_tables_hold_every_id_of_the_reference() -> None:
    assert sorted(v3_layers.BODIES) == [
        1, 2, 5, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25,
        10240, 10241, 10242, 10243,
    ]  # fmt: skip
    assert sorted(v4_ops.NODES) == [
        *range(0x15), 0x1001, 0x1002, 0x1003, 0x1004, 0x1005, 0x2001, 0x2002,
    ]  # fmt: skip


def undefined_bits(data: bytes) -> set[int]:
    """The byte offsets whose upper half the format leaves undefined: activation words of v4."""
    model = parse(data)
    offsets = set()
    for node in model.layers:
        if isinstance(node, v4_ops.KpuConv2d):
            assert node.offset is not None
            r = node.registers
            skips = node.skips or _aligned(node.offset, r.out_channels)
            start = node.offset + 120 + skips[0] + 8 * r.out_channels + skips[1]
            offsets |= {start + 8 * i + 7 for i in range(16)}
    return offsets


def _aligned(offset: int, out_channels: int) -> tuple[int, int]:
    bn = -(offset + 120) % 256
    activation = -(offset + 120 + bn + 8 * out_channels) % 256
    return bn, activation


@real
@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_real_files_come_back_byte_for_byte(path: Path) -> None:
    # Headers, bodies and blobs are read; gaps are written as zeros: so every byte is accounted for.
    data = path.read_bytes()
    written = write(parse(data))
    assert len(written) == len(data)
    masked = undefined_bits(data)
    for i, (a, b) in enumerate(zip(data, written, strict=True)):
        if a != b:
            assert i in masked, f"byte {i}"
            assert (a ^ b) & 0x0F == 0, f"byte {i}"


@real
def test_one_node_files_come_back_byte_for_byte() -> None:
    nodes = np.load(FIXTURES / "golden" / "v4_nodes.npz")
    names = [name for name in nodes.files if name.endswith(".kmodel")]
    assert len(names) == 196
    for name in names:
        data = nodes[name].tobytes()
        assert write(parse(data)) == data, name


@real
@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_registers_of_real_files_obey_the_geometry(path: Path) -> None:
    for body in parse(path.read_bytes()).layers:
        if isinstance(body, (v3_layers.K210Conv, v4_ops.KpuConv2d)):
            assert list(check(body.registers)) == []


@real
@pytest.mark.parametrize(
    ("name", "missing"),
    [("v3/yolo20", 4), ("v3/iris", 4), ("v4/slim-320", 4), ("v3/mnist", 0), ("v4/yolo20", 0)],
)
def test_missing_final_padding_is_counted(name: str, missing: int) -> None:
    model = parse((FIXTURES / "kmodel" / f"{name}.kmodel").read_bytes())
    assert model.missing_padding == missing


@pytest.mark.parametrize("make", [samples.model_v3, samples.model_v4])
def test_trailing_bytes_and_a_base_offset_are_accepted(make: Any) -> None:
    data = write(make(5))
    model = parse(b"\xaa" * 13 + data + b"\xbb" * 21, base=13)
    assert model.trailing == 21
    assert model.size == len(data)
    assert write(model) == data


def test_blobs_in_odd_places_stay_there() -> None:
    rng = np.random.default_rng(4)
    conv = samples.conv_v3(rng, 1)
    plain = write(KmodelV3(layers=[conv], outputs=[], main_mem=8))
    conv.blob_offsets = (64, 4096, 2048, 1024)
    data = write(KmodelV3(layers=[conv], outputs=[], main_mem=8))
    assert data != plain
    back = parse(data)
    assert_equal_records(conv, back.layers[0])
    assert write(back) == data

    node = samples.conv_v4(rng)
    node.skips = (0, 3, 5)
    model = KmodelV4(nodes=[node], inputs=[], input_shapes=[], outputs=[], main_mem=8)
    again = parse(write(model))
    assert_equal_records(node, again.layers[0])
    assert write(again) == write(model)


@pytest.mark.parametrize("seed", range(6))
def test_blobs_are_aligned_in_the_file(seed: int) -> None:
    rng = np.random.default_rng(seed)
    convs = [samples.conv_v3(rng, 1) for _ in range(3)]
    data = write(KmodelV3(layers=list(convs), outputs=[], main_mem=8))
    for body in parse(data).layers:
        assert body.offset is not None
        words = np.frombuffer(data, "<u4", 6, body.offset)
        for offset, alignment in zip(words[2:], (8, 128, 128, 256), strict=True):
            assert offset % alignment == 0
    nodes = [samples.conv_v4(rng) for _ in range(3)]
    v4 = KmodelV4(nodes=list(nodes), inputs=[], input_shapes=[], outputs=[], main_mem=8)
    data = write(v4)
    for node, back in zip(nodes, parse(data).layers, strict=True):
        for blob in (node.bn.encode(), node.activation.encode(), node.weights.tobytes()):
            assert back.offset is not None
            start = next(
                i for i in range(-(-back.offset // 256) * 256, len(data), 256)
                if data.startswith(blob, i)
            )  # fmt: skip
            assert start % 256 == 0
