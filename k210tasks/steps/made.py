"""What a compiler made, whichever it was: the facts that layers.json and contract.json keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from k210tasks.compiler.options import CompiledLayer
from k210tasks.engine.job import Job, StepFailed
from k210tasks.firmware.contract import Dtype, Input, Layout, Output
from k210tasks.kmodel import KmodelError, detect
from k210tasks.kmodel.listing import LayerRow
from k210tasks.samples.folder import Kind
from k210tasks.samples.loading import picture_shape
from k210tasks.samples.preprocess import Preprocess
from k210tasks.steps.measure import PLANAR_OUTPUTS
from k210tasks.steps.settings import KmodelSettings
from k210tasks.steps.signature import Port, Signature


class WrongKmodel(StepFailed):
    """A compiler reported success and left something else."""

    def __init__(self, compiler: str, wanted: int, found: str, log: Path) -> None:
        super().__init__(
            f"{compiler} reported success but wrote no kmodel {wanted}: {found}; "
            f"full log: {log.as_posix()}"
        )


@dataclass(frozen=True, slots=True)
class Made:
    """``layers``: one row a layer, empty where the format does not tell.
    ``kpu_bytes``, ``main_bytes``: memory a run takes, None where the format does not tell.
    ``listing``: for people, without the memory lines.
    """

    input: Input
    outputs: tuple[Output, ...]
    layers: tuple[CompiledLayer | LayerRow, ...] = ()
    listing: str = ""
    kpu_bytes: int | None = None
    main_bytes: int | None = None
    warnings: tuple[str, ...] = ()


def read_kmodel(job: Job) -> bytes:
    """The file a compiler left, proven to be a kmodel of the version wanted of it."""
    asked = job.told(KmodelSettings)
    compiler, wanted = asked.compiler, asked.kmodel
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


def model_input(signature: Signature, preprocess: Preprocess, *, kind: Kind, dtype: Dtype) -> Input:
    """The contract's input: raw pixels or the floats they mean, where the model is fed with
    pictures, else the tensor's own numbers or their codes, whose scale only the compiler knows.
    """
    port = signature.input
    model_shape = without_batch(port, planar=False)
    shape, planar = without_batch(port, planar=True), len(port.shape) == 4
    if kind == "tensors":
        layout: Layout = "planar" if planar else "flat"
        return Input(shape, layout, dtype, name=port.name, kind=kind, model_shape=model_shape).plain
    picture = picture_shape(port.shape)
    if not planar and dtype == "uint8" and not isinstance(picture, str):
        shape, planar = (picture[2], *picture[:2]), True  # grey without an axis for it
    color = preprocess.color
    if planar and color is None and shape[0] in (1, 3):
        color = "gray" if shape[0] == 1 else "rgb"
    given = Input(
        shape=shape,
        layout="planar" if planar else "flat",
        dtype=dtype,
        mean=preprocess.effective_mean,
        std=preprocess.effective_std,
        stated=preprocess.stated,
        color=color if planar else None,
        name=port.name,
        model_shape=model_shape,
    ).plain
    return given.of_pixels() if dtype == "uint8" else given


def in_shape(given: Input, shape: tuple[int, ...]) -> Input:
    """Codes of a tensor as the file takes them: in a shape of its own, which may hold more."""
    layout: Layout = "planar" if len(shape) == 3 else "flat"
    return replace(given, shape=shape, layout=layout, model_shape=given.tensor_shape).plain


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
