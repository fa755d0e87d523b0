"""What several verbs ask: the contract of pictures, how a model is compiled, its sizes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from k210tasks.samples.preprocess import PerChannel, Preprocess


def add_contract(parser: argparse.ArgumentParser) -> None:
    """``--mean``, ``--std``, ``--color``, ``--resize``."""
    group = parser.add_argument_group(
        "what a picture becomes: (pixel/255 - mean)/std, of all channels or each"
    )
    group.add_argument(
        "--mean", type=finite_each, metavar="M[,M,M]", help="default 0, with a warning"
    )
    group.add_argument(
        "--std", type=nonzero_each, metavar="S[,S,S]", help="default 1, with a warning"
    )
    group.add_argument(
        "--color",
        choices=("rgb", "bgr", "gray"),
        help="order of the planes (default: gray for one channel, else rgb)",
    )
    group.add_argument(
        "--resize",
        choices=("stretch", "exact"),
        default="stretch",
        help="of a picture of another size: scale it (default), or refuse it",
    )


def add_small_maps(parser: argparse.ArgumentParser) -> None:
    """``--small-maps``."""
    parser.add_argument(
        "--small-maps",
        default="padded",
        choices=("padded", "kpu"),
        help="maps below 4x4: computed as part of larger ones (default), or put out by KPU layers",
    )


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """``--inputs``."""
    parser.add_argument(
        "--inputs",
        metavar="NAME=1,C,H,W",
        type=_sizes,
        help="size of the input of an .onnx that leaves it open, in the order of the file",
    )


def _sizes(text: str) -> dict[str, tuple[int, ...]]:
    name, _, numbers = text.rpartition("=")
    if not name or not all(n.isascii() and n.isdigit() for n in numbers.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=1,3,240,320")
    return {name: tuple(int(n) for n in numbers.split(","))}


def preprocess(args: argparse.Namespace) -> Preprocess:
    """The contract that the arguments state."""
    return Preprocess(args.color, args.mean, args.std, args.resize)


def finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def nonzero(text: str) -> float:
    value = finite(text)
    if value == 0:
        raise argparse.ArgumentTypeError("std divides, so it cannot be 0")
    return value


def finite_each(text: str) -> PerChannel:
    return _each(text, finite)


def nonzero_each(text: str) -> PerChannel:
    return _each(text, nonzero)


def _each(text: str, one: Callable[[str], float]) -> PerChannel:
    """A number, or as many as a picture has channels, with commas between; equal ones are one."""
    found = tuple(one(part) for part in text.split(","))
    if len(found) not in (1, 3):
        raise argparse.ArgumentTypeError(
            f"{text} holds {len(found)} numbers; pictures have 1 channel or 3"
        )
    return found[0] if len(set(found)) == 1 else found


def count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
