"""A chain whose models are tiny and made at once, and whose firmware images are real."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from k210tasks.engine.job import Job
from k210tasks.engine.plan import StepPlan
from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.graph import tasks as graph
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v3_layers import Output as Range
from k210tasks.kmodel.v3_layers import Softmax
from k210tasks.manifest.model import Manifest
from k210tasks.steps import firmware as real
from k210tasks.steps.chain import Chain
from k210tasks.toolchains import ToolchainUnavailable
from tests.graph import toy

HERE = "tests.firmware.packing"

DODO = """\
from tests.firmware import packing
from tests.graph import toy

DOIT_CONFIG = toy.config()
models = packing.Tasks()
"""


class Tasks(graph.Tasks):
    def chain(self, manifest: Manifest) -> Chain:
        chain = super().chain(manifest)
        return Chain(
            {name: tuple(map(quick, plans)) for name, plans in chain.models.items()},
            beyond=tuple(map(quick, chain.beyond)),
        )


def quick(plan: StepPlan) -> StepPlan:
    if plan.step in ("kmodel", "firmware"):
        return dataclasses.replace(plan, run=f"{HERE}:{plan.step}", tools=(), libraries=())
    return toy.toy(plan)


def firmware(job: Job) -> None:
    """The real one, noted as computed."""
    real.run(job)
    computed(job)


def kmodel(job: Job) -> None:
    """A softmax of two, whose working memory tells calibrations apart."""
    digest = hashlib.sha256(job.file("calibration").read_bytes()).digest()
    memory = 16 + 8 * int.from_bytes(digest[:2], "little")
    path = job.root / "toy.json"
    wish = (json.loads(path.read_text()) if path.exists() else {}).get(job.name)
    if wish == "unavailable":
        raise ToolchainUnavailable("ncc has no program for this platform")
    if wish == "coarse":
        memory = 16  # a compiler that finds the same, whatever the images
    model = KmodelV3(
        layers=[Softmax(in_mem=0, out_mem=8, channels=2)], outputs=[Range(8, 8)], main_mem=memory
    )
    data = model.to_bytes()
    contract = Contract(
        model=job.model,
        kmodel=3,
        profile=job.settings["firmware"],
        input=Input((2,), "flat", "float32"),
        outputs=(Output("y", (2,)),),
        labels=tuple(job.settings["labels"] or ()),
        nbytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        main_memory=memory,
    )
    job.outputs["kmodel"].write_bytes(data)
    job.outputs["contract"].write_text(contract.to_json())
    job.outputs["layers"].write_text("{}")
    job.outputs["listing"].write_text("")
    computed(job)


def computed(job: Job) -> None:
    with (job.root / "computed.log").open("a", encoding="utf-8") as file:
        file.write(job.name + "\n")
