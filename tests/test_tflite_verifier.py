"""What stands before the schema's classes and LiteRT: nothing follows an offset unlooked."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tflite

from k210tasks.compiler.problems import BadModel
from k210tasks.compiler.source import Source
from k210tasks.tflite_tables import TABLES
from k210tasks.tflite_verifier import DamagedTflite, verify
from tests.compiler.tflite_builder import Net

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"


def network() -> bytes:
    net = Net((1, 8, 8, 3))
    net.softmax(net.dense(net.reshape(net.conv(net.input, 4), (1, 256)), 3))
    return net.build()


_SIZES = {"Bool": 1, "Int8": 1, "Uint8": 1, "Int16": 2, "Uint16": 2, "Int32": 4, "Uint32": 4,
          "Float32": 4, "Int64": 8, "Uint64": 8}  # fmt: skip


def slots_of(source: str) -> dict[int, str]:
    """Slot -> what a class of the tflite package reads there, by its own source."""
    found = {}
    for name, body in re.findall(r"    def (\w+)\(self(?:, j)?\):\n((?:        .*\n)+)", source):
        at = re.search(r"_tab\.Offset\((\d+)\)", body)
        if at is None or name.endswith(("Length", "IsNone", "AsNumpy")):
            continue
        of = re.search(r"obj = (\w+)\(\)", body)
        flags = re.search(r"Get\(flatbuffers\.number_types\.(\w+)Flags", body)
        if "Union(" in body:
            kind = "<>"
        elif of:
            kind = of[1]
        elif flags:
            kind = str(_SIZES[flags[1]])
        else:
            kind = "string"
        found[(int(at[1]) - 4) // 2] = f"[{kind}]" if "_tab.Vector(" in body else kind
    return found


def test_the_tables_are_those_of_the_schema() -> None:
    """Of the tflite package, which flatc made from schema.fbs."""
    seen = 0
    for module in pkgutil.iter_modules(tflite.__path__):
        source = Path(tflite.__path__[0], f"{module.name}.py").read_text("utf-8")
        if "flatbuffers.table.Table(" not in source:
            continue
        seen += 1
        ours = TABLES.get(module.name, "").split()
        theirs = slots_of(source)
        assert max(theirs, default=-1) + 1 == len(ours), module.name
        for slot, kind in theirs.items():
            assert re.sub(r"<\w+>", "<>", ours[slot]) == kind, (module.name, slot)
    assert seen > 150
    for union in re.findall(r"<(\w+)>", " ".join(TABLES.values())):
        importlib.import_module(f"tflite.{union}")


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("[ct]*/*.tflite")), ids=lambda p: p.stem)
def test_real_files_pass(path: Path) -> None:
    verify(path.read_bytes())


def test_every_beginning_of_a_file_is_refused() -> None:
    whole = network()
    for size in range(len(whole)):
        with pytest.raises(DamagedTflite):
            verify(whole[:size])


def test_words_that_lead_nowhere_are_refused_or_harmless() -> None:
    """Every aligned word in turn becomes each absurd one; what passes can be read."""
    whole, refused = network(), 0
    for at in range(8, len(whole) - 4, 4):
        for word in (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, len(whole), 2):
            data = bytearray(whole)
            data[at : at + 4] = word.to_bytes(4, "little")
            try:
                verify(bytes(data))
            except DamagedTflite:
                refused += 1
                continue
            with suppress(BadModel):
                Source(bytes(data))
    assert refused > 500


def changed(change: Callable[[Net], None]) -> bytes:
    net = Net((1, 4, 4, 2))
    first = net.conv(net.input, 3)
    net.conv(first, 3)
    change(net)
    return net.build(*net.outputs)


def own_output(net: Net) -> None:
    name, inputs, outputs, options, fields, version = net.ops[1]
    net.ops[1] = (name, [outputs[0], *inputs[1:]], outputs, options, fields, version)


def written_twice(net: Net) -> None:
    name, inputs, _, options, fields, version = net.ops[1]
    net.ops[1] = (name, inputs, net.ops[0][2], options, fields, version)
    net.outputs = list(net.ops[0][2])


def input_written(net: Net) -> None:
    name, inputs, _, options, fields, version = net.ops[1]
    net.ops[1] = (name, inputs, [net.input], options, fields, version)
    net.outputs = list(net.ops[0][2])


def no_such_tensor(net: Net) -> None:
    name, inputs, outputs, options, fields, version = net.ops[1]
    net.ops[1] = (name, [*inputs[:-1], 99], outputs, options, fields, version)


def unwritten_output(net: Net) -> None:
    net.ops.pop()
    net.ops.append(("RELU", [net.input], [net.tensor((1, 4, 4, 2))], None, {}, 1))
    net.outputs = [net.tensor((1, 4))]


def short_constant(net: Net) -> None:
    net.tensors[net.ops[0][1][1]]["shape"] = [3, 3, 3, 4]


def infinite_scale(net: Net) -> None:
    net.tensors[net.input].update(scale=[np.inf], zero_point=[0])


def scales_beside_the_axis(net: Net) -> None:
    net.tensors[net.input].update(scale=[1.0, 1.0], zero_point=[0, 0], axis=7)


def many_dimensions(net: Net) -> None:
    net.tensors[net.input]["shape"] = [1] * 9


def negative_size(net: Net) -> None:
    net.tensors[net.input]["shape"] = [1, -5, 4, 2]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (own_output, "tensor 't6' is read by op #1 before it is written"),
        (written_twice, "tensor 't3' is written by op #1, but it is written already"),
        (input_written, "tensor 'input' is written by op #1, but it is an input or a constant"),
        (no_such_tensor, "it is damaged: op #1 names tensor 99, there are 7"),
        (unwritten_output, "output 't8' is written by no op"),
        (short_constant, "constant 't1' of shape [3, 3, 3, 4] has 216 bytes, not 432"),
        (infinite_scale, "tensor 'input' has scales that are below zero or not finite"),
        (
            scales_beside_the_axis,
            "tensor 'input' of shape [1, 4, 4, 2] has 2 scales along axis 7",
        ),
        (
            many_dimensions,
            "tensor 'input' has the shape [1, 1, 1, 1, 1, 1, 1, 1, …] of 9 dimensions",
        ),
        (negative_size, "tensor 'input' has the shape [1, -5, 4, 2]"),
    ],
)  # fmt: skip
def test_what_numbers_point_to(change: Callable[[Net], None], what: str) -> None:
    with pytest.raises(DamagedTflite) as raised:
        verify(changed(change))
    assert str(raised.value) == f"not a usable TensorFlow Lite model: {what}"


def test_a_table_named_often_is_looked_at_once() -> None:
    """Vectors that name one table in each of their places would take the square of the file."""
    whole = network()
    root = int.from_bytes(whole[:4], "little")
    layout = root - int.from_bytes(whole[root : root + 4], "little", signed=True)
    slot = layout + 4 + 2 * 1  # the operator codes
    field = root + int.from_bytes(whole[slot : slot + 2], "little")
    start = field + int.from_bytes(whole[field : field + 4], "little")
    code = start + 4 + int.from_bytes(whole[start + 4 : start + 8], "little")
    there = code - int.from_bytes(whole[code : code + 4], "little", signed=True)
    count = 200_000
    data = bytearray(whole) + bytes(-len(whole) % 4)
    at = len(data)
    data[field : field + 4] = (at - field).to_bytes(4, "little")
    last = at + 4 + 4 * count
    data += count.to_bytes(4, "little")
    for place in range(at + 4, last, 4):
        data += (last - place).to_bytes(4, "little")
    data += (last - there).to_bytes(4, "little") + whole[code + 4 : code + 64]
    began = time.process_time()
    verify(bytes(data))
    assert time.process_time() - began < 5  # the square of it would take hours
