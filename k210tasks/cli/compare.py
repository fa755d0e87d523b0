"""``k210 compare``: a kmodel against its float model, the measurement of ``verify``."""

from __future__ import annotations

import argparse
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k210tasks.cli.contract_args import add_contract, count, preprocess
from k210tasks.cli.files import read_bytes
from k210tasks.errors import K210Error

if TYPE_CHECKING:
    from k210tasks.firmware.contract import Contract
    from k210tasks.preprocess import Preprocess
    from k210tasks.steps.job import Folder
    from k210tasks.steps.signature import Signature

EXAMPLE = (
    "k210 compare workspace/nn_xo.tflite workspace/nn_xo.kmodel "
    "--images images/nn_xo/verification --mean 0 --std 1 --labels cross,circle"
)


class UnreadableKmodel(K210Error):
    def __init__(self, shown: str, why: object) -> None:
        super().__init__(f"{shown}: {why}")


class OtherContract(K210Error):
    def __init__(self, contract: str, kmodel: str) -> None:
        super().__init__(
            f"{contract} was written for another file than {kmodel} (their sha256 differ); "
            "give the contract.json of this very kmodel, or none"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.tflite", help="the float model", type=Path)
    parser.add_argument(
        "kmodel", metavar="FILE.kmodel", help="what a compiler made of it", type=Path
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        required=True,
        help="pictures, or .npy or float32 .bin tensors; one folder a class: accuracy too",
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
        help="contract.json of the kmodel: how its input and outputs are quantised",
    )
    add_contract(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: argparse.Namespace) -> int:
    from k210tasks.images import Loader
    from k210tasks.progress import shown
    from k210tasks.samples import evenly_spaced, scan
    from k210tasks.steps.accuracy import class_folders
    from k210tasks.steps.engines import engine_for
    from k210tasks.steps.job import Folder
    from k210tasks.steps.jsontext import pretty
    from k210tasks.steps.judge import Facts, Thresholds, judge
    from k210tasks.steps.measure import measure
    from k210tasks.steps.reference import Reference
    from k210tasks.steps.signature import read_model
    from k210tasks.steps.table import table

    tflite, signature = read_model(args.model, str(args.model))
    found = scan(args.images)
    files = found.files if args.samples is None else evenly_spaced(found.files, args.samples)
    folder = Folder(args.images, files, found.ignored)
    asked = preprocess(args)
    contract = contract_for(args, signature, asked, folder)
    log = io.StringIO()
    with shown(f"compare {args.kmodel.name}", quiet=args.json) as progress:

        def installed(name: str) -> Any:
            from k210tasks import toolchains

            toolchain = toolchains.get(name)
            toolchain.install(progress.tell, progress)
            return toolchain

        reference = Reference(tflite)
        result = measure(
            reference,
            engine_for(contract.kmodel, args.kmodel, installed, log),
            contract,
            Loader(reference.shape, asked),
            folder,
            # Of all the folders, also where a sample leaves some of them out.
            labels=args.labels.split(",") if args.labels else class_folders(found.files),
            progress=progress,
        )
    stated = asked.stated or found.kind == "tensors"
    # Nothing is judged here, so no threshold can be missed.
    doubts = judge(result, Thresholds(-1.0), Facts(stated)).warnings
    if args.json:
        print(pretty({**result, "warnings": list(doubts)}), end="")
        return 0
    print("\n".join(table(result)))
    for doubt in doubts:
        print(f"warning: {doubt.replace(_KEYS, '--mean and --std')}")
    return 0


_KEYS = "preprocess.mean and preprocess.std"


def contract_for(
    args: argparse.Namespace, signature: Signature, asked: Preprocess, folder: Folder
) -> Contract:
    """The contract given, or what the kmodel's bytes and the arguments tell."""
    from k210tasks.firmware.contract import Contract
    from k210tasks.kmodel import KmodelError, detect
    from k210tasks.samples import kind_of
    from k210tasks.steps.made import model_input, model_outputs
    from k210tasks.steps.vendor import listed

    data = read_bytes(str(args.kmodel))
    if args.contract is not None:
        contract = Contract.from_json(read_bytes(str(args.contract)))
        if contract.sha256 not in (None, hashlib.sha256(data).hexdigest()):
            raise OtherContract(str(args.contract), str(args.kmodel))
        return contract
    try:
        version = detect(data).version
        if version in (3, 4):
            made = listed(data, signature, asked)
            given, outputs = made.input, made.outputs
        else:
            # Version 5 is not read here: nncase refuses an input of the wrong type.
            pixels = kind_of(Path(folder.files[0]).name) == "images"
            pixels = pixels and len(signature.input.shape) == 4
            given = model_input(signature, asked, pixels=pixels)
            outputs = model_outputs(signature, version)
    except KmodelError as error:
        raise UnreadableKmodel(str(args.kmodel), error) from error
    return Contract(args.kmodel.stem, version, "", given, outputs)
