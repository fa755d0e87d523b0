"""What the compiler says when it cannot compile: one class per kind of reason."""

from __future__ import annotations

from k210tasks.errors import K210Error


class CompileError(K210Error):
    """The base of every refusal of the compiler."""


class BadModel(CompileError):
    """The file is no TensorFlow Lite model, or a damaged one."""

    def __init__(self, what: str):
        super().__init__(f"not a usable TensorFlow Lite model: {what}")


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
