"""What the compiler says when it cannot compile: one class per kind of reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k210tasks.errors import K210Error

if TYPE_CHECKING:
    from k210tasks.compiler.source_ops import SourceOp

MOST_LINES = 20  # of an error that names ops; `k210 check` names all


class CompileError(K210Error):
    """The base of every refusal of the compiler."""


class BadModel(CompileError):
    """The file is no TensorFlow Lite model, or a damaged one."""

    format = "TensorFlow Lite"

    def __init__(self, what: str):
        super().__init__(f"not a usable {self.format} model: {what}")


class Unsupported(CompileError):
    """An op that cannot be compiled: which, why, and what to do about it."""

    def __init__(self, op: str, reason: str, remedy: str = ""):
        self.op, self.reason, self.remedy = op, reason, remedy
        super().__init__(f"{op}: {reason}" + (f"; {remedy}" if remedy else ""))


class NeedsKmodel4(Unsupported):
    """An op that the layers of kmodel 3 cannot carry."""

    def __init__(self, op: str, reason: str):
        super().__init__(op, reason, "needs kmodel 4")


class NeedsOtherRuntime(Unsupported):
    """A layer that the runtime in the firmware does not compute, or not right."""

    def __init__(self, op: str, runtime: str, fault: str, remedy: str):
        self.runtime = runtime
        super().__init__(op, f"{runtime} {fault}", remedy)


class TooLarge(CompileError):
    """Feature maps that do not fit the memory of the KPU."""

    def __init__(self, layer: str, needed: int, limit: int, remedy: str):
        self.layer, self.needed, self.limit = layer, needed, limit
        super().__init__(
            f"{layer} needs {needed} bytes of KPU memory at once, the K210 has {limit}; {remedy}"
        )


class TooMuchMemory(CompileError):
    """A model that leaves no room in the memory it shares with the program."""

    def __init__(self, model: int, main: int, limit: int):
        super().__init__(
            f"the model ({model} bytes) and its main memory ({main} bytes) need {model + main} "
            f"bytes of SRAM, the K210 has {limit} for the program too; fewer weights or a smaller "
            "input would make it fit"
        )


class NoCalibration(CompileError):
    """A tensor whose range is neither known nor measured."""

    def __init__(self, tensor: str):
        super().__init__(
            f"the range of tensor {tensor!r} is not known; calibrate the model on images first"
        )


class PassBroke(CompileError):
    """A pass of the compiler produced an illegal graph: a fault of ours, never of the user's."""

    def __init__(self, after: str, op: str, what: str):
        super().__init__(f"internal error after pass {after}: {op}: {what}; please report this")


def _several(names: list[str]) -> str:
    """A few names as they are, of many the first and how many there are."""
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} and {len(names) - 1} others"


class UnsupportedOps(CompileError):
    """Every op of the model that is not taken, each with its reasons."""

    def __init__(self, found: list[tuple[SourceOp, list[str]]]):
        self.found = found
        same: dict[tuple[str, str], list[str]] = {}
        for op, reasons in found:
            for reason in reasons:
                same.setdefault((op.name, reason), []).append(op.place)
        lines = [f"{name} {_several(at)}: {reason}" for (name, reason), at in same.items()]
        if len(lines) > MOST_LINES:
            lines[MOST_LINES:] = [f"and {len(lines) - MOST_LINES} more"]
        super().__init__("the model cannot be compiled:\n  " + "\n  ".join(lines))


class SeveralInputs(CompileError):
    """No K210 runtime feeds more than one input."""

    def __init__(self, names: list[str]):
        super().__init__(
            f"the model has {len(names)} inputs ({', '.join(names)}); "
            "K210 runtimes feed exactly one: join them into one tensor and split it in the model"
        )
