"""``kmodel``: a float ``.tflite`` and its calibration to a ``.kmodel``.

Whichever compiler does it, the step succeeds only with a file whose magic and version are
right, and writes beside it what is known of it: the layers, the listing for people, and
the contract for the firmware.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from k210tasks.engine.job import Job
from k210tasks.firmware.contract import Contract
from k210tasks.samples.seen import Seen
from k210tasks.steps.calibrate import preprocess_of
from k210tasks.steps.doubtful import doubts_of
from k210tasks.steps.doubts import MODELS_YAML, Words, sentences
from k210tasks.steps.made import Made, layers_json, memory_lines, read_kmodel
from k210tasks.steps.signature import Signature, read_model


def run(job: Job, words: Words = MODELS_YAML) -> None:
    """Inputs: tflite, calibration, seen. Outputs: kmodel, layers, listing, contract.

    Settings: compiler, kmodel, method, preprocess, input, firmware, labels; for the built-in
    compiler also effort, weights, opcodes, small_maps, runtime. ``words``: in which the listing
    warns.
    """
    compiler, wanted = job.settings["compiler"], job.settings["kmodel"]
    tflite = job.file("tflite")
    _, signature = read_model(tflite, tflite.as_posix())
    made = _compiler(compiler)(job, signature)
    data = read_kmodel(job)

    seen = Seen.from_json(job.file("seen").read_text("utf-8")) if "seen" in job.inputs else None
    labels = job.settings["labels"]
    contract = Contract(
        model=job.model,
        kmodel=wanted,
        profile=job.settings["firmware"],
        input=made.input,
        outputs=made.outputs,
        labels=tuple(labels or ()),
        nbytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        main_memory=made.main_bytes,
        calibration=() if seen is None else tuple(seen.digests),
    )
    doubts = doubts_of(contract, preprocess_of(job.settings), data, seen, made.warnings)
    warnings = [f"warning: {text}" for text in sentences(doubts, words)]
    lines = [
        made.listing.rstrip("\n"),
        f"Input: {made.input.sentence}",
        *memory_lines(made, wanted),
        *warnings,
    ]
    listing = "\n".join(line for line in lines if line) + "\n"
    job.log.write(listing)
    job.outputs["contract"].write_text(contract.to_json(), "utf-8")
    layers = layers_json(made, compiler, wanted, len(data), doubts)
    job.outputs["layers"].write_text(layers, "utf-8")
    job.outputs["listing"].write_text(listing, "utf-8")


def _compiler(name: str) -> Callable[[Job, Signature], Made]:
    """The function that compiles with ``name``; its module is imported only now."""
    if name == "builtin":
        from k210tasks.steps import builtin

        return builtin.compile
    from k210tasks.steps import vendor

    return vendor.compile_nncase if name.startswith("nncase") else vendor.compile_ncc
