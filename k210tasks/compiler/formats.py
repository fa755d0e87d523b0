"""Which format the bytes of a model have; nothing heavy is imported here."""

from __future__ import annotations


def is_onnx(data: bytes) -> bool:
    """Whether bytes are those of an ONNX model, if they are a model at all: protobuf begins with
    the field of the version, FlatBuffers have a name at the fourth byte."""
    return data[:1] == b"\x08" and data[4:8] != b"TFL3"
