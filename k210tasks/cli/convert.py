"""``k210 convert``: one ``.tflite`` or ``.onnx`` to one ``.kmodel``, without a models.yaml."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from k210tasks.cli import contracts
from k210tasks.cli.contract_args import add_contract, add_sizes, add_small_maps, count, preprocess
from k210tasks.cli.given import CannotWrite, is_kmodel, refuse_foreign
from k210tasks.errors import K210Error

if TYPE_CHECKING:
    from k210tasks.engine.job import Folder
    from k210tasks.manifest.compilers import Compiler
    from k210tasks.manifest.model import Model, SourceKind

EXAMPLE = "k210 convert workspace/nn_xo.tflite --images images/nn_xo/calibration --mean 0 --std 1"

#: The formats that only the chain converts, through TensorFlow.
_GRAPHS = (".pb", ".pbtxt", ".keras", ".h5")


class NotATflite(K210Error):
    def __init__(self, shown: str) -> None:
        super().__init__(
            f"{shown} is no .tflite or .onnx; TensorFlow and Keras models go through the chain: "
            "k210 init lists them in a models.yaml, then doit converts them"
        )


class WrongVersion(K210Error):
    def __init__(self, compiler: str, asked: int, written: tuple[int, ...]) -> None:
        versions = " or ".join(map(str, written))
        super().__init__(f"{compiler} writes kmodel {versions}, not {asked}")


class NoSuchMethod(K210Error):
    def __init__(self, compiler: str, asked: str, known: list[str]) -> None:
        super().__init__(f"{compiler} has no calibration method {asked}; it has {', '.join(known)}")


class ImagesNeeded(K210Error):
    def __init__(self, compiler: str) -> None:
        super().__init__(
            f"{compiler} needs images to calibrate with: --images DIR, about 100 that look like "
            "what the camera will see"
        )


class SameFile(K210Error):
    def __init__(self, shown: str) -> None:
        super().__init__(f"the output {shown} is the model itself; give another -o")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from k210tasks.manifest.compilers import COMPILERS
    from k210tasks.profiles import PROFILES

    parser.add_argument(
        "file", metavar="FILE", type=Path, help="the float model, a .tflite or .onnx"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help="default: FILE.kmodel beside it; OUT.contract.json is written too",
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        help="to calibrate with: pictures, or .npy or float32 .bin tensors; or one .npy of many",
    )
    parser.add_argument(
        "--samples",
        metavar="N",
        type=count,
        default=100,
        help="how many of them, evenly spaced over the sorted list (default 100)",
    )
    parser.add_argument("--compiler", choices=COMPILERS, metavar="NAME", help=_compilers())
    parser.add_argument(
        "--kmodel", metavar="N", type=int, choices=(3, 4, 5), help="version of the file"
    )
    parser.add_argument(
        "--firmware",
        metavar="PROFILE",
        choices=tuple(PROFILES),
        default="maixpy",
        help="what is to run it (default maixpy): the built-in compiler writes layers it has",
    )
    parser.add_argument(
        "--method",
        default="minmax",
        choices=("minmax", "percentile", "mse", "kl"),
        help="how ranges are chosen (default minmax)",
    )
    parser.add_argument(
        "--effort",
        default="normal",
        choices=("fast", "normal", "high"),
        help="of the built-in compiler (default normal)",
    )
    add_small_maps(parser)
    add_sizes(parser)
    add_contract(parser)


def _compilers() -> str:
    from k210tasks.manifest.compilers import COMPILERS

    names = ", ".join(f"{c.name} (kmodel {_versions(c)})" for c in COMPILERS.values())
    return f"{names}; default {_default()}"


def _versions(compiler: Compiler) -> str:
    return "/".join(map(str, compiler.kmodels))


def _default() -> str:
    from k210tasks.manifest.guess import default_pair

    return default_pair()[0]


def run(args: argparse.Namespace) -> int:
    from k210tasks.manifest.compilers import COMPILERS
    from k210tasks.manifest.model import Calibrate, Model
    from k210tasks.profiles import PROFILES
    from k210tasks.steps.signature import read_model
    from k210tasks.steps.vendor import NoOnnx

    source: Path = args.file
    out: Path = args.output or source.with_suffix(".kmodel")
    if source.suffix.lower() in _GRAPHS or source.is_dir():
        raise NotATflite(str(source))
    if out.exists() and source.exists() and out.samefile(source):
        raise SameFile(str(out))
    if out.is_dir():
        raise CannotWrite(str(out), "it is a folder; name a file in it, OUT.kmodel")
    compiler = COMPILERS[args.compiler or _default()]
    loaded = [v for v in compiler.kmodels if v in PROFILES[args.firmware].kmodels]
    kmodel = args.kmodel or (loaded or compiler.kmodels)[0]
    if kmodel not in compiler.kmodels:
        raise WrongVersion(compiler.name, kmodel, compiler.kmodels)
    if args.method not in compiler.methods:
        raise NoSuchMethod(compiler.name, args.method, list(compiler.methods))
    given, signature = read_model(source, str(source), args.inputs)
    kind: SourceKind = "tflite" if isinstance(given, bytes) else "onnx"
    if kind not in compiler.in_place:
        raise NoOnnx(compiler.name, str(source))
    if args.images is None and (compiler.family == "vendor" or signature.is_float):
        raise ImagesNeeded(compiler.name)
    folder = _folder(args.images, args.samples) if args.images is not None else None
    refuse_foreign(out, "kmodel", is_kmodel)
    contracts.refuse_foreign(contracts.beside(out))
    model = Model(
        name=source.stem,
        source=str(source),
        source_kind=kind,
        inputs=None if args.inputs is None else tuple(args.inputs.items()),
        compiler=compiler.name,
        firmware=args.firmware,
        kmodel=kmodel,
        images=None if folder is None else str(args.images),
        preprocess=preprocess(args),
        calibrate=Calibrate(args.method, args.samples),
        verify=None,
        effort=args.effort,
        small_maps=args.small_maps,
    )
    try:
        with _new_log(out) as log:
            listing, nbytes = _convert(model, folder, out, log)
    except OSError as error:
        shown = str(error.filename or out)
        raise CannotWrite(shown, error.strerror or str(error)) from error
    Path(log.name).unlink()  # kept where something failed: the error names it
    print(listing, end="")
    print(f"wrote {out}: kmodel {kmodel}, {nbytes} bytes, by {compiler.name}")
    print(f"wrote {contracts.beside(out)}: how it is fed, for firmware and the other verbs")
    return 0


def _new_log(out: Path) -> TextIO:
    """``OUT.log``, or ``OUT.2.log`` and so on where there is one: it may be anybody's."""
    for number in itertools.count(1):
        name = f"{out.name}.log" if number == 1 else f"{out.name}.{number}.log"
        with contextlib.suppress(FileExistsError):
            return out.with_name(name).open("x", encoding="utf-8", errors="backslashreplace")
    raise AssertionError("there is always another number")


def _folder(images: Path, samples: int) -> Folder:
    from k210tasks.engine.job import Folder
    from k210tasks.samples.folder import evenly_spaced, scan

    found = scan(images)
    return Folder.of(images, evenly_spaced(found.files, samples), found.ignored)


def _convert(model: Model, folder: Folder | None, out: Path, log: TextIO) -> tuple[str, int]:
    """Calibrate and compile as the chain does; the listing and the size of what was written."""
    from k210tasks import toolchains
    from k210tasks.artifacts.doubts import OPTIONS
    from k210tasks.engine.job import Job
    from k210tasks.profiles import PROFILES
    from k210tasks.progress import shown
    from k210tasks.steps import calibrate
    from k210tasks.steps import kmodel as kmodel_step
    from k210tasks.steps.chain import model_plans
    from k210tasks.store.files import write_atomically
    from k210tasks.store.scratch import scratch_folder

    plans = {plan.step: plan for plan in model_plans(model)}
    with (
        scratch_folder() as scratch,
        shown(f"convert {model.name}") as progress,
    ):
        for tool in plans["kmodel"].tools:
            toolchains.get(tool).install(progress.tell, progress)
        made = {
            path: Path(scratch, f"{plan.step}.{role}")
            for plan in plans.values()
            for role, path in plan.outputs.items()
        }

        def job(step: str, **settings: object) -> Job:
            """A job of the chain, its own files in the scratch folder."""
            plan = plans[step]
            inputs: dict[str, Path | Folder] = {
                role: made.get(given.path, Path(given.path)) for role, given in plan.inputs.items()
            }
            if folder is not None and "images" in inputs:
                inputs["images"] = folder
            outputs = {role: made[path] for role, path in plan.outputs.items()}
            told = {**plan.settings, **settings}
            name = f"{step} {model.name}"
            return Job(name, model.name, told, inputs, outputs, log, Path(log.name), progress)

        if folder is not None:
            calibrate.run(job("calibrate"))
        loads = PROFILES[model.firmware].loads(model.kmodel)
        compiling = job("kmodel", firmware=model.firmware if loads else "")
        kmodel_step.run(compiling, OPTIONS)
        outputs = compiling.outputs
        data = outputs["kmodel"].read_bytes()
        # The contract first: with another kmodel it is found out, a kmodel without it is not.
        write_atomically(str(contracts.beside(out)), outputs["contract"].read_bytes())
        write_atomically(str(out), data)
        return outputs["listing"].read_text("utf-8"), len(data)
