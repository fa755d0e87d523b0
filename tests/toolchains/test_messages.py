from __future__ import annotations

import pytest

from k210tasks.toolchains.messages import MEANINGS, explain, warnings

#: what each tool really prints, and the beginning of what we say of it
CASES = [
    (
        "Fatal: Invalid dataset, should contain one file at least",
        "it found no calibration sample; the images folder must hold at least one picture (png, "
        "jpg, bmp) or tensor",
    ),
    ("Fatal: Invalid dataset.", "it found no calibration sample"),
    (
        "Fatal: Invalid dataset, file size should be 602112B, but got 150528B",
        "a calibration tensor has 150528 bytes where the model's input has 602112; raw samples",
    ),
    (
        "Fatal: Unsupported image channels: 4",
        "the model's input has 4 channels; pictures have 1 or 3. Give tensors (.npy) instead",
    ),
    (
        "Channels number 2 is not supported by dataset provider.",
        "the model's input has 2 channels; pictures have 1 or 3",
    ),
    ("Fatal: Invalid tflite model", "it cannot read the .tflite; the model is quantised, or has"),
    (
        "Fatal: Not supported tflite opcode: SHAPE",
        "the operation SHAPE is unknown to this compiler",
    ),
    (
        "RuntimeError: Unsupported tflite opcode: CUMSUM",
        "the operation CUMSUM is unknown to this compiler; take it out of the model, or use "
        "another compiler:",
    ),
    (
        "Fatal: DepthwiseConv2d layer with depth_multiplier 2 is not supported",
        "the KPU computes one output channel per input channel in a depthwise convolution; the "
        "model has a depth_multiplier of 2, use 1",
    ),
    (
        "Fatal: KPU allocator cannot allocate more memory.",
        "one layer's input and output feature maps together exceed the 2 MiB of KPU memory",
    ),
    ("Fatal: KPU ran out of memory.", "one layer's input and output feature maps together exceed"),
    ("Fatal: Allocator has ran out of memory", "the feature maps that live at one time exceed"),
    (
        "Fatal: Layer Pad is not supported: Only paddings of [[0,0],[1,1],[1,1],[0,0]] is supporte",
        "the layer Pad pads in a way this compiler cannot take; use padding SAME with stride 1, or "
        "pad 1 on each side and convolve VALID with stride 2, or use another compiler:",
    ),
    ("Fatal: Layer Conv2d is not supported", "the layer Conv2d is unknown to this compiler"),
    ("Fatal: Layer 114 is not supported", "the layer 114 is unknown to this compiler"),
    ("Fatal: Nullable object must have a value.", "the model has a dimension without a size"),
    (
        "Fatal: Index was outside the bounds of the array.",
        "the model is quantised, or has one-dimensional convolutions; give the float model",
    ),
    (
        "Fatal: Value cannot be null. Parameter name: path1",
        "it was given an output path without a folder",
    ),
    ("Couldn't find a valid ICU package installed on the system.", "its .NET runtime misses ICU"),
    (
        "./ncc: error while loading shared libraries: libgomp.so.1: cannot open shared object",
        "this system lacks the library libgomp.so.1; install it",
    ),
    (
        "./ncc: /lib/libc.so.6: version `GLIBC_2.38' not found (required by ./ncc)",
        "the program needs a newer system library (GLIBC_2.38) than this system has",
    ),
    ("free(): invalid pointer", "nncase's own memory went wrong"),
    ("terminate called after throwing an instance of 'std::bad_alloc'", "the machine's memory is"),
    (
        "ValueError: Op type not registered 'MyOp' in binary running",
        "the model has the custom operation MyOp, which plain TensorFlow does not know",
    ),
    ("cannot start /x/ncc: Exec format error", "the program was built for another processor"),
]


@pytest.mark.parametrize(("line", "meaning"), CASES)
def test_meaning(line: str, meaning: str) -> None:
    printed = f"1. Import graph...\n{line}\n   at NnCase.Cli.Program.Main(String[] args)\n"
    assert explain(printed).startswith(f"{line}: {meaning}")


def test_every_meaning_can_be_said() -> None:
    """No placeholder of a text lacks its group in the pattern."""
    import re
    import string

    for meaning in MEANINGS:
        groups = set(re.compile(meaning.pattern).groupindex)
        used = {name for _, name, _, _ in string.Formatter().parse(meaning.text) if name}
        assert used <= groups, meaning


def test_unknown_message_is_passed_on() -> None:
    printed = "1. Import\nFatal: the moon is full\n   at NnCase.Program.Main()\n"
    assert explain(printed) == "Fatal: the moon is full"
    assert explain("one\ntwo\n   at X.Main()\n") == "two"
    assert explain("noise", "RuntimeError: compile failed") == "RuntimeError: compile failed"
    assert explain("") == ""


def test_carriage_returns_of_progress_bars() -> None:
    assert explain("[==>  ] 10%\r[====>] 90%\rFatal: KPU ran out of memory.\n").startswith(
        "Fatal: KPU ran out of memory.: one layer's input"
    )


def test_warnings() -> None:
    printed = (
        "WARN: conv_3 Fallback to float conv2d due to weights divergence.\nfine\n"
        "WARN: conv_3 Fallback to float conv2d due to weights divergence.\nWARNING: other\n"
    )
    assert warnings(printed) == [
        "conv_3 Fallback to float conv2d due to weights divergence. This layer runs on the CPU, "
        "many times slower: its weights spread too widely for 8 bits. Train with weight decay, or "
        "fold in the batch norm",
        "other",
    ]
    assert warnings("all well") == []
