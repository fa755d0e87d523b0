"""The classes of the tflite package one by one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from k210tasks import tflite_schema
from tests.compiler.tflite_builder import Net


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_only_what_is_used_is_imported(tmp_path):
    net = Net((1, 8, 8, 3))
    net.softmax(net.dense(net.reshape(net.conv(net.input, 4), (1, 256)), 3))
    path = tmp_path / "m.tflite"
    path.write_bytes(net.build())
    code = f"""
import sys
from k210tasks.compiler.source import Source
Source(open({str(path)!r}, "rb").read())
print(sum(n.startswith("tflite.") for n in sys.modules), "tflite" in sys.modules)
"""
    count, whole = run(code).split()
    assert int(count) < 30
    assert whole == "False"


def test_the_package_is_whole_for_whoever_imports_it() -> None:
    code = """
from k210tasks import tflite_schema
model, padding = tflite_schema.Model, tflite_schema.Padding
import tflite
print(tflite.Model is model, tflite.Padding is padding, tflite.WhileOptions.__name__)
"""
    assert run(code) == "True True WhileOptions"


def test_names_that_are_none_are_none() -> None:
    with pytest.raises(AttributeError, match="tflite has no NoSuchTable"):
        tflite_schema.NoSuchTable  # noqa: B018


def test_members_of_an_enumeration() -> None:
    assert tflite_schema.members("Padding") == {0: "SAME", 1: "VALID"}
