"""``kmodel``: a float model and its calibration to a ``.kmodel``.

Whichever compiler does it, the step succeeds only with a file whose magic and version are
right, and writes beside it what is known of it: the layers, the listing for people, and
the contract for the firmware.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from k210tasks.artifacts.doubts import MODELS_YAML, Words, sentences
from k210tasks.artifacts.layer_table import LayerTable
from k210tasks.engine.job import Job
from k210tasks.firmware.contract import Contract
from k210tasks.jsondata import loads, pretty
from k210tasks.samples.seen import Seen
from k210tasks.steps.doubtful import doubts_of
from k210tasks.steps.made import Made, memory_lines, read_kmodel
from k210tasks.steps.settings import KmodelSettings
from k210tasks.steps.signature import Signature, model_of

if TYPE_CHECKING:
    from k210tasks.reference.float_model import Given


def run(job: Job, words: Words = MODELS_YAML) -> None:
    """Inputs: tflite, calibration, seen. Outputs: kmodel, layers, listing, contract.

    Settings: KmodelSettings, for the built-in compiler BuiltinSettings. ``words``: in which the
    listing warns.
    """
    asked = job.told(KmodelSettings)
    model, signature = model_of(job, asked.inputs)
    made = _compiler(asked.compiler)(job, model, signature)
    data = read_kmodel(job)

    seen = loads(Seen, job.file("seen").read_bytes()) if "seen" in job.inputs else None
    contract = Contract(
        model=job.model,
        kmodel=asked.kmodel,
        profile=asked.firmware,
        input=made.input,
        outputs=made.outputs,
        labels=asked.labels or (),
        nbytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        main_memory=made.main_bytes,
        calibration=() if seen is None else tuple(seen.digests),
    )
    doubts = doubts_of(contract, asked.preprocess, data, seen, made.warnings)
    warnings = [f"warning: {text}" for text in sentences(doubts, words)]
    lines = [
        made.listing.rstrip("\n"),
        f"Input: {made.input.sentence}",
        *memory_lines(made, asked.kmodel),
        *warnings,
    ]
    listing = "\n".join(line for line in lines if line) + "\n"
    job.log.write(listing)
    job.outputs["contract"].write_text(contract.to_json(), "utf-8")
    table = LayerTable(
        compiler=asked.compiler,
        kmodel=asked.kmodel,
        bytes=len(data),
        kpu_bytes=made.kpu_bytes,
        main_bytes=made.main_bytes,
        doubts=tuple(doubts),
        warnings=tuple(sentences(doubts, MODELS_YAML)),
        layers=made.layers,
    )
    job.outputs["layers"].write_text(pretty(table), "utf-8")
    job.outputs["listing"].write_text(listing, "utf-8")


def _compiler(name: str) -> Callable[[Job, Given, Signature], Made]:
    """The function that compiles with ``name``; its module is imported only now."""
    if name == "builtin":
        from k210tasks.steps import builtin

        return builtin.compile
    from k210tasks.steps import vendor

    return vendor.compile_nncase if name.startswith("nncase") else vendor.compile_ncc
