"""The keys of models.yaml, as pydantic models: what each means and may hold.

This is the only list of keys: validation, the JSON Schema for editors and the
documentation come from it. What several keys say together is judged in ``rules``.
Imported only when a models.yaml has changed.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field

from k210tasks.heads import declared as heads
from k210tasks.heads.declared import MIN_F1, TYPES
from k210tasks.manifest import kinds, model
from k210tasks.manifest.compilers import COMPILERS
from k210tasks.profiles import PROFILES, SRAM_BYTES
from k210tasks.samples import preprocess

#: The default of every key: not written by the user. Explicit nulls are refused instead.
_UNSET: Any = None

#: Toolchains that may be overridden: the vendor compilers, and what reads graphs. The
#: environments come from a package index, the archives from an address.
ENVIRONMENTS = ("nncase-1.9.0", "tensorflow")
ARCHIVES = ("ncc-0.1.0-rc5", "ncc-0.2.0-beta4")


def _key(description: str, default: str = "") -> Any:
    """An optional key; ``default`` is what its absence means, in words."""
    extra: kinds.JsonSchema = {"x-default": default} if default else {}
    return Field(_UNSET, description=description, json_schema_extra=extra)


def _default(kind: type, name: str) -> str:
    """The default of a field of the manifest, in words."""
    value = next(field.default for field in fields(kind) if field.name == name)
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Map(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Preprocess(_Map):
    """How a picture becomes the numbers a model is fed: `(pixel / 255 - mean) / std`."""

    color: Annotated[str, kinds.choice("rgb", "bgr", "gray")] = _key(
        "Order of the channels a picture is fed in.", "gray for one input channel, rgb for three"
    )
    mean: Annotated[preprocess.PerChannel, kinds.per_channel(kinds.number())] = _key(
        "Subtracted from a pixel scaled to 0..1: one number for all channels, or one a channel "
        "in the order of `color`.",
        "0, with a warning: a wrong pair of mean and std is the commonest fault",
    )
    std: Annotated[preprocess.PerChannel, kinds.per_channel(kinds.number(above_zero=True))] = _key(
        "Divides afterwards: one number, or one a channel.", "1, with a warning"
    )
    resize: Annotated[str, kinds.choice("stretch", "exact")] = _key(
        "What happens to a picture of another size than the model's input: scaled, or refused.",
        _default(preprocess.Preprocess, "resize"),
    )


class Calibrate(_Map):
    """How the ranges of the tensors are found."""

    method: Annotated[str, kinds.choice("minmax", "percentile", "mse", "kl")] = _key(
        "How a range is chosen from the values seen; not every compiler has every method.",
        _default(model.Calibrate, "method"),
    )
    samples: Annotated[int, kinds.whole(1, 1_000_000)] = _key(
        "How many samples are used, evenly spaced over the sorted list of the folder, and over "
        "those within an .npy; "
        "the others do not count.",
        _default(model.Calibrate, "samples"),
    )


class Verify(_Map):
    """How the kmodel is proved against the float model."""

    images: Annotated[
        str, kinds.path("a folder of pictures or tensors, or one .npy of tensors")
    ] = _key(
        "Samples the model was not calibrated with. In one sub-folder per class they also tell "
        "the accuracy.",
        "the calibration samples, labelled not held out",
    )
    min_cosine: Annotated[float, kinds.number(0, 1)] = _key(
        "The least mean cosine similarity of the worst output; of a model with a head judged only "
        "where it is written.",
        _default(model.Verify, "min_cosine"),
    )
    min_top1: Annotated[float, kinds.number(0, 1)] = _key(
        "The least share of samples where float model and kmodel name the same class.",
        "not judged",
    )
    min_f1: Annotated[float, kinds.number(0, 1)] = _key(
        "Detectors: the least F1 of the kmodel's boxes against the float model's, of those that "
        "overlap by half.",
        f"{MIN_F1} where a head is given",
    )
    max_map_loss: Annotated[float, kinds.number(0, 1)] = _key(
        "Detectors with drawn boxes beside the pictures: how much less mAP50-95 of the kmodel may "
        "be than the float model's.",
        "not judged",
    )


class Head(_Map):
    """What the outputs of a detector mean. Every type takes `score` and `nms`."""

    type: Annotated[str, kinds.choice(*TYPES)] = _key("Whose numbers they are.")
    anchors: Annotated[tuple[tuple[float, ...], ...], kinds.lists(above_zero=True, pairs=True)] = (
        _key(
            "yolo2, yolo3, yolo5: width and height of each anchor in turn, in cells of the map "
            "(yolo2) or pixels of the input; with several outputs a list for each."
        )
    )
    strides: Annotated[tuple[int, ...], kinds.wholes(1, 1024)] = _key(
        "ssd, yunet: pixels of the input a cell of each map stands for.", "yunet: [8, 16, 32]"
    )
    min_sizes: Annotated[tuple[tuple[float, ...], ...], kinds.lists(above_zero=True)] = _key(
        "ssd: the sides of its square anchors in pixels, a list for each stride."
    )
    spread: Annotated[bool, kinds.flag()] = _key(
        "ssd: cells share the input evenly, where others are a stride wide.",
        _default(heads.Head, "spread"),
    )
    clip: Annotated[bool, kinds.flag()] = _key(
        "ssd: no anchor is larger than the input.", _default(heads.Head, "clip")
    )
    variances: Annotated[tuple[float, ...], kinds.numbers(2)] = _key(
        "ssd: what offsets of centers and of sizes are multiplied by.", "[0.1, 0.2]"
    )
    order: Annotated[tuple[str, ...], kinds.texts(kinds.listed(get_args(heads.Part)))] = _key(
        "ssd, centers: what each output holds, in their order: boxes, scores, points (ssd); "
        "scores, sizes, offsets (centers).",
        "centers: [scores]",
    )
    scores: Annotated[str, kinds.choice(*get_args(heads.Scores))] = _key(
        "ssd: the curve that makes scores of the numbers of classes.",
        _default(heads.Head, "scores"),
    )
    background: Annotated[bool, kinds.flag()] = _key(
        "ssd, centers: whether the first class is nothing.", "ssd: true, centers: false"
    )
    bins: Annotated[int, kinds.whole(1, 256)] = _key(
        "yolo8: numbers a side of a box.", _default(heads.Head, "bins")
    )
    score: Annotated[float, kinds.number(0, 1)] = _key(
        "Boxes of a lower score do not count.", _default(heads.Head, "score")
    )
    nms: Annotated[float, kinds.number(0, 1)] = _key(
        "Of two boxes of a class that overlap by more the worse goes.",
        _default(heads.Head, "nms"),
    )


_TASKS = "names of tasks of your dodo.py"


class Defaults(_Map):
    """What every model starts from. Maps are merged one level deep."""

    firmware: Annotated[str, kinds.choice(*PROFILES)] = _key(
        "What the board runs; decides which kmodel versions load.", model.DEFAULT_PROFILE
    )
    compiler: Annotated[str, kinds.choice(*COMPILERS)] = _key(
        "Who turns the .tflite into a .kmodel.", model.DEFAULT_COMPILER
    )
    kmodel: Annotated[int, kinds.choice(3, 4, 5)] = _key(
        "Version of the file. The built-in compiler writes 3 or 4, any other its own.",
        "3 where the firmware loads it, else 4",
    )
    images: Annotated[
        str, kinds.path("a folder of pictures or tensors, or one .npy of tensors")
    ] = _key(
        "Calibration samples: pictures, or tensors as .npy or raw float32 .bin; one .npy may hold "
        "them all."
    )
    preprocess: Preprocess = _key("How a picture becomes the model's input.")
    calibrate: Calibrate = _key("How the ranges of the tensors are found.")
    verify: Annotated[Verify, kinds.OrOff()] = _key(
        "How the kmodel is proved against the float model; off: not at all, with a warning."
    )
    labels: Annotated[tuple[str, ...], kinds.texts("names, one per class")] = _key(
        "Names of the classes, in the order of the output.",
        "the sorted names of the class folders of verify.images",
    )
    optional: Annotated[bool, kinds.flag()] = _key(
        "Skip the model, saying why, where its toolchain cannot be had.",
        _default(model.Model, "optional"),
    )
    made_by: Annotated[tuple[str, ...], kinds.texts(_TASKS)] = _key(
        "Tasks of yours that make the source or the samples; whether these exist is then looked "
        "at when the step runs."
    )
    effort: Annotated[str, kinds.choice("fast", "normal", "high")] = _key(
        "Built-in compiler: how long it may search for better numbers.",
        _default(model.Model, "effort"),
    )
    weights: Annotated[int, kinds.choice(8, 16)] = _key(
        "Built-in compiler: bits of a weight; 16 needs kmodel 3.", _default(model.Model, "weights")
    )
    opcodes: Annotated[str, kinds.choice("beta1", "beta4")] = _key(
        "Built-in compiler, kmodel 4: the newest nncase 0.2 whose opcodes may appear. "
        "beta4 adds byte tables for functions beside the KPU; MaixPy's runtime knows those of "
        "beta1.",
        _default(model.Model, "opcodes"),
    )
    small_maps: Annotated[str, kinds.choice("padded", "kpu")] = _key(
        "Built-in compiler: what becomes of maps below 4x4, of which it is not known whether the "
        "KPU writes them right. padded computes them as part of larger ones; kpu lets KPU layers "
        "put them out.",
        _default(model.Model, "small_maps"),
    )
    input: Annotated[str, kinds.choice("uint8", "float")] = _key(
        "Built-in compiler: what the firmware feeds the kmodel.",
        "uint8 for pictures; for tensors what the kmodel allows",
    )
    sram_free: Annotated[int, kinds.whole(1, SRAM_BYTES, "bytes")] = _key(
        "Bytes of memory your firmware leaves for the model and its working memory.",
        "what is known of the firmware",
    )
    anchors: Annotated[tuple[float, ...], kinds.anchors()] = _key(
        "Anchors of a YOLO detector, put into the load snippet.", "those of a yolo2 head"
    )
    head: Head = _key("What the outputs of a detector mean; it is then verified by its boxes.")


class Model(Defaults):
    """One model."""

    source: Annotated[
        str, kinds.path(".pb, .pbtxt, .keras, .h5, .tflite, .onnx or a SavedModel folder")
    ] = Field(
        description="The trained model: .pb, .pbtxt, .keras, .h5, .tflite, .onnx, or a SavedModel."
    )
    inputs: dict[str, Annotated[tuple[int, ...], kinds.shape()]] = _key(
        "Name and shape of the input, batch first and in the order of the file: for a graph, and "
        "for an .onnx that leaves sizes open. Not for a .tflite.",
        "inferred where there is no choice",
    )
    outputs: Annotated[tuple[str, ...], kinds.texts("names of tensors of the graph")] = _key(
        "Names of the graph's outputs. Not for a .tflite or .onnx.",
        "inferred where there is no choice",
    )


class Part(_Map):
    """One part of a firmware image: a binary or a model."""

    bin: Annotated[str, kinds.path("a binary file")] = _key("A file, written as it is.")
    model: Annotated[str, kinds.text("the name of a model")] = _key("A model of this file.")
    address: Annotated[int, kinds.whole(0, 2**32 - 1, "a flash address")] = _key(
        "Where it goes in flash; 0x300000 is fine.",
        "the next free 64 KiB from the firmware's own base",
    )
    sha256_prefix: Annotated[bool, kinds.flag()] = _key(
        "Wrap a binary as the boot loader wants its program.", "true at address 0 only"
    )
    made_by: Annotated[tuple[str, ...], kinds.texts(_TASKS)] = _key(
        "Tasks of yours that make the binary."
    )


class Firmware(_Map):
    """One firmware image, a .kfpkg."""

    profile: Annotated[str, kinds.choice(*PROFILES)] = _key(
        "What the board runs.", f"firmware of defaults, else {model.DEFAULT_PROFILE}"
    )
    parts: list[Part] = Field(description="What goes into the image.")


def _no_hash(text: str) -> str | None:
    return None if re.fullmatch("[0-9a-fA-F]{64}", text) else "is not a SHA-256 sum"


def _no_url(text: str) -> str | None:
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme.lower() not in ("http", "https", "file"):
        return "is not an address of a kind that can be fetched"
    rest = text.partition("://")[2]
    if not rest or (scheme.lower() == "file" and not rest.startswith("/")):
        return "names no file" if not rest else "has no absolute path: file:///path/to/file"
    return None


class Toolchain(_Map):
    """Another place, hash or interpreter for a toolchain."""

    url: Annotated[
        str,
        kinds.matching("http://, https:// or file:///", _no_url, {"pattern": "^(https?|file)://"}),
    ] = _key("Where the archive is fetched from; for an environment, a package index.")
    sha256: Annotated[
        str,
        kinds.matching("64 hexadecimal digits", _no_hash, {"pattern": "^[0-9a-fA-F]{64}$"}),
    ] = _key("The archive's SHA-256.", "the one recorded in k210.lock at the first download")
    python: Annotated[str, kinds.text("the path or name of a Python interpreter")] = _key(
        "The interpreter its environment is made with.", "the first suitable one found"
    )


class File(_Map):
    """A models.yaml."""

    defaults: Defaults = _key("Merged into each model; not source, inputs, outputs.")
    models: dict[str, Model] = _key("The models, by name.")
    firmware: dict[str, Firmware] = _key("Firmware images, by name.")
    toolchains: dict[str, Toolchain] = _key(
        f"Other places or interpreters for {kinds.listed((*ENVIRONMENTS, *ARCHIVES))}."
    )
