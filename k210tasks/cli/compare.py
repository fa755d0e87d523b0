"""``k210 compare``: a kmodel against its float model, the measurement of ``verify``."""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k210tasks.cli import contracts
from k210tasks.cli.contract_args import add_contract, add_sizes, count, preprocess
from k210tasks.cli.given import UnreadableKmodel, read_bytes
from k210tasks.cli.output import wrapped
from k210tasks.cli.runtime_args import add_runtime, chosen_runtime
from k210tasks.errors import K210Error
from k210tasks.samples.preprocess import PerChannel, as_text

if TYPE_CHECKING:
    from k210tasks.firmware.contract import Contract, ContractError
    from k210tasks.samples.folder import Kind
    from k210tasks.samples.preprocess import Preprocess
    from k210tasks.steps.engines import NncaseSimulator, ProjectSimulator
    from k210tasks.steps.signature import Signature

EXAMPLE = (
    "k210 compare workspace/nn_xo.tflite workspace/nn_xo.kmodel "
    "--images images/nn_xo/verification --mean 0 --std 1 --labels cross,circle"
)


class Swapped(K210Error):
    def __init__(self, model: str) -> None:
        super().__init__(f"{model} is a kmodel: the float model, a .tflite or .onnx, comes first")


class OtherModel(K210Error):
    def __init__(self, kmodel: str, takes: object, model: str, shape: Sequence[int]) -> None:
        super().__init__(
            f"{kmodel} takes {takes}, {model} takes {'x'.join(map(str, shape))}: it was not made "
            "of this model"
        )


class CodesUnknown(K210Error):
    """Tensors for a kmodel that takes codes, whose scale neither it nor a contract tells."""

    def __init__(self, kmodel: str, zero_point: PerChannel | None) -> None:
        told = "" if zero_point is None else f"; it tells only that {as_text(zero_point)} means 0"
        super().__init__(
            f"{kmodel} takes uint8 codes, and what a step of them is worth does not stand in the "
            f"file{told}: give the contract that was written with it, --contract JSON or "
            f"{contracts.beside(Path(kmodel))}; or --mean and --std, if it is fed with raw pixels"
        )


class UnusableContract(K210Error):
    def __init__(self, path: str, error: ContractError) -> None:
        super().__init__(f"{path}: {error.why}")


class OtherContract(K210Error):
    def __init__(self, contract: str, kmodel: str) -> None:
        super().__init__(
            f"{contract} was written for another file than {kmodel} (their sha256 differ); "
            "give the contract.json of this very kmodel, or none"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="the float model, a .tflite or .onnx", type=Path
    )
    parser.add_argument(
        "kmodel", metavar="FILE.kmodel", help="what a compiler made of it", type=Path
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        required=True,
        help="pictures, or .npy or float32 .bin tensors, or one .npy of many; "
        "one folder a class: accuracy too",
    )
    parser.add_argument(
        "--samples", metavar="N", type=count, help="that many, evenly spaced (default: all)"
    )
    parser.add_argument(
        "--labels",
        metavar="A,B",
        help="classes by index of their score (default: the sorted folder names)",
    )
    parser.add_argument(
        "--contract",
        metavar="JSON",
        type=Path,
        help="contract.json of the kmodel: how its input and outputs are quantised, and its "
        "mean, std, colours and labels (default: FILE.kmodel.contract.json, or the one in build/)",
    )
    add_sizes(parser)
    add_contract(parser)
    add_runtime(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from k210tasks.artifacts.doubts import (
        OPTIONS,
        NoClassFolders,
        of_labels,
        of_pair,
        sentences,
    )
    from k210tasks.engine.job import Folder
    from k210tasks.jsondata import plain, pretty
    from k210tasks.progress import shown
    from k210tasks.reference.float_model import Reference
    from k210tasks.samples.folder import scan
    from k210tasks.samples.loading import Loader
    from k210tasks.steps.accuracy import class_folders
    from k210tasks.steps.calibrate import each_sample
    from k210tasks.steps.doubtful import of_layers
    from k210tasks.steps.judge import weak_proof
    from k210tasks.steps.measure import measure
    from k210tasks.steps.signature import read_model
    from k210tasks.steps.table import table

    _refuse_kmodel(str(args.model), read_bytes(str(args.model)))
    model, signature = read_model(args.model, str(args.model), args.inputs)
    found = scan(args.images)
    kmodel = read_bytes(str(args.kmodel))
    contract = _given_contract(args, kmodel)
    given_labels = () if contract is None else contract.labels
    asked = _preprocess(args, contract)
    if contract is None:
        contract = _told_by_file(args.kmodel, kmodel, signature, asked, found.kind)
    # Of all the folders, also where a sample leaves some of them out.
    named = tuple(args.labels.split(",")) if args.labels else given_labels
    labels = named or class_folders(found.files)
    with shown(f"compare {args.kmodel.name}", quiet=args.json) as progress:
        reference = Reference(model)
        loader = Loader(reference.shape, asked, signature.input.planar)
        result = measure(
            reference,
            _engine(args, contract, signature, progress),
            contract,
            loader,
            each_sample(Folder.of(args.images, found.files, found.ignored), loader, args.samples),
            labels=labels,
            progress=progress,
        )
    made = [
        *(of_pair(asked.mean, asked.std) if found.kind == "images" else ()),
        *of_labels(named, [(out.name, out.shape) for out in contract.outputs]),
        *of_layers(kmodel),
    ]
    doubts = [*made, *weak_proof(result, made)]
    if args.labels and result.accuracy is None and not result.doubts:
        doubts.append(NoClassFolders(named, result.folder))
    told = sentences(doubts, OPTIONS)
    if args.json:
        facts = plain(replace(result, doubts=tuple(doubts)))
        print(pretty({**facts, "warnings": told}), end="")
        return 0
    print("\n".join(table(result)))
    for doubt in told:
        print(wrapped(f"warning: {doubt}"))
    return 0


def _refuse_kmodel(shown: str, data: bytes) -> None:
    from k210tasks.kmodel import KmodelError, detect

    try:
        detect(data)
    except KmodelError:
        return
    raise Swapped(shown)


def _given_contract(args: argparse.Namespace, kmodel: bytes) -> Contract | None:
    """What ``--contract`` names, else what lies where contracts do; raises where the one that
    is named is of another file."""
    from k210tasks.firmware.contract import Contract, ContractError

    if args.contract is None:
        found = contracts.of_kmodel("compare", args.kmodel, kmodel)
        return None if found is None else found[0]
    try:
        contract = Contract.from_json(read_bytes(str(args.contract)))
    except ContractError as error:
        raise UnusableContract(str(args.contract), error) from error
    if contract.sha256 not in (None, hashlib.sha256(kmodel).hexdigest()):
        raise OtherContract(str(args.contract), str(args.kmodel))
    return contract


def _preprocess(args: argparse.Namespace, contract: Contract | None) -> Preprocess:
    """What the arguments state and, where they are silent, the contract."""
    from dataclasses import replace

    asked = preprocess(args)
    if contract is None:
        return asked
    given = contract.input
    if asked.color is None:
        asked = replace(asked, color=given.color)
    if given.kind == "images" and asked.mean is None and asked.std is None and given.stated:
        asked = replace(asked, mean=given.mean, std=given.std)
    return asked


def _told_by_file(
    path: Path, data: bytes, signature: Signature, asked: Preprocess, kind: Kind
) -> Contract:
    """The contract that the kmodel's bytes and the arguments tell; ``kind``: of the samples."""
    from k210tasks.firmware.contract import Contract
    from k210tasks.kmodel import KmodelError, detect
    from k210tasks.steps.made import model_input, model_outputs
    from k210tasks.steps.vendor import listed

    try:
        version = detect(data).version
        if version in (3, 4):
            # Tensors with mean and std stated are pictures, made ready for the float model.
            fed: Kind = "images" if asked.mean is not None or asked.std is not None else kind
            made = listed(data, signature, asked, fed)
            given, outputs = made.input, made.outputs
            if given.dtype == "uint8" and fed == "tensors" and given.formula is None:
                raise CodesUnknown(str(path), given.zero_point)
        else:
            # Version 5 is not read here: nncase refuses an input of the wrong type.
            pixels = kind == "images" and len(signature.input.shape) == 4
            given = model_input(signature, asked, kind=kind, dtype="uint8" if pixels else "float32")
            outputs = model_outputs(signature, version)
    except KmodelError as error:
        raise UnreadableKmodel(str(path), error) from error
    return Contract(path.stem, version, "", given, outputs)


def _engine(
    args: argparse.Namespace, contract: Contract, signature: Signature, progress: Any
) -> ProjectSimulator | NncaseSimulator:
    """What runs the kmodel, which must take what the float model takes."""
    from k210tasks.kmodel import KmodelError
    from k210tasks.steps.engines import ProjectSimulator, engine_for

    def installed(name: str) -> Any:
        from k210tasks import toolchains

        toolchain = toolchains.get(name)
        toolchain.install(progress.tell, progress)
        return toolchain

    try:
        runtime = chosen_runtime(args, contract.profile)
        engine = engine_for(contract.kmodel, args.kmodel, installed, io.StringIO(), runtime)
    except KmodelError as error:
        raise UnreadableKmodel(str(args.kmodel), error) from error
    if isinstance(engine, ProjectSimulator):
        takes = engine.simulator.input
        if takes.nbytes != contract.input.nbytes:
            raise OtherModel(str(args.kmodel), takes, str(args.model), signature.input.shape)
    return engine
