from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from k210tasks.kmodel import KmodelError, detect, parse, v3_layers, v4_ops, write
from k210tasks.kmodel.codec import MAIN, MemoryRange
from k210tasks.kmodel.nnil import CODES, Instruction, decode, encode
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4
from tests.kmodel import samples


def v3_file() -> bytes:
    body = v3_layers.Dequantize(in_mem=0, out_mem=8, count=2, scale=1.0, bias=0.0)
    return write(KmodelV3(layers=[body], outputs=[v3_layers.Output(8, 8)], main_mem=16))


def v4_file() -> bytes:
    memory = MemoryRange(MAIN, 0, 0, 8)
    node = v4_ops.Unary(input=memory, out=memory, op=0)
    return write(
        KmodelV4(
            nodes=[node],
            inputs=[memory],
            input_shapes=[samples.Shape(1, 1, 1, 2)],
            outputs=[memory],
            main_mem=8,
        )
    )


def patched(data: bytes, offset: int, value: int) -> bytes:
    return data[:offset] + struct.pack("<I", value) + data[offset + 4 :]


CASES: list[tuple[Any, str]] = [
    (lambda: b"", "byte 0 (0x0), header: needs 8 bytes, 0 are left; the file is cut short"),
    (lambda: b"\x03\0\0\0", "byte 0 (0x0), header: needs 8 bytes, 4 are left"),
    (lambda: bytes(8), "byte 0 (0x0), identifier: 0x00000000 begins no kmodel "
     "(version 3 begins with 3, later ones with LDMK)"),
    (lambda: v3_file()[:20], "byte 4 (0x4), header: needs 24 bytes, 16 are left"),
    (lambda: patched(v3_file(), 8, 7), "byte 8 (0x8), arch: 7; only 0 exists"),
    (lambda: patched(v3_file(), 12, 2049),
     "byte 12 (0xc), layers_length: 2049 layers; at most 2048 are accepted"),
    (lambda: patched(v3_file(), 24, 257),
     "byte 24 (0x18), output_count: 257 outputs; at most 256 are accepted"),
    (lambda: patched(v3_file(), 36, 99), "byte 36 (0x24), layer 0: type: 99; no such layer type"),
    (lambda: patched(v3_file(), 36, 3),
     "byte 36 (0x24), layer 0: type: 3 (GlobalMaxPool) is reserved; no such layer type"),
    (lambda: patched(v3_file(), 40, 200),
     "byte 44 (0x2c), layer 0 (Dequantize): body: needs 200 bytes, 28 are left"),
    (lambda: patched(v3_file(), 40, 12),
     "byte 56 (0x38), layer 0 (Dequantize): count: needs 4 bytes, 0 are left"),
    (lambda: patched(v4_file(), 12, 5), "byte 12 (0xc), target: 5; 0 (CPU) and 1 (K210) exist"),
    (lambda: patched(v4_file(), 16, 1 << 31),
     "byte 88 (0x58), constants: needs 2147483648 bytes, "),
    (lambda: patched(v4_file(), 24, 1 << 20),
     "byte 24 (0x18), nodes: 1048576 nodes; at most 2048 are accepted"),
    (lambda: patched(v4_file(), 28, 300),
     "byte 28 (0x1c), inputs: 300 inputs; at most 256 are accepted"),
    (lambda: patched(v4_file(), 88, 0x15), "byte 88 (0x58), node 0: opcode: 0x15 does not exist"),
    (lambda: v4_file()[:-12], "node 0 (unary): body: needs 40 bytes, 28 are left"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), CASES)
def test_damage_is_named_with_offset_and_field(make: Any, message: str) -> None:
    with pytest.raises(KmodelError) as error:
        parse(make())
    assert message in str(error.value)
    assert error.value.offset is not None


def test_a_blob_outside_its_body() -> None:
    conv = samples.conv_v3(np.random.default_rng(0), 1)
    data = write(KmodelV3(layers=[conv], outputs=[], main_mem=8))
    with pytest.raises(KmodelError) as error:
        parse(patched(data, 36 + 12, 0xFFFFFFF0))
    assert error.value.offset == 48
    assert "layer 0 (K210Conv2d): weights_off: 4294967280, with " in str(error.value)


def test_a_kernel_type_no_kpu_has() -> None:
    node = samples.conv_v4(np.random.default_rng(0))
    data = write(KmodelV4(nodes=[node], inputs=[], input_shapes=[], outputs=[], main_mem=8))
    at = 48 + 24 + 32
    with pytest.raises(KmodelError, match=r"kernel_type is 7; allowed: 0 \(1x1\) or 1 \(3x3\)"):
        parse(data[:at] + bytes([data[at] | 7]) + data[at + 1 :])


@pytest.mark.parametrize(
    ("version", "producer"),
    [(5, "nncase 1.x"), (6, "nncase 2.0"), (7, "nncase 2.1 or later"), (9, "a later nncase")],
)
def test_later_versions_are_told_and_not_read(version: int, producer: str) -> None:
    data = b"LDMK" + struct.pack("<I", version) + bytes(64)
    assert detect(data) == (version, producer)
    assert not detect(data).readable
    with pytest.raises(KmodelError) as error:
        parse(data)
    assert str(error.value) == (
        f"byte 4 (0x4), version: {version}, written by {producer}; "
        "only versions 3 and 4 can be read here"
    )


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\x1c\0\0\0TFL3", "a TFLite model"),
        (b"PK\x03\x04" + bytes(8), "a zip file, such as a kfpkg"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(8), "a JPEG picture"),
        (b"\x93NUMPY\x01\0", "a numpy array"),
    ],
)
def test_other_files_are_told_by_name(head: bytes, what: str) -> None:
    with pytest.raises(KmodelError, match=f"this is {what}, not a kmodel"):
        parse(head)


def test_the_version_of_real_kinds() -> None:
    assert detect(v3_file()) == (3, "nncase 0.1")
    assert detect(v4_file()) == (4, "nncase 0.2")
    assert detect(b"junk" + v4_file(), base=4).version == 4
    with pytest.raises(KmodelError, match="base offset: outside the file's 8 bytes"):
        parse(bytes(8), base=9)


def test_writing_what_does_not_fit() -> None:
    big = v3_layers.Dequantize(in_mem=-1, out_mem=8, count=2, scale=1.0, bias=0.0)
    with pytest.raises(KmodelError, match=r"layer 0 \(Dequantize\): in_mem: -1 does not fit"):
        write(KmodelV3(layers=[big], outputs=[], main_mem=16))
    dense = v3_layers.FullyConnected(
        in_mem=0,
        out_mem=0,
        in_ch=2,
        out_ch=3,
        act=0,
        weights=np.zeros((2, 3), np.float32),
        bias=np.zeros(4, np.float32),
    )
    with pytest.raises(KmodelError, match=r"bias: shape \(4,\); \(3,\) is needed"):
        write(KmodelV3(layers=[dense], outputs=[], main_mem=16))
    conv = samples.conv_v3(np.random.default_rng(0), 2)
    with pytest.raises(KmodelError, match=r"weights: values \d+\.\.\d+ do not fit uint8"):
        write(KmodelV3(layers=[conv], outputs=[], main_mem=16))
    conv.weights = conv.weights / 2
    with pytest.raises(KmodelError, match="weights: elements of type float64; uint8 is needed"):
        write(KmodelV3(layers=[conv], outputs=[], main_mem=16))
    with pytest.raises(KmodelError, match="input_shapes: 0 shapes for 1 inputs"):
        write(
            KmodelV4(
                nodes=[],
                inputs=[MemoryRange(1, 0, 0, 8)],
                input_shapes=[],
                outputs=[],
                main_mem=8,
            )
        )


def code(*names: str) -> bytes:
    return bytes(CODES[name] for name in names)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"", "byte 100 (0x64), code: the program ends without a return"),
        (code("push_x"), "byte 101 (0x65), code: the program ends without a return"),
        (b"\x99", "code: 0x99 is no instruction"),
        (code("add"), "code: add needs 2 values, the stack holds 0"),
        (code("push_x", "add"), "byte 101 (0x65), code: add needs 2 values, the stack holds 1"),
        (code("push") + b"\0\0", "code: the program ends inside a literal"),
        (code(*["push_x"] * 65), "code: the stack exceeds 64 values"),
        (code(*["nop"] * 5000), "code: more than 4096 instructions"),
    ],
)
def test_nnil_programs_that_cannot_run(program: bytes, message: str) -> None:
    with pytest.raises(KmodelError) as error:
        decode(program, 100, "code")
    assert message in str(error.value)


def test_nnil_round_trips_and_stops_at_the_return() -> None:
    program = [
        Instruction("push_x"),
        Instruction("push", 2.5),
        Instruction("mul"),
        Instruction("ret"),
    ]
    assert decode(encode(program) + b"\xff\xff", None, "code") == program
