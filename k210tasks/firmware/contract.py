"""What a firmware must feed a kmodel and what it gets back, as JSON.

The one preprocessing contract of models.yaml, completed with what the compiler decided,
handed to the people who write the firmware. Most boards that are "wrong while the PC is
right" break one of these lines: order of the colour planes, raw pixels or scaled ones,
the codes of a tensor, the shape of an output.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from k210tasks.errors import K210Error
from k210tasks.jsondata import Misfit, Rule, plain, read
from k210tasks.samples.folder import Kind
from k210tasks.samples.preprocess import Color, PerChannel, as_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: of the JSON; a reader refuses what it does not know
VERSION = 2

Dtype = Literal["uint8", "float32"]
Layout = Literal["planar", "flat"]

_ITEM_BYTES: dict[str, int] = {"uint8": 1, "float32": 4}


class ContractError(K210Error):
    """A contract.json that cannot be used; ``why``: without the file's name."""

    def __init__(self, where: str, found: object, allowed: str) -> None:
        self.why = f"{where} is {found!r}; it must be {allowed}"
        super().__init__(f"contract.json: {self.why}")


class NotJson(ContractError):
    """No contract at all."""

    def __init__(self, why: str) -> None:
        self.why = f"it is no JSON written by k210tasks: {why}"
        K210Error.__init__(self, f"contract.json: {self.why}")


class ScaleUnknown(K210Error):
    """An input of codes of which nobody says what they are worth."""

    def __init__(self, given: Input) -> None:
        missing = "scale" if given.scale is None else "zero point"
        super().__init__(
            f"the kmodel is fed with uint8 codes of real numbers, and their {missing} is not "
            "known; its contract tells it (k210 convert writes it beside the kmodel, "
            "FILE.kmodel.contract.json, doit as build/MODEL/contract.json)"
        )


class WrongCount(K210Error):
    """Not as many numbers as the model's input has."""

    def __init__(self, given: Input, found: int) -> None:
        shape = "x".join(map(str, given.tensor_shape))
        super().__init__(
            f"the model takes {math.prod(given.tensor_shape)} numbers ({shape}), not {found}"
        )


@dataclass(frozen=True, slots=True)
class Input:
    """The one input of a kmodel.

    ``shape``: ``(channels, height, width)`` where ``layout`` is "planar": one whole plane per
    colour, never interleaved pixels (docs/kpu-and-kmodel.md, section 5). A tensor of another
    rank has layout "flat": row-major, without the batch.
    ``kind`` "images": the model is fed with pictures. ``dtype`` "uint8" then is raw pixels
    0..255, which the firmware must not scale; the model itself computes
    ``(pixel / 255 - mean) / std``, each one number or one a channel in the order of ``shape``.
    "float32": numbers scaled that way already. ``stated``:
    whether the user wrote mean and std down, or the defaults were used.
    ``kind`` "tensors": with the float model's own numbers, as "uint8" in :meth:`codes`;
    ``mean``, ``std``, ``stated`` and ``color`` mean nothing then and are null in the JSON.
    ``scale``, ``zero_point``: real value = ``scale * (q - zero_point)`` of a uint8 input, of
    pixels also one a channel; None for float32, and where the compiler does not tell.
    ``model_shape``: the float model's input without its batch, channels last; None where it
    follows from ``shape``. Where its values are fewer than those of ``shape``, they come first,
    and what is fed for the rest does not matter.
    """

    shape: tuple[int, ...]
    layout: Layout = "planar"
    dtype: Dtype = "uint8"
    mean: PerChannel = 0.0
    std: PerChannel = 1.0
    stated: bool = True
    scale: PerChannel | None = None
    zero_point: PerChannel | None = None
    color: Color | None = None
    name: str = "input"
    kind: Kind = "images"
    model_shape: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The float model's input without its batch, channels last."""
        if self.model_shape is not None:
            return self.model_shape
        return (*self.shape[1:], self.shape[0]) if self.layout == "planar" else self.shape

    @property
    def plain(self) -> Input:
        """The same, without a ``model_shape`` that says nothing new."""
        without = replace(self, model_shape=None)
        return without if without.tensor_shape == self.tensor_shape else self

    def as_fed(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The bytes of an input in its shape; flat where the float model's has no channels, so
        that the file may call rows and columns what it likes."""
        return values.reshape(self.shape) if len(self.tensor_shape) > 2 else values.ravel()

    def of_pixels(self) -> Input:
        """With the scale and zero point of raw pixels, where none are told."""
        scale = of_each(lambda std: 1 / (255 * std), self.std)
        zero = of_each(lambda mean: 255 * mean, self.mean)
        return replace(
            self,
            scale=scale if self.scale is None else self.scale,
            zero_point=zero if self.zero_point is None else self.zero_point,
        )

    @property
    def formula(self) -> str | None:
        """What a uint8 input of real numbers is fed with, as :meth:`codes` computes it; None
        for pictures and float32, and where the compiler does not tell."""
        scale, zero = self.scale, self.zero_point
        if self.kind == "images" or scale is None or zero is None:
            return None
        if isinstance(scale, tuple) or isinstance(zero, tuple):
            return None  # of pixels alone
        sign = "-" if zero < 0 else "+"
        return f"code = round(x / {number(scale)}) {sign} {number(abs(zero))}"

    @property
    def sentence(self) -> str:
        """How the input is fed, for people; ASCII."""
        shape = "x".join(map(str, self.shape))
        color = f" {self.color}" if self.color else ""
        flat = f"{shape} {self.dtype}, row-major"
        form = flat if self.layout == "flat" else f"{shape} planar{color} {self.dtype}"
        return f"{form}, {self.numbers}"

    @property
    def numbers(self) -> str:
        """What the numbers of the input are."""
        if self.kind == "images":
            if self.dtype == "uint8":
                return "raw pixels 0..255, not scaled"
            return f"(pixel / 255 - {as_text(self.mean)}) / {as_text(self.std)}"
        if self.dtype == "float32":
            return "the tensor's own numbers x, not scaled"
        told = "codes of the tensor's numbers, whose scale the compiler does not tell"
        if self.formula is not None:
            told = f"{self.formula}, clamped to 0..255"
        fed = math.prod(self.tensor_shape)
        rest = math.prod(self.shape) - fed
        return told + (f"; {fed} codes, then {rest} more of any value" if rest else "")

    def codes(self, real: NDArray[Any]) -> NDArray[np.uint8]:
        """What a uint8 input is fed with for ``real`` values in the order of the input: uint8,
        flat, filled up with the code of 0 where the input takes more values.

        ``code = round(x / scale) + zero_point``, clamped to 0..255, in float64, ties to even as
        MicroPython's ``round`` and C's ``rintf`` have it. A board that rounds ties the other way
        or divides in float32 is off by one code at most, the step that quantising costs anyway.

        Raises:
            ScaleUnknown: ``scale`` or ``zero_point`` is None.
            WrongCount: not as many values as the float model's input has.
        """
        import numpy as np

        if real.size != math.prod(self.tensor_shape):
            raise WrongCount(self, real.size)

        if self.scale is None or self.zero_point is None:
            raise ScaleUnknown(self)
        # One a channel, or one for all; of pixels, mean * 255 need not be whole.
        scale, zero = (
            np.asarray(v, np.float64).reshape(-1, 1) for v in (self.scale, self.zero_point)
        )
        whole = np.rint(zero)
        rows = real.astype(np.float64).reshape(np.broadcast(scale, zero).size, -1)
        codes = np.clip(np.rint(rows / scale + (zero - whole)) + whole, 0, 255).ravel()
        filled = np.full(math.prod(self.shape), np.clip(whole.flat[0], 0, 255), np.uint8)
        filled[: len(codes)] = codes
        return filled


@dataclass(frozen=True, slots=True)
class Output:
    """One output, in the order of the file.

    ``shape``: without the batch; ``(channels, height, width)`` for a feature map, as both
    formats give it. ``scale``, ``zero_point``: as in :class:`Input`, where the output is
    uint8; None for float32.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Dtype = "float32"
    scale: float | None = None
    zero_point: float | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


_Size = Annotated[int, Rule("a whole number, 0 or more", lambda n: n >= 0)]
_Shape = Annotated[
    tuple[int, ...], Rule("a list of sizes, each 1 or more", lambda s: all(n > 0 for n in s))
]
_Texts = Annotated[tuple[str, ...], Rule("a list of strings", lambda texts: True)]


#: mean, std and whether they are stated, where no picture is fed
_UNSCALED: tuple[PerChannel, PerChannel, bool] = (0.0, 1.0, True)


@dataclass(frozen=True, slots=True)
class KmodelFile:
    """The kmodel in contract.json."""

    version: _Size
    bytes: _Size | None
    sha256: str | None
    main_memory: _Size | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """An output in contract.json. ``bytes`` are told for those who read it."""

    name: str
    shape: _Shape
    dtype: Dtype
    bytes: int = 0
    scale: float | None
    zero_point: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """The input in contract.json. ``bytes`` and ``fed`` are told for those who read it."""

    name: str
    shape: _Shape
    layout: Layout
    dtype: Dtype
    bytes: int = 0
    kind: Kind
    model_shape: _Shape
    fed: str = ""
    color: Color | None
    mean: PerChannel | None
    std: PerChannel | None
    stated: bool | None
    scale: PerChannel | None
    zero_point: PerChannel | None

    @property
    def input(self) -> Input:
        if self.kind == "tensors":
            mean, std, stated = _UNSCALED
        elif self.mean is None or self.std is None or self.stated is None:
            raise Misfit(None, "given for pictures", "input.mean, input.std or input.stated")
        else:
            mean, std, stated = self.mean, self.std, self.stated
        channels = self.shape[0] if self.layout == "planar" else 1
        for key in ("mean", "std", "scale", "zero_point"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) != channels:
                one = f"a number, or one for each of the {channels} channels"
                raise Misfit(list(value), one, f"input.{key}")
        return Input(
            self.shape, self.layout, self.dtype, mean, std, stated, self.scale, self.zero_point,
            self.color, self.name, self.kind, self.model_shape,
        ).plain  # fmt: skip


_Current = Annotated[int, Rule(f"{VERSION}; build the model again", lambda n: n == VERSION)]


@dataclass(frozen=True, slots=True)
class _Version:
    version: _Current


@dataclass(frozen=True, slots=True)
class ContractFile:
    """contract.json as it is written. Those of 0.1.0 have no ``calibration``."""

    model: str
    kmodel: KmodelFile
    profile: str
    input: InputFile
    outputs: tuple[OutputFile, ...]
    labels: _Texts
    calibration: _Texts | None = None
    version: int = VERSION

    @property
    def contract(self) -> Contract:
        """Raises :class:`Misfit` where an input of pictures does not tell mean and std."""
        return Contract(
            model=self.model,
            kmodel=self.kmodel.version,
            profile=self.profile,
            input=self.input.input,
            outputs=tuple(
                Output(out.name, out.shape, out.dtype, out.scale, out.zero_point)
                for out in self.outputs
            ),
            labels=self.labels,
            nbytes=self.kmodel.bytes,
            sha256=self.kmodel.sha256,
            main_memory=self.kmodel.main_memory,
            calibration=self.calibration,
        )


@dataclass(frozen=True, slots=True)
class Contract:
    """Everything a firmware needs to know about one kmodel file.

    ``kmodel``: version of the file. ``profile``: firmware it was made for. ``nbytes`` and
    ``sha256``: of the kmodel file, so that a stale contract is found out. ``main_memory``:
    bytes of working memory the runtime allocates beside the file; None where the format does
    not say. ``labels``: by class index, empty where there are none. ``calibration``: digests of
    the samples it was calibrated with (:mod:`k210tasks.samples.seen`), none where it needed
    none; None: not known.
    """

    model: str
    kmodel: int
    profile: str
    input: Input
    outputs: tuple[Output, ...]
    labels: tuple[str, ...] = ()
    nbytes: int | None = None
    sha256: str | None = None
    main_memory: int | None = None
    calibration: tuple[str, ...] | None = None

    def to_file(self) -> ContractFile:
        """As it is written."""
        given, pictures = self.input, self.input.kind == "images"
        return ContractFile(
            model=self.model,
            kmodel=KmodelFile(self.kmodel, self.nbytes, self.sha256, self.main_memory),
            profile=self.profile,
            input=InputFile(
                name=given.name,
                shape=given.shape,
                layout=given.layout,
                dtype=given.dtype,
                bytes=given.nbytes,
                kind=given.kind,
                model_shape=given.tensor_shape,
                fed=given.sentence,
                color=given.color if pictures else None,
                mean=of_each(float, given.mean) if pictures else None,
                std=of_each(float, given.std) if pictures else None,
                stated=given.stated if pictures else None,
                scale=None if given.scale is None else of_each(float, given.scale),
                zero_point=None if given.zero_point is None else of_each(float, given.zero_point),
            ),
            outputs=tuple(
                OutputFile(
                    name=out.name,
                    shape=out.shape,
                    dtype=out.dtype,
                    bytes=out.nbytes,
                    scale=_optional_float(out.scale),
                    zero_point=_optional_float(out.zero_point),
                )
                for out in self.outputs
            ),
            labels=self.labels,
            calibration=self.calibration,
        )

    def to_json(self) -> str:
        """The text of contract.json: sorted keys, ASCII, one newline at the end."""
        value = plain(self.to_file())
        return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> Contract:
        """Read contract.json. Raises :class:`ContractError` naming what is wrong."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NotJson(str(error)) from None
        try:
            read(_Version, value)  # before what other versions have otherwise
            return read(ContractFile, value).contract
        except Misfit as misfit:
            where = misfit.where or "the file"
            raise ContractError(where, misfit.found, misfit.allowed) from None


def of_each(function: Callable[[float], float], value: PerChannel) -> PerChannel:
    """A function of one number, or of each channel's."""
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def number(value: float) -> str:
    """A scale or zero point as formulas have it: float32 needs no more digits."""
    return f"{value:.9g}"


def _optional_float(value: float | None) -> float | None:
    return None if value is None else float(value)
