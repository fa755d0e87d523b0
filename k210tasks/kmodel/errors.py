"""What can be wrong with a kmodel file."""

from __future__ import annotations

from k210tasks.errors import K210Error


class KmodelError(K210Error):
    """A kmodel that cannot be read, written or run: where, which field, and why.

    ``offset`` counts bytes from the start of the model (None: the model was not read from
    a file); ``field`` is a path such as ``layer 3 (K210Conv2d): weights_off``.
    """

    def __init__(self, offset: int | None, field: str, problem: str):
        self.offset, self.field, self.problem = offset, field, problem
        where = "" if offset is None else f"byte {offset} (0x{offset:x}), "
        super().__init__(f"{where}{field}: {problem}")


class Truncated(KmodelError):
    """The file ends inside a field."""

    def __init__(self, offset: int, field: str, need: int, have: int):
        super().__init__(
            offset,
            field,
            f"needs {need} bytes, {max(have, 0)} are left; the file is cut short or damaged",
        )


class NotAKmodel(KmodelError):
    """The bytes are not a kmodel of version 3 or 4."""


class TooMuch(KmodelError):
    """A number that no K210 model has and that would exhaust memory or time."""

    def __init__(self, offset: int | None, field: str, value: int, limit: int, unit: str):
        super().__init__(offset, field, f"{value} {unit}; at most {limit} are accepted")
