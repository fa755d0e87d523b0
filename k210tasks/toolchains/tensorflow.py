"""Converting TensorFlow and Keras models to float TFLite, in the tensorflow environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from k210tasks.jsondata import Misfit, read
from k210tasks.progress import Progress
from k210tasks.toolchains.errors import OperationFailed
from k210tasks.toolchains.toolchain import PythonToolchain, Toolchain
from k210tasks.toolchains.worker import Json


@dataclass(frozen=True, slots=True)
class _Used:
    """What :func:`convert` returns."""

    inputs: dict[str, list[int]]
    outputs: list[str]
    bytes: int


def convert(
    toolchain: Toolchain,
    *,
    source: Path,
    kind: str,
    inputs: Mapping[str, Sequence[int]] | None,
    outputs: Sequence[str] | None,
    out: Path,
    log: TextIO | None = None,
    progress: Progress | None = None,
) -> Json:
    """Write the float ``.tflite`` of ``source`` to ``out``, with a batch of 1.

    Returns ``{"inputs": {name: shape}, "outputs": [name, …], "bytes": n}`` as used: what is
    None is inferred where the model leaves no choice. The same source and arguments give
    the same bytes. ``kind`` is a ``source_kind`` of a model. Raises
    :class:`BadRequest` for a source that cannot be read and for names and shapes that do not
    fit it, listing the model's own.
    """
    assert isinstance(toolchain, PythonToolchain)
    result = toolchain.worker().call(
        "convert",
        {
            "source": str(source.absolute()),
            "kind": kind,
            "inputs": inputs,
            "outputs": outputs,
            "out": str(out.absolute()),
        },
        doing=f"converting {source.name}",
        log=log,
        progress=progress,
    )
    result.pop("printed")
    try:
        read(_Used, result)
    except Misfit as misfit:
        what = f"TensorFlow's worker answered with a {misfit.where} that is {misfit.found!r}"
        raise OperationFailed(
            toolchain.name, f"converting {source.name}", what, getattr(log, "name", None)
        ) from None
    start = b""
    if out.exists():
        with out.open("rb") as file:
            start = file.read(8)
    if start[4:] != b"TFL3":
        raise OperationFailed(
            toolchain.name,
            f"converting {source.name}",
            f"it wrote no TFLite file: {out.name} starts with {start.hex(' ') or 'nothing'}",
            getattr(log, "name", None),
        )
    return result
