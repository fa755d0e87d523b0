"""``firmware``: binaries and kmodels to a kfpkg, the lines that load them, and a listing.

The parts are checked here once more, with their real sizes and contents, whatever was
planned.
"""

from __future__ import annotations

import hashlib

from k210tasks.engine.job import Job
from k210tasks.engine.plan import Verdict
from k210tasks.firmware import errors, flash_layout
from k210tasks.firmware.contract import Contract
from k210tasks.firmware.describe import describe
from k210tasks.firmware.entry import Entry
from k210tasks.firmware.kfpkg import Kfpkg, Part, read, write
from k210tasks.firmware.snippets import load_snippet
from k210tasks.firmware.sram import fit
from k210tasks.kmodel import KmodelError, detect
from k210tasks.profiles import PROFILES
from k210tasks.steps.settings import FirmwareJudgeSettings, FirmwareSettings


def run(job: Job) -> None:
    """Inputs: part0, part1, …, and contractN of each model. Settings: FirmwareSettings.
    Outputs: kfpkg, load."""
    asked = job.told(FirmwareSettings)
    image, profile = job.model, PROFILES[asked.profile]
    pieces: list[flash_layout.Piece] = []
    content: dict[int, bytes] = {}
    contracts: dict[int, Contract] = {}
    for i, part in enumerate(asked.parts):
        content[i] = data = job.file(f"part{i}").read_bytes()
        if part.model is not None:
            contracts[i] = Contract.from_json(job.file(f"contract{i}").read_bytes())
            _check_model(image, part.model, data, contracts[i])
        pieces.append(
            flash_layout.Piece(
                part.model or part.bin or "",
                part.model is not None,
                len(data),
                part.address,
                part.sha256_prefix,
            )
        )
    for contract in contracts.values():
        flash_layout.check_profile(
            image, contract.model, contract.profile, contract.kmodel, profile
        )
    placed = flash_layout.plan(image, pieces, profile)
    parts, entries = [], []
    for place in placed:
        i = next(n for n, piece in enumerate(pieces) if piece is place.piece)
        made = contracts.get(i)
        parts.append(
            Part(
                place.address,
                content[i],
                place.sha256_prefix,
                source=place.piece.name,
                is_model=place.piece.is_model,
                kmodel=None if made is None else made.kmodel,
            )
        )
        if made is not None:
            of = asked.parts[i]
            entries.append(Entry(made, place.address, len(content[i]), of.anchors, of.limits))
        job.progress(len(parts), len(placed), "packing")
    job.outputs["kfpkg"].write_bytes(write(Kfpkg(tuple(parts), image, profile.name)))
    snippet = load_snippet(image, profile, entries)
    job.outputs["load"].write_text(snippet.text, "utf-8", newline="\n")


def judge(job: Job) -> Verdict:
    """Inputs: kfpkg, contractN. Settings: FirmwareJudgeSettings. Outputs: listing."""
    asked = job.told(FirmwareJudgeSettings)
    profile = PROFILES[asked.profile]
    data = job.file("kfpkg").read_bytes()
    image = read(data, f"{job.model}.kfpkg")
    warnings = [
        f"model {name} is packed without being verified (verify: off)" for name in asked.unverified
    ]
    warnings += flash_layout.warnings([_placed(part) for part in image.parts], profile)
    program = sum(len(part.data) for part in image.parts if part.sha256_prefix)
    for role in sorted(job.inputs):
        if role.startswith("contract") and program:  # alone, verify has weighed them
            warnings += _weigh(Contract.from_json(job.file(role).read_bytes()), asked, program)
    told = "".join(f"warning: {text}\n" for text in warnings)
    listing = describe(data, f"{job.model}.kfpkg") + told
    job.outputs["listing"].write_text(listing, "utf-8", newline="\n")
    return Verdict(True, "\n      ".join(f"warning: {text}" for text in warnings))


def _weigh(contract: Contract, asked: FirmwareJudgeSettings, program: int) -> list[str]:
    """Whether the model fits beside this very program, where nothing better is known."""
    found = fit(
        contract.model,
        contract.nbytes or 0,
        contract.main_memory,
        PROFILES[asked.profile],
        asked.sram_free.get(contract.model),
        program,
    )
    return [] if found.fits or found.known != "no" else [found.sentence]


def _placed(part: Part) -> flash_layout.Placed:
    piece = flash_layout.Piece(part.source or part.bin, part.is_model, len(part.data))
    return flash_layout.Placed(piece, part.address, part.sha256_prefix)


def _check_model(image: str, model: str, data: bytes, contract: Contract) -> None:
    """The kmodel is one, and the one its contract speaks of."""
    try:
        version = detect(data).version
    except KmodelError as error:
        raise errors.NotAKmodel(image, model, str(error)) from None
    digest = hashlib.sha256(data).hexdigest()
    if version != contract.kmodel or contract.sha256 not in (None, digest):
        raise errors.ContractDiffers(image, model)
