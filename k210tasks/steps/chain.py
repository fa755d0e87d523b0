"""From what models.yaml says to the plans of every step of the chain, in order.

Knows file names, roles and settings; knows nothing of doit and opens no file. The role of the
float model is "tflite" in all keys, also where it is an ``.onnx``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from k210tasks.engine.plan import (
    FileInput,
    Input,
    Judge,
    SamplesInput,
    StepPlan,
    TreeInput,
)
from k210tasks.jsondata import plain
from k210tasks.manifest.compilers import COMPILERS
from k210tasks.manifest.model import EXTERNAL, IN_PLACE, Manifest, Model
from k210tasks.profiles import PROFILES
from k210tasks.steps.chain_firmware import addresses, firmware_plan, vectors_plan
from k210tasks.steps.settings import (
    BuiltinSettings,
    CalibrateSettings,
    ConvertSettings,
    JudgeSettings,
    KmodelSettings,
    Sizes,
    VerifySettings,
    told,
)
from k210tasks.steps.versions import VERSIONS

#: distributions whose versions shape what a step writes
_PICTURES = ("numpy", "Pillow")
_FLOAT_REFERENCE = ("ai-edge-litert",)
_ONNX_REFERENCE = ("onnxruntime",)


@dataclass(frozen=True, slots=True)
class Chain:
    """``models``: name -> its plans, in order. ``beyond``: of what is made from models, vectors
    and firmware images. ``toolchains``: those the plans name."""

    models: dict[str, tuple[StepPlan, ...]] = field(default_factory=dict)
    toolchains: tuple[str, ...] = ()
    beyond: tuple[StepPlan, ...] = ()

    def plans(self) -> Iterator[StepPlan]:
        for plans in self.models.values():
            yield from plans
        yield from self.beyond


def chain_of(manifest: Manifest, prefix: str = "") -> Chain:
    """The plans of a manifest. ``prefix`` stands before every task's name."""
    models = {
        model.name: tuple(model_plans(model, prefix, manifest.root)) for model in manifest.models
    }
    by_name = {model.name: model for model in manifest.models}
    places = addresses(manifest)
    beyond = [vectors_plan(model, places[model.name], prefix) for model in manifest.models]
    beyond += [firmware_plan(image, by_name, prefix) for image in manifest.firmware]
    chain = Chain(models, beyond=tuple(beyond))
    tools = {tool for plan in chain.plans() for tool in plan.tools}
    return replace(chain, toolchains=tuple(sorted(tools)))


def model_plans(model: Model, prefix: str = "", root: str = "") -> Iterator[StepPlan]:
    """convert, calibrate, kmodel, verify, as far as the model has them. ``root``: what its paths
    start from."""
    name = model.name
    build = f"build/{name}"
    compiler = COMPILERS[model.compiler]
    effective = model.preprocess.effective

    def plan(
        step: str, version: str, after: Iterable[str] = (), settings: object = None, **more: Any
    ) -> StepPlan:
        return StepPlan(
            task=f"{prefix}{step}:{name}",
            step=step,
            subject=name,
            version=VERSIONS[version],
            settings={} if settings is None else told(settings),
            log=f"{build}/{step}.log",
            optional=model.optional,
            made_by=model.made_by,
            after=tuple(f"{prefix}{task}:{name}" for task in after),
            **more,
        )

    tflite = model.source
    upstream: list[str] = []
    if model.source_kind not in IN_PLACE:
        tflite = f"workspace/{name}.tflite"
        source: Input = FileInput(model.source)
        if model.source_kind == "savedmodel":
            source = TreeInput(model.source)
        yield plan(
            "convert",
            "convert",
            run="k210tasks.steps.convert:run",
            settings=ConvertSettings(
                model.source_kind,
                None if model.inputs is None else dict(model.inputs),
                model.outputs,
            ),
            inputs={"source": source},
            outputs={"tflite": tflite},
            tools=("tensorflow",),
            doc=f"{model.source} → {tflite}",
        )
        upstream.append("convert")

    onnx = model.source_kind == "onnx"
    sizes = dict(model.inputs) if onnx and model.inputs is not None else None
    reference = _ONNX_REFERENCE if onnx else _FLOAT_REFERENCE
    float_model: dict[str, Input] = {"tflite": FileInput(tflite)}
    if onnx and os.path.exists(os.path.join(root, tflite + EXTERNAL)):
        float_model["external"] = FileInput(tflite + EXTERNAL)
    kmodel_inputs = dict(float_model)
    if model.images is not None:
        calibration = f"{build}/calibration.npz"
        yield plan(
            "calibrate",
            f"calibrate:{compiler.family}",
            after=upstream,
            run="k210tasks.steps.calibrate:run",
            settings=CalibrateSettings(compiler.family, effective, model.calibrate.samples, sizes),
            inputs={
                **float_model,
                "images": SamplesInput(model.images, model.calibrate.samples),
            },
            outputs={"calibration": calibration, "seen": f"{build}/calibration.json"},
            libraries=(*_PICTURES, *reference) if compiler.family == "builtin" else _PICTURES,
            doc=f"{model.images} → {calibration}",
        )
        kmodel_inputs["calibration"] = FileInput(calibration)
        kmodel_inputs["seen"] = FileInput(f"{build}/calibration.json")
        upstream.append("calibrate")

    kmodel = f"workspace/{name}.kmodel"
    contract = f"{build}/contract.json"
    yield plan(
        "kmodel",
        f"kmodel:{model.compiler}",
        after=upstream,
        run="k210tasks.steps.kmodel:run",
        settings=_kmodel_settings(model, sizes),
        inputs=kmodel_inputs,
        outputs={
            "kmodel": kmodel,
            "layers": f"{build}/layers.json",
            "listing": f"{build}/listing.txt",
            "contract": contract,
        },
        tools=(compiler.toolchain,) if compiler.toolchain else (),
        libraries=("numpy",) if compiler.family == "builtin" else (),
        doc=f"{tflite} → {kmodel} (kmodel {model.kmodel}, {model.compiler})",
    )
    upstream = [*upstream, "kmodel"]

    made: dict[str, Input] = {
        "kmodel": FileInput(kmodel),
        "contract": FileInput(contract),
        "layers": FileInput(f"{build}/layers.json"),
    }
    images = None if model.verify is None else (model.verify.images or model.images)
    judge = Judge(
        run="k210tasks.steps.judge:run",
        version=VERSIONS["judge"],
        settings=plain(_judge_settings(model, measured=images is not None)),
        outputs={"verify": f"{build}/verify.json"},
    )
    if model.verify is None or images is None:
        yield plan(
            "verify",
            "judge",
            after=upstream,
            run=None,
            inputs=made,
            judge=judge,
            doc=f"{kmodel}: not verified (verify: off)",
        )
        return
    # The calibration images stand in only as far as they were sampled.
    samples = None if model.verify.images is not None else model.calibrate.samples
    beside: dict[str, Input] = {}
    if model.head is not None and not images.lower().endswith(".npy"):
        beside["truth"] = TreeInput(images)  # boxes that people have drawn may lie there
    simulated = "nncase-1.9.0" if model.kmodel == 5 else "simulator"
    yield plan(
        "verify",
        f"verify:{simulated}",
        after=upstream,
        run="k210tasks.steps.verify:run",
        settings=VerifySettings(
            model.kmodel,
            effective,
            None if model.kmodel == 5 else PROFILES[model.firmware].runtime,
            model.labels,
            samples,
            sizes,
            model.head,
        ),
        inputs={
            **made,
            **float_model,
            "images": SamplesInput(images, samples),
            **beside,
        },
        outputs={"measurement": f"{build}/measurement.json"},
        tools=("nncase-1.9.0",) if model.kmodel == 5 else (),
        libraries=(*_PICTURES, *reference),
        judge=judge,
        doc=f"{kmodel} against {tflite} on {images}",
    )


def _kmodel_settings(model: Model, sizes: Sizes | None) -> KmodelSettings:
    compiler = COMPILERS[model.compiler]
    settings = KmodelSettings(
        model=model.name,
        compiler=model.compiler,
        kmodel=model.kmodel,
        method=compiler.methods.get(model.calibrate.method, model.calibrate.method),
        preprocess=model.preprocess,
        input=model.input,
        firmware=model.firmware,
        labels=model.labels,
        inputs=sizes,
    )
    if compiler.family != "builtin":
        return settings
    return BuiltinSettings(
        **vars(settings),
        effort=model.effort,
        weights=model.weights,
        opcodes=model.opcodes,
        small_maps=model.small_maps,
        runtime=PROFILES[model.firmware].runtime,
    )


def _judge_settings(model: Model, *, measured: bool) -> JudgeSettings:
    verify = model.verify
    return JudgeSettings(
        verify="off" if verify is None or not measured else "on",
        min_cosine=None if verify is None else verify.min_cosine,
        min_top1=None if verify is None else verify.min_top1,
        firmware=model.firmware,
        kmodel=model.kmodel,
        sram_free=model.sram_free,
        min_f1=None if verify is None else verify.min_f1,
        max_map_loss=None if verify is None else verify.max_map_loss,
    )
