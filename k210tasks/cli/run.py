"""``k210 run``: one input through a kmodel in the simulator, bit exact."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k210tasks.cli import contracts
from k210tasks.cli.given import CannotRead, CannotWrite, UnreadableKmodel, read_bytes
from k210tasks.cli.output import Json
from k210tasks.errors import K210Error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from k210tasks.firmware.contract import Input as Given
    from k210tasks.samples.preprocess import Preprocess
    from k210tasks.simulator import Input

EXAMPLE = "k210 run workspace/nn_xo.kmodel --input images/nn_xo/verification/cross/000.png"


class WrongInput(K210Error):
    def __init__(self, path: str, error: Exception):
        super().__init__(f"{path}: {error}")


class CodesUnknown(K210Error):
    def __init__(self, path: str, kmodel: str, dtype: object):
        super().__init__(
            f"{path} holds {dtype} numbers, and {kmodel} takes uint8: what its codes are worth "
            f"tells its contract, which is not there: {contracts.beside(Path(kmodel))}; give that, "
            "or an .npy of uint8"
        )


class NoPicture(K210Error):
    def __init__(self, path: str, wanted: Input, why: str):
        super().__init__(f"{path}: the model takes {wanted}, {why}; give it as an .npy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from k210tasks.cli.contract_args import finite_each, nonzero_each
    from k210tasks.cli.inspect import offset
    from k210tasks.cli.runtime_args import add_runtime

    parser.add_argument("file", metavar="FILE", help=".kmodel of version 3 or 4")
    parser.add_argument(
        "--input",
        required=True,
        metavar="X",
        help="a picture, or .npy with the model's own input (uint8 or float32, CHW); where the "
        "contract of FILE is there, also .npy as the float model takes it, or one of many in it, "
        "X.npy[3]",
    )
    parser.add_argument(
        "--output", metavar="OUT.npz", help="where output_0, output_1, … are written"
    )
    parser.add_argument(
        "--base",
        type=offset,
        default=0,
        metavar="N",
        help="byte where the model starts in FILE (default 0)",
    )
    parser.add_argument(
        "--color",
        choices=("rgb", "bgr", "gray"),
        help="order of a picture's planes (default: gray for one channel, else rgb)",
    )
    parser.add_argument(
        "--mean",
        type=finite_each,
        metavar="M[,M,M]",
        help="of a picture given to a model with float input (default 0)",
    )
    parser.add_argument(
        "--std",
        type=nonzero_each,
        metavar="S[,S,S]",
        help="likewise; (x/255 - mean)/std is fed (default 1)",
    )
    add_runtime(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: argparse.Namespace) -> int:
    from k210tasks.cli.runtime_args import chosen_runtime
    from k210tasks.kmodel import KmodelError, parse
    from k210tasks.simulator import InputError, Simulator

    data = read_bytes(args.file)
    known = None if args.base else contracts.of_kmodel("run", Path(args.file), data)
    profile = "" if known is None else known[0].profile
    try:
        simulator = Simulator(parse(data, args.base), chosen_runtime(args, profile))
    except KmodelError as error:
        raise UnreadableKmodel(args.file, error) from error
    x = read_input(args, simulator.input, None if known is None else known[0].input)
    start = time.perf_counter()
    try:
        outputs = simulator.run(x)
    except InputError as error:
        raise WrongInput(args.input, error) from error
    seconds = time.perf_counter() - start
    if args.output:
        save(args.output, outputs)
    rows = [facts(i, y) for i, y in enumerate(outputs)]
    if args.json:
        print(
            json.dumps(
                {
                    "file": args.file,
                    "runtime": simulator.runtime.name,
                    "input": {
                        "dtype": simulator.input.dtype,
                        "shape": simulator.input.shape,
                        "nbytes": simulator.input.nbytes,
                    },
                    "outputs": rows,
                    "written": args.output,
                    "seconds": round(seconds, 6),
                },
                indent=2,
            )
        )
        return 0
    asked = args.runtime or args.firmware
    told = asked or simulator.runtime.name != "host"
    simulated = f" as {simulator.runtime.says}" if told else ""
    print(
        f"{args.file}: input {simulator.input}, {1000 * seconds:.0f} ms in the simulator{simulated}"
    )
    for row in rows:
        line = f"{row['name']}: {row['dtype']}, {row['count']} values"
        if row["min"] is not None:
            line += f", {row['min']:.6g} to {row['max']:.6g}, largest at {row['argmax']}"
        if row["not_finite"]:
            line += f", {row['not_finite']} not finite"
        print(line)
    if args.output:
        print(f"written to {args.output}")
    return 0


def read_input(args: argparse.Namespace, wanted: Input, given: Given | None) -> NDArray[Any]:
    """The array to feed: an .npy as it is or encoded by the contract, a picture by the
    preprocessing contract. ``given``: the input by the contract of the file, where it is there.
    """
    from k210tasks.samples.folder import index_of

    path = Path(args.input)
    name, index = index_of(path.name)
    if Path(name).suffix.lower() in (".npy", ".npz"):
        unused(args, ("color", "mean", "std"), "an array is fed as it is")
        return as_codes(args, read_npy(str(path.with_name(name)), index), wanted, given)
    from k210tasks.samples.loading import Loader, planar

    if given is None:
        shape = picture_of(args.input, wanted)
        raw = wanted.dtype == "uint8"
    else:
        shape = (1, *given.tensor_shape)
        raw = given.dtype == "uint8" and given.kind == "images"
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "there is no such file"
        raise CannotRead(args.input, why)
    if raw:
        unused(args, ("mean", "std"), "the model takes raw pixels and scales them itself")
    loader = Loader(shape, preprocess_of(args, given))
    if raw:
        pixels = loader.pixels(path)
        return pixels if given is None else given.as_fed(pixels)
    return as_codes(args, planar(loader.tensor(path)), wanted, given)


def picture_of(shown: str, wanted: Input) -> tuple[int, ...]:
    """The float model's input, channels last, as the file itself tells it."""
    if wanted.shape is None or len(wanted.shape) != 3 or wanted.shape[1] == 1:
        raise NoPicture(shown, wanted, "which no picture can be")
    channels, height, width = wanted.shape
    return (1, height, width, channels)


def preprocess_of(args: argparse.Namespace, given: Given | None) -> Preprocess:
    """What the arguments state and, where they are silent, the contract."""
    from k210tasks.samples.preprocess import Preprocess

    asked = Preprocess(color=args.color, mean=args.mean, std=args.std)
    if given is None or given.kind == "tensors":
        return asked
    mean = given.mean if asked.mean is None else asked.mean
    std = given.std if asked.std is None else asked.std
    return Preprocess(color=asked.color or given.color, mean=mean, std=std)


def as_codes(
    args: argparse.Namespace, x: NDArray[Any], wanted: Input, given: Given | None
) -> NDArray[Any]:
    """Real numbers as the codes the model takes; anything else as it is."""
    from k210tasks.samples.loading import planar

    if given is None:
        if x.dtype.kind == "f" and wanted.dtype == "uint8" and x.size == wanted.nbytes:
            raise CodesUnknown(args.input, args.file, x.dtype)
        return x
    if given.layout == "planar" and len(given.tensor_shape) == 3 and x.dtype.kind == "f":
        height, width, channels = given.tensor_shape
        whole = x[None] if x.ndim == 3 else x
        # Channels last, as samples have it; where both orders are possible, as the kmodel has it.
        if whole.shape == (1, height, width, channels) != (1, channels, height, width):
            x = planar(whole)
    if x.dtype.kind != "f" or given.dtype != "uint8":
        return x
    return (given.of_pixels() if given.kind == "images" else given).codes(x)


def unused(args: argparse.Namespace, options: tuple[str, ...], why: str) -> None:
    """Say which of ``options`` were given and play no part."""
    given = [f"--{option}" for option in options if getattr(args, option) is not None]
    if given:
        verb = "is" if len(given) == 1 else "are"
        print(f"k210 run: {' and '.join(given)} {verb} not used: {why}", file=sys.stderr)


def read_npy(path: str, index: int | None = None) -> NDArray[Any]:
    """A numpy array file without pickled objects, or one of those along its first axis; raises
    :class:`CannotRead`."""
    from k210tasks.npz import BadArrays, mapped

    try:
        x = mapped(Path(path))
    except OSError as error:
        raise CannotRead(path, error.strerror or str(error)) from error
    except BadArrays as error:
        raise CannotRead(path, f"it is no plain .npy array ({error})") from error
    if index is None:
        return x
    if x.ndim == 0 or index >= len(x):
        raise CannotRead(f"{path}[{index}]", f"the file holds {len(x) if x.ndim else 1} samples")
    one: NDArray[Any] = x[index]
    return one


def save(path: str, outputs: list[NDArray[Any]]) -> None:
    """Write the outputs to ``path`` at once: a failure leaves no half-written file."""
    import io

    from k210tasks.npz import NpzWriter
    from k210tasks.store.files import write_atomically

    file = io.BytesIO()
    with NpzWriter(file) as writer:
        for i, y in enumerate(outputs):
            writer.array(f"output_{i}", y)
    try:
        write_atomically(path, file.getvalue())
    except OSError as error:
        raise CannotWrite(path, error.strerror or str(error)) from error


def facts(index: int, y: NDArray[np.generic]) -> Json:
    """What is said of one output."""
    import numpy as np

    values = y.astype(np.float64)
    finite = values[np.isfinite(values)]
    return {
        "name": f"output_{index}",
        "dtype": str(y.dtype),
        "count": int(y.size),
        "min": float(finite.min()) if finite.size else None,
        "max": float(finite.max()) if finite.size else None,
        "argmax": int(np.nanargmax(np.where(np.isfinite(values), values, -np.inf)))
        if finite.size
        else None,
        "not_finite": int(values.size - finite.size),
    }
