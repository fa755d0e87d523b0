"""What a compiler made, whichever it was: the facts that layers.json and contract.json keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k210tasks.engine.job import Job, StepFailed
from k210tasks.firmware.contract import Input, Output
from k210tasks.kmodel import KmodelError, detect
from k210tasks.samples.preprocess import Preprocess
from k210tasks.steps.jsontext import pretty
from k210tasks.steps.measure import PLANAR_OUTPUTS
from k210tasks.steps.signature import Port, Signature

#: Form of layers.json; a reader refuses what it does not know.
FORMAT = 1


class WrongKmodel(StepFailed):
    """A compiler reported success and left something else."""

    def __init__(self, compiler: str, wanted: int, found: str, log: Path) -> None:
        super().__init__(
            f"{compiler} reported success but wrote no kmodel {wanted}: {found}; "
            f"full log: {log.as_posix()}"
        )


@dataclass(frozen=True, slots=True)
class Made:
    """``layers``: one row a layer, of JSON values, empty where the format does not tell.
    ``kpu_bytes``, ``main_bytes``: memory a run takes, None where the format does not tell.
    ``listing``: for people, without the memory lines.
    """

    input: Input
    outputs: tuple[Output, ...]
    layers: list[dict[str, Any]] = field(default_factory=list)
    listing: str = ""
    kpu_bytes: int | None = None
    main_bytes: int | None = None
    warnings: tuple[str, ...] = ()


def read_kmodel(job: Job) -> bytes:
    """The file a compiler left, proven to be a kmodel of the version wanted of it."""
    compiler, wanted = job.settings["compiler"], job.settings["kmodel"]
    try:
        data = job.outputs["kmodel"].read_bytes()
    except FileNotFoundError:
        raise WrongKmodel(compiler, wanted, "the file is missing", job.log_path) from None
    try:
        found = detect(data)
    except KmodelError as error:
        raise WrongKmodel(compiler, wanted, str(error), job.log_path) from None
    if found.version != wanted:
        raise WrongKmodel(compiler, wanted, f"it is version {found.version}", job.log_path)
    return data


def model_input(signature: Signature, preprocess: Preprocess, *, pixels: bool) -> Input:
    """The contract's input: raw pixels, or the float model's own numbers."""
    port = signature.input
    channels_last = len(port.shape) == 4
    shape = without_batch(port, planar=True)
    if len(port.shape) == 3 and pixels:
        shape, channels_last = (1, *shape), True  # grey without an axis for it
    mean, std = preprocess.effective_mean, preprocess.effective_std
    color = preprocess.color
    if channels_last and color is None and shape[0] in (1, 3):
        color = "gray" if shape[0] == 1 else "rgb"
    return Input(
        shape=shape,
        layout="planar" if channels_last else "flat",
        dtype="uint8" if pixels else "float32",
        mean=mean,
        std=std,
        stated=preprocess.stated,
        scale=1 / (255 * std) if pixels else None,
        zero_point=255 * mean if pixels else None,
        color=color if channels_last else None,
        name=port.name,
    )


def model_outputs(signature: Signature, kmodel: int) -> tuple[Output, ...]:
    """The contract's outputs: float32, under the names the float model has for them."""
    planar = kmodel in PLANAR_OUTPUTS
    return tuple(Output(p.name, without_batch(p, planar=planar)) for p in signature.outputs)


def without_batch(port: Port, *, planar: bool) -> tuple[int, ...]:
    """A port's shape as a runtime has it: no batch; channels first where ``planar``."""
    shape = port.shape[1:] if len(port.shape) > 1 else port.shape
    if planar and len(shape) == 3:
        return (shape[2], shape[0], shape[1])
    return shape or (1,)


def layers_json(made: Made, compiler: str, kmodel: int, nbytes: int) -> str:
    """The text of layers.json."""
    return pretty(
        {
            "format": FORMAT,
            "compiler": compiler,
            "kmodel": kmodel,
            "bytes": nbytes,
            "kpu_bytes": made.kpu_bytes,
            "main_bytes": made.main_bytes,
            "warnings": list(made.warnings),
            "layers": made.layers,
        }
    )


def memory_lines(made: Made, kmodel: int) -> list[str]:
    """``KPU memory usage: N B`` and ``Main memory usage: N B``, or that the format is silent."""
    facts: Sequence[tuple[str, int | None]] = (
        ("KPU memory usage", made.kpu_bytes),
        ("Main memory usage", made.main_bytes),
    )
    return [
        f"{what}: {n} B" if n is not None else f"{what}: not told by kmodel {kmodel}"
        for what, n in facts
    ]


def output_of(fields: Mapping[str, Any]) -> Output:
    """An output as the built-in compiler describes it."""
    return Output(
        name=fields["name"],
        shape=tuple(fields["shape"]),
        dtype=fields.get("dtype", "float32"),
        scale=fields.get("scale"),
        zero_point=fields.get("zero_point"),
    )
