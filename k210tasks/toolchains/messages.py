"""What vendors' messages mean, and what to do about them: a table, looked up by pattern."""

from __future__ import annotations

import re
from typing import NamedTuple


class Meaning(NamedTuple):
    pattern: str  # searched for in what the tool printed, line by line
    text: str  # ``{0}``: the whole line, ``{name}``: a named group of the pattern


_GIVE_FLOAT = (
    "the model is quantised, or has an operation the tool cannot read; give the float model, "
    "converted without optimisations"
)

#: the first that matches wins, so the specific stand before the general
MEANINGS: tuple[Meaning, ...] = (
    Meaning(
        r"Invalid dataset, file size should be (?P<wanted>\d+)\s*B, but got (?P<got>\d+)\s*B",
        "a calibration tensor has {got} bytes where the model's input has {wanted}; "
        "raw samples must be float32 of exactly the input's shape",
    ),
    Meaning(
        r"Invalid dataset",
        "it found no calibration sample; the images folder must hold at least one picture "
        "(png, jpg, bmp) or tensor",
    ),
    Meaning(
        r"Unsupported image channels: (?P<n>\d+)",
        "the model's input has {n} channels; pictures have 1 or 3. Give tensors (.npy) instead",
    ),
    Meaning(
        r"Channels number (?P<n>\d+) is not supported",
        "the model's input has {n} channels; pictures have 1 or 3. Give tensors (.npy) instead",
    ),
    Meaning(
        r"Invalid tflite model",
        "it cannot read the .tflite; " + _GIVE_FLOAT,
    ),
    Meaning(
        r"(?:Not supported|Unsupported) tflite opcode: (?P<op>\w+)",
        "the operation {op} is unknown to this compiler; take it out of the model, or use another "
        "compiler:",
    ),
    Meaning(
        r"DepthwiseConv2d .*with depth_multiplier (?P<n>\d+) is not supported",
        "the KPU computes one output channel per input channel in a depthwise convolution; the "
        "model has a depth_multiplier of {n}, use 1",
    ),
    Meaning(
        r"KPU allocator cannot allocate more memory|KPU ran out of memory",
        "one layer's input and output feature maps together exceed the 2 MiB of KPU memory, "
        "whatever main memory is left; make the input or the first layers smaller",
    ),
    Meaning(
        r"Allocator has ran out of memory",
        "the feature maps that live at one time exceed the memory there is (2 MiB for the KPU), "
        "or lie badly in it; make the input or the first layers smaller, or use another compiler:",
    ),
    Meaning(
        r"Layer (?P<layer>\S+) is not supported: Only paddings of",
        "the layer {layer} pads in a way this compiler cannot take; use padding SAME with stride "
        "1, or pad 1 on each side and convolve VALID with stride 2, or use another compiler:",
    ),
    Meaning(
        r"Layer (?P<layer>\S+) is not supported",
        "the layer {layer} is unknown to this compiler; take it out of the model, or use another "
        "compiler:",
    ),
    Meaning(
        r"Nullable object must have a value",
        "the model has a dimension without a size, or an operation newer than the tool; convert it "
        "with a fixed input shape",
    ),
    Meaning(
        r"Index was outside the bounds of the array",
        "the model is quantised, or has one-dimensional convolutions; give the float model and "
        "use two-dimensional ones",
    ),
    Meaning(
        r"Value cannot be null.*path1|Parameter '?path1",
        "it was given an output path without a folder",
    ),
    Meaning(
        r"Couldn't find a valid ICU package",
        "its .NET runtime misses ICU although it was told to do without "
        "(DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1)",
    ),
    Meaning(
        r"error while loading shared libraries: (?P<library>[^:]+)",
        "this system lacks the library {library}; install it",
    ),
    Meaning(
        r"cannot execute binary file|Exec format error",
        "the program was built for another processor",
    ),
    Meaning(
        r"version `(?P<v>GLIBC\w*_[\d.]+)' not found",
        "the program needs a newer system library ({v}) than this system has",
    ),
    Meaning(
        r"free\(\): invalid pointer|double free or corruption|munmap_chunk",
        "nncase's own memory went wrong, as happens when another native library shares its "
        "process; report it with the log",
    ),
    Meaning(
        r"std::bad_alloc|MemoryError|ResourceExhausted|OOM when allocating",
        "the machine's memory is exhausted; use fewer calibration samples",
    ),
    Meaning(
        r"(?:Op type not registered|Could not find custom op|Unknown layer:?) '?(?P<op>[\w:>]+)",
        "the model has the custom operation {op}, which plain TensorFlow does not know; replace "
        "it by ordinary ones before exporting",
    ),
    Meaning(
        r"(?:TF Select ops|Flex ops): (?P<op>[^\n]+)",
        "these operations have no TFLite counterpart: {op}; replace them before exporting",
    ),
    Meaning(
        r"some of the operators in the model are not supported by the standard",
        "the model has operations without a TFLite counterpart; the log names them",
    ),
    Meaning(
        r"Datatype mismatch|Shape mismatch",
        "the input has another type or shape than the kmodel's",
    ),
)

_NOISE = re.compile(r"^\s*(?:at |File \"|Traceback|\[\.\.|\d+(\.\d+)*\. |\|)")
_WARNING = re.compile(r"^\s*WARN(?:ING)?:\s*(.*?)\s*$", re.MULTILINE)


def explain(printed: str, message: str = "") -> str:
    """The vendor's own words, and after a colon what they mean, where that is known."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", message + "\n" + printed)]
    for meaning in MEANINGS:
        for line in lines:
            found = re.search(meaning.pattern, line)
            if found:
                return f"{line[:200]}: {meaning.text.format(line, **found.groupdict())}"
    return message.strip() or _last_words(lines)


def _last_words(lines: list[str]) -> str:
    """The line most likely to say why: a fatal one, else the last that is no stack frame."""
    for line in lines:
        if re.match(r"(Fatal|terminate called|RuntimeError|what\(\)):?\s", line):
            return line
    told = [line for line in lines if line and not _NOISE.match(line)]
    return told[-1][:200] if told else ""


def warnings(printed: str) -> list[str]:
    """What the tool warned of, each once, with what it means where that is known."""
    found = []
    for text in dict.fromkeys(_WARNING.findall(printed)):
        if "Fallback to float conv2d due to weights divergence" in text:
            text += (
                " This layer runs on the CPU, many times slower: its weights spread too widely "
                "for 8 bits. Train with weight decay, or fold in the batch norm"
            )
        found.append(text)
    return found
