"""``verify``: run the kmodel and the float model on the verify images, and measure.

Nothing is judged here: thresholds live in :mod:`k210tasks.steps.judge`, so that changing
one measures nothing again.
"""

from __future__ import annotations

from dataclasses import replace

from k210tasks.artifacts.layer_table import LayerTable
from k210tasks.engine.job import Job, StepFailed
from k210tasks.firmware.contract import Contract
from k210tasks.jsondata import loads, pretty
from k210tasks.reference.float_model import Reference
from k210tasks.samples.loading import Loader
from k210tasks.samples.truth import numbered, read_truth
from k210tasks.steps.calibrate import each_sample
from k210tasks.steps.engines import ProjectSimulator, engine_for
from k210tasks.steps.layer_snr import comparable, layer_errors
from k210tasks.steps.measure import measure
from k210tasks.steps.settings import VerifySettings
from k210tasks.steps.signature import model_of
from k210tasks.steps.table import details, table
from k210tasks.steps.tools import toolchain


def run(job: Job) -> None:
    """Inputs: kmodel, tflite, contract, images; layers where there are any to compare; of a
    detector truth, the folder of images with what else lies in it.

    Settings: VerifySettings. Outputs: measurement.
    """
    asked = job.told(VerifySettings)
    contract = Contract.from_json(job.file("contract").read_bytes())
    folder = job.folder("images")
    if not folder.files:
        raise StepFailed(f"{folder.path.as_posix()} holds no sample to verify with")
    model, signature = model_of(job, asked.inputs)
    reference = Reference(model)
    loader = Loader(reference.shape, asked.preprocess, signature.input.planar)
    folder = each_sample(folder, loader, asked.samples)
    truth = None
    if "truth" in job.inputs:
        shown = job.folder("images").path.as_posix()
        drawn = read_truth(job.file("truth"), folder.files, shown)
        truth = numbered(drawn, asked.labels or (), shown)
    engine = engine_for(
        contract.kmodel,
        job.file("kmodel"),
        lambda name: toolchain(job, name),
        job.log,
        asked.runtime,
    )
    result = measure(
        reference,
        engine,
        contract,
        loader,
        folder,
        labels=asked.labels,
        head=asked.head,
        truth=truth,
        progress=job.progress,
    )
    if "layers" in job.inputs and isinstance(engine, ProjectSimulator):
        rows = comparable(loads(LayerTable, job.file("layers").read_bytes()))
        layers = layer_errors(model, engine, rows, contract, loader, folder)
        result = replace(result, layers=layers)
    job.log.writelines(f"{line}\n" for line in (*table(result), *details(result)))
    job.outputs["measurement"].write_text(pretty(result), "utf-8")
