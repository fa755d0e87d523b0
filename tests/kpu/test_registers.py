from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.kpu.errors import FieldOutOfRange, IllegalLayer
from k210tasks.kpu.pools import Pool
from k210tasks.kpu.registers import BIT_FIELDS, LayerRegisters, check, conv_registers

VALUES = st.fixed_dictionaries({f.name: st.integers(f.low, f.high) for f in BIT_FIELDS})


def test_fields_do_not_overlap_and_fill_no_reserved_bit_twice() -> None:
    taken: set[tuple[int, int]] = set()
    for field in BIT_FIELDS:
        bits = {(field.register, field.lsb + i) for i in range(field.width)}
        assert not bits & taken, field.name
        assert field.lsb + field.width <= 64
        taken |= bits
    assert {f.register for f in BIT_FIELDS} == set(range(12))


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_any_field_values_round_trip(values: dict[str, int]) -> None:
    registers = LayerRegisters(**values)
    data = registers.encode()
    assert len(data) == 96
    assert LayerRegisters.decode(data) == registers
    assert LayerRegisters.decode(data).encode() == data


def test_the_bits_of_one_layer() -> None:
    # 3x3, 3 -> 16 channels, 320x240, max 2x2: worked out from section 1.2 by hand
    registers = conv_registers(
        in_channels=3,
        height=240,
        width=320,
        out_channels=16,
        kernel=3,
        pool=Pool.MAX_2,
        src_row=1,
        dst_row=3600,
        pad_value=7,
        arg_x=-2,
        arg_w=-1,
        arg_add=-9,
    )
    words = [int.from_bytes(registers.encode()[8 * i : 8 * i + 8], "little") for i in range(12)]
    assert words[0] == 0
    assert words[1] == 1 | 3600 << 32
    assert words[2] == 2 | 15 << 32 | 15 << 48
    assert words[3] == 319 | 239 << 10 | 159 << 32 | 119 << 42
    assert words[4] == 1 | 1 << 4 | 1 << 10 | 15 << 16 | 7 << 24
    assert words[5] == 1 | (16 * 27) << 15
    assert words[7] == 5 * 240 | 5 << 16 | 1 << 28 | 1 << 31
    assert words[8] == 3 * 120 | 3 << 16 | 1 << 20
    assert words[9] == (1 << 24) - 1 << 8 | (1 << 24) - 2 << 32
    assert words[10] == (1 << 40) - 9
    assert words[11] == 160 * 120 - 1 << 16 | 160 * 120 * 16 - 1 << 32


@pytest.mark.parametrize(
    ("channels", "loads", "per"),
    [(64, 3, 27), (512, 22, 6)],
)
def test_weights_are_loaded_in_slices_of_30_kib(channels: int, loads: int, per: int) -> None:
    inner = {64: 126, 512: 512}[channels]  # 30720 / (9*126) = 27.09, 30720 / (9*512) = 6.67
    out = {64: 64, 512: 128}[channels]
    for weight_bytes in (1, 2):  # twice the bytes, the same channels
        r = conv_registers(
            in_channels=inner,
            height=4,
            width=4,
            out_channels=out,
            kernel=3,
            weight_bytes=weight_bytes,
        )
        assert r.o_ch_num_coef == per - 1
        assert r.load_time == loads - 1
        assert r.para_size == per * inner * 9 * weight_bytes


def test_more_than_64_loads_do_not_fit() -> None:
    with pytest.raises(FieldOutOfRange, match=r"load_time is 64; the register holds 0\.\.63"):
        conv_registers(in_channels=512, height=4, width=4, out_channels=385, kernel=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": 5}, "kernel is 5; allowed: 1 or 3"),
        ({"in_channels": 1025}, "in_channels is 1025; the register holds 1..1024"),
        ({"depthwise": True}, "out_channels is 2; allowed: 3, as a depthwise layer's input"),
        ({"width": 3, "pool": Pool.MAX_4}, "output size is 0x1; allowed: at least one pixel"),
        ({"pad_value": 256}, "pad_value is 256; the register holds 0..255"),
        ({"arg_x": 1 << 23}, "arg_x is 8388608; the register holds -8388608..8388607"),
        ({"width": 961}, "row_switch_addr is 16; the register holds 0..15"),
    ],
)
def test_what_no_register_holds_is_refused(changes: dict[str, int], message: str) -> None:
    facts = {"in_channels": 3, "height": 4, "width": 4, "out_channels": 2, "kernel": 1}
    with pytest.raises((IllegalLayer, FieldOutOfRange)) as error:
        conv_registers(**(facts | changes))  # type: ignore[arg-type]
    assert message in str(error.value)


LAYERS: st.SearchStrategy[Any] = st.builds(
    dict,
    in_channels=st.integers(1, 64),
    height=st.integers(4, 64),
    width=st.integers(4, 128),
    kernel=st.sampled_from([1, 3]),
    depthwise=st.booleans(),
    pool=st.sampled_from(Pool),
    out_channels=st.integers(1, 64),
)


@settings(max_examples=60, deadline=None)
@given(LAYERS)
def test_layers_built_from_their_geometry_are_sound(facts: dict) -> None:  # type: ignore[type-arg]
    if facts["depthwise"]:
        facts["out_channels"], facts["pool"] = facts["in_channels"], Pool.BYPASS
    r = conv_registers(**facts)
    if r.rows_in + r.rows_out > 32768:
        return
    r = replace(r, image_dst_addr=r.rows_in)
    assert list(check(r)) == []
    assert r.in_shape == (facts["in_channels"], facts["height"], facts["width"])


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("kernel_type", 2, "0 (1x1) or 1 (3x3)"),
        ("pool_type", 10, "0..9"),
        ("o_row_wid", 5, "7"),
        ("channel_switch_addr", 9, "8"),
        ("coef_group", 1, "4"),
        ("wb_group", 2, "4"),
        ("channel_byte_num", 0, "63"),
        ("para_size", 1, "12"),
        ("bypass_conv", 1, "0"),
        ("load_para", 0, "1"),
        ("image_src_addr", 32761, "at most 32760: the map has 8 rows"),
        ("image_dst_addr", 7, "a map of 8 rows outside the input's rows 0..7"),
    ],
)
def test_check_names_what_contradicts_the_geometry(field: str, value: int, expected: str) -> None:
    r = conv_registers(in_channels=3, height=8, width=8, out_channels=4, kernel=1, dst_row=100)
    found = {d.field: d for d in check(replace(r, **{field: value}))}
    assert found[field].value == value
    assert found[field].expected == expected


def test_a_pooled_depthwise_layer_is_none() -> None:
    r = conv_registers(
        in_channels=4,
        height=8,
        width=8,
        out_channels=4,
        kernel=3,
        depthwise=True,
        pool=Pool.MAX_2,
        dst_row=100,
    )
    assert [d.expected for d in check(r)] == ["0: a depthwise layer has no pool"]
