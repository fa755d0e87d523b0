"""What can be wrong with a layer of the accelerator."""

from __future__ import annotations

from k210tasks.errors import K210Error


class KpuError(K210Error):
    """A layer the K210's KPU cannot run, or a value no field of it can hold."""


class FieldOutOfRange(KpuError):
    """A value that does not fit its bit field."""

    def __init__(self, field: str, value: int, low: int, high: int):
        self.field, self.value, self.low, self.high = field, value, low, high
        super().__init__(f"{field} is {value}; the register holds {low}..{high}")


class IllegalLayer(KpuError):
    """A combination the hardware does not have; ``field`` names the offending register."""

    def __init__(self, field: str, value: object, allowed: str):
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field} is {value}; allowed: {allowed}")
