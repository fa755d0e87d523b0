"""One model: every file its steps may have left, read as far as it is there and makes sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k210tasks import jsondata
from k210tasks.artifacts.layer_table import LayerTable
from k210tasks.artifacts.measurement import Measurement
from k210tasks.artifacts.verification import Verification, Weighed
from k210tasks.errors import K210Error
from k210tasks.firmware.contract import Contract
from k210tasks.firmware.entry import Entry
from k210tasks.firmware.snippets import load_snippet
from k210tasks.manifest.model import Model
from k210tasks.profiles import PROFILES, SRAM_BYTES
from k210tasks.report.builds import build_of
from k210tasks.report.facts import Build, Log, ModelFacts, Outcome
from k210tasks.report.histograms import histograms
from k210tasks.report.past import Previous
from k210tasks.report.recorded import StepRecord, digest_of, read_bytes
from k210tasks.report.samples import samples
from k210tasks.samples.preprocess import PerChannel, as_text
from k210tasks.wording import count, plain, shape

STEPS = ("convert", "calibrate", "kmodel", "verify")
#: Of a log, its end: the verdict and the error stand there.
LOG_CHARACTERS = 12_000


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a model beside its files.

    ``records``: step -> the record of its last success. ``failures``: step -> the message it
    failed with last. ``address``: where it lies in flash.
    """

    records: Mapping[str, StepRecord]
    failures: Mapping[str, str]
    address: int


def model_facts(model: Model, root: Path, known: Known, previous: Previous) -> ModelFacts:
    """Everything a page shows of ``model``. Never fails: what is not there is not known."""
    folder = root / "build" / model.name
    kmodel = read_bytes(root / f"workspace/{model.name}.kmodel")
    table = jsondata.known(LayerTable, read_bytes(folder / "layers.json"))
    told = read_bytes(folder / "verify.json")
    verify, measured = jsondata.known(Verification, told), jsondata.known(Measurement, told)
    contract = _contract(folder / "contract.json")
    record = known.records.get("kmodel", StepRecord())

    build: Build | None = None
    before, why = None, "there is no kmodel yet"
    outdated = bool(set(known.failures) & {"convert", "calibrate", "kmodel"}) and kmodel is not None
    if kmodel is not None:
        made = digest_of(record.outputs, "kmodel")
        of = digest_of(known.records.get("verify", StepRecord()).inputs, "kmodel")
        if of not in (made, None):  # of another kmodel
            outdated |= verify is not None
        build = build_of(
            "this build",
            kmodel,
            table,
            measured if of in (made, None) else None,
            main_bytes=None if contract is None else contract.main_memory,
            built=record.finished,
        )
        before, why = previous.of(model.name, build.sha256)
    sram = None if verify is None else verify.sram
    images = None if model.verify is None else (model.verify.images or model.images)
    snippet, snippet_name = _snippet(model, contract, known.address, build)
    labels = model.labels or (() if contract is None else contract.labels)
    return ModelFacts(
        name=model.name,
        source=model.source,
        compiler=model.compiler,
        profile=model.firmware,
        kmodel=model.kmodel,
        outcome=_outcome(model, known, verify, table, outdated, built=kmodel is not None),
        build=build,
        previous=before,
        no_previous=why,
        sram_needed=_needed(sram, build),
        sram_limit=(0 if sram is None else sram.available)
        or model.sram_free
        or PROFILES[model.firmware].sram_free
        or SRAM_BYTES,
        sram_note="" if sram is None else sram.sentence,
        histograms=()
        if build is None
        else histograms(folder / "calibration.npz", table, build.layers),
        samples=samples(measured, labels, root / images) if images and measured else (),
        images=images,
        contract=_contract_rows(contract),
        snippet=snippet,
        snippet_name=snippet_name,
        logs=tuple(_logs(folder, model.name)),
        settings=_settings(model, contract),
    )


def _needed(sram: Weighed | None, build: Build | None) -> int | None:
    """Bytes of SRAM a board needs: the file and its working memory."""
    if sram is not None:
        return sram.needed
    if build is None or build.nbytes is None:
        return None
    return build.nbytes + (build.main_bytes or 0)


def _outcome(
    model: Model,
    known: Known,
    verify: Verification | None,
    table: LayerTable | None,
    outdated: bool,
    *,
    built: bool,
) -> Outcome:
    headline = "" if verify is None else verify.headline
    # What the kmodel step doubted is among what verify warns of, once it has run.
    warnings = () if (found := verify or table) is None else found.warnings
    failures = () if verify is None else verify.failures
    for step in STEPS:
        record = known.records.get(step, StepRecord())
        if record.outcome == "skipped":
            return Outcome("skipped", headline, step, (record.because,), warnings, outdated)
        if step in known.failures:
            messages = (failures if step == "verify" else ()) or (known.failures[step],)
            return Outcome("failed", headline, step, messages, warnings, outdated)
    if not built:
        return Outcome("missing", "not built yet")
    if verify is not None and verify.verified is True:
        return Outcome("verified", headline, warnings=warnings, outdated=outdated)
    if verify is not None and verify.verified is False:
        return Outcome("failed", headline, "verify", failures, warnings, outdated)
    return Outcome(
        "unverified",
        headline or ("not verified (verify: off)" if model.verify is None else "not verified yet"),
        warnings=warnings,
        outdated=outdated,
    )


def _contract(path: Path) -> Contract | None:
    data = read_bytes(path)
    if data is None:
        return None
    try:
        return Contract.from_json(data)
    except (K210Error, UnicodeDecodeError):
        return None


def _contract_rows(contract: Contract | None) -> tuple[tuple[str, str], ...]:
    """The contract as a firmware's author reads it."""
    if contract is None:
        return ()
    given = contract.input
    order = {"planar": "channels, height, width; one plane after the other", "flat": "row-major"}
    rows = [
        ("input", f"{given.name}: {given.dtype} {shape(given.shape)}"),
        ("order", order[given.layout]),
        ("input bytes", count(given.nbytes)),
    ]
    if given.color is not None:
        rows.append(("colour", given.color))
    if given.kind == "tensors":
        rows.append(("values", given.numbers))
    elif given.layout == "planar":
        stated = "" if given.stated else " (not stated in models.yaml: the defaults)"
        meaning = f"(pixel / 255 − {as_text(given.mean)}) / {as_text(given.std)}{stated}"
        feed = "raw pixels 0..255; the model computes" if given.dtype == "uint8" else "floats:"
        rows.append(("values", f"{feed} {meaning}"))
    if given.scale is not None:
        scale, zero = (_plain_each(v) for v in (given.scale, given.zero_point))
        rows.append(("quantised", f"real = {scale} × (code − {zero})"))
    for i, out in enumerate(contract.outputs):
        text = f"{out.name}: {out.dtype} {shape(out.shape)}"
        if out.scale is not None:
            text += f", real = {plain(out.scale, 6)} × (code − {plain(out.zero_point, 6)})"
        rows.append((f"output {i}", text))
    if contract.labels:
        rows.append(("labels", ", ".join(contract.labels)))
    if contract.sha256:
        rows.append(("sha256", contract.sha256))
    return tuple(rows)


def _plain_each(value: PerChannel | None) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(plain(v, 6) for v in value)}]"
    return plain(value, 6)


def _snippet(
    model: Model, contract: Contract | None, address: int, build: Build | None
) -> tuple[str | None, str]:
    if contract is None or build is None or build.nbytes is None:
        return None, ""
    entry = Entry(contract, address, build.nbytes, model.anchors, model.limits)
    try:
        made = load_snippet(model.name, PROFILES[model.firmware], [entry])
    except (K210Error, ValueError, ArithmeticError, IndexError):
        return None, ""
    return made.text, f"load{made.suffix}"


def _logs(folder: Path, name: str) -> list[Log]:
    found = []
    for step in STEPS:
        data = read_bytes(folder / f"{step}.log")
        if data is not None:
            text = data.decode("utf-8", "replace")
            cut = len(text) > LOG_CHARACTERS
            found.append(Log(step, f"build/{name}/{step}.log", text[-LOG_CHARACTERS:], cut))
    return found


def _settings(model: Model, contract: Contract | None) -> tuple[tuple[str, str], ...]:
    """What models.yaml says of it, defaults filled in."""
    pre = model.preprocess
    tensors = contract is not None and contract.input.kind == "tensors"
    rows: list[tuple[str, Any]] = [
        ("source", model.source),
        ("images", model.images or "none"),
        ("firmware", model.firmware),
        ("compiler", model.compiler),
        ("kmodel", model.kmodel),
        ("calibrate", f"{model.calibrate.method}, at most {model.calibrate.samples} samples"),
    ]
    if not tensors:  # of these nothing is asked of pictures
        stated = "" if pre.stated else " (not stated)"
        scaling = f"mean {as_text(pre.effective_mean)}, std {as_text(pre.effective_std)}"
        rows.append(("preprocess", f"{scaling}{stated}, {pre.resize}"))
    if model.compiler == "builtin":
        rows.append(("effort", model.effort))
        rows.append(("weights", f"{model.weights} bits"))
        rows.append(("small maps", model.small_maps))
    if model.verify is not None:
        limits = {
            key: getattr(model.verify, key)
            for key in ("min_f1", "max_map_loss", "min_cosine", "min_top1")
        }
        judged = (f"{key} {limit:g}" for key, limit in limits.items() if limit is not None)
        rows.append(("verify", ", ".join(judged)))
    else:
        rows.append(("verify", "off"))
    return tuple((key, str(value)) for key, value in rows)


def addresses(manifest_images: Sequence[Any], placed: Mapping[str, int]) -> dict[str, int]:
    """Where models lie: as packed, else as models.yaml places them."""
    given = {
        part.model: part.address
        for image in reversed(manifest_images)
        for part in image.parts
        if part.model is not None and part.address is not None
    }
    return {**given, **placed}
