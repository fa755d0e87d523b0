"""The plans after the chain: vectors of a model, and the firmware images that hold models."""

from __future__ import annotations

from collections.abc import Mapping

from k210tasks.engine.plan import FileInput, Input, Judge, SamplesInput, StepPlan
from k210tasks.jsondata import plain
from k210tasks.manifest.model import Firmware, Manifest, Model
from k210tasks.profiles import PROFILES
from k210tasks.steps.settings import (
    FirmwareJudgeSettings,
    FirmwareSettings,
    PartSettings,
    VectorsSettings,
    told,
)
from k210tasks.steps.versions import VERSIONS

#: Images that become vectors: enough to tell a wrong input from a right one.
VECTORS = 3


def vectors_plan(model: Model, address: int, prefix: str) -> StepPlan:
    """Raw inputs and expected outputs. ``address``: where the model lies in flash."""
    build = f"build/{model.name}"
    inputs: dict[str, Input] = {
        "kmodel": FileInput(f"workspace/{model.name}.kmodel"),
        "contract": FileInput(f"{build}/contract.json"),
    }
    images = model.verify.images if model.verify is not None else None
    if (images := images or model.images) is not None:
        inputs["images"] = SamplesInput(images, VECTORS)
    return StepPlan(
        task=f"{prefix}vectors:{model.name}",
        step="vectors",
        subject=model.name,
        version=VERSIONS["vectors"],
        run="k210tasks.steps.vectors:run",
        settings=told(
            VectorsSettings(
                model.preprocess.effective,
                model.firmware,
                None if model.kmodel == 5 else PROFILES[model.firmware].runtime,
                address,
                VECTORS,
                channels_first=model.source_kind == "onnx",
            )
        ),
        inputs=inputs,
        outputs={"vectors": f"{build}/vectors/"},
        tools=("nncase-1.9.0",) if model.kmodel == 5 else (),
        libraries=("numpy", "Pillow"),
        log=f"{build}/vectors.log",
        optional=model.optional,
        made_by=model.made_by,
        after=(f"{prefix}kmodel:{model.name}",),
        doc=f"raw inputs and expected outputs → {build}/vectors/",
    )


def firmware_plan(image: Firmware, models: Mapping[str, Model], prefix: str) -> StepPlan:
    """One kfpkg. It waits for the verdict on each model in it, and is not made on a bad one."""
    from k210tasks.firmware.entry import suffix_of  # only where there are images

    inputs: dict[str, Input] = {}
    parts: list[PartSettings] = []
    for i, part in enumerate(image.parts):
        if part.model is None:
            assert part.bin is not None
            inputs[f"part{i}"] = FileInput(part.bin)
        else:
            inputs[f"part{i}"] = FileInput(f"workspace/{part.model}.kmodel")
            inputs[f"contract{i}"] = FileInput(f"build/{part.model}/contract.json")
        of = None if part.model is None else models[part.model]
        boxes = (None, None) if of is None else (of.anchors or None, of.limits)
        parts.append(PartSettings(part.bin, part.model, part.address, part.sha256_prefix, *boxes))
    held = [models[part.model] for part in image.parts if part.model is not None]
    folder = f"build/{image.name}.firmware"
    suffix = suffix_of(PROFILES[image.profile])
    return StepPlan(
        task=f"{prefix}firmware:{image.name}",
        step="firmware",
        subject=image.name,
        version=VERSIONS["firmware"],
        run="k210tasks.steps.firmware:run",
        settings=plain(FirmwareSettings(image.profile, tuple(parts))),
        inputs=inputs,
        outputs={"kfpkg": f"build/{image.name}.kfpkg", "load": f"{folder}/load{suffix}"},
        judge=Judge(
            run="k210tasks.steps.firmware:judge",
            version=VERSIONS["judge:firmware"],
            settings=plain(
                FirmwareJudgeSettings(
                    image.profile,
                    tuple(m.name for m in held if m.verify is None),
                    {m.name: m.sram_free for m in held},
                )
            ),
            outputs={"listing": f"{folder}/listing.txt"},
        ),
        log=f"{folder}/firmware.log",
        optional=any(model.optional for model in held),
        made_by=tuple(dict.fromkeys(task for part in image.parts for task in part.made_by)),
        after=tuple(dict.fromkeys(f"{prefix}verify:{model.name}" for model in held)),
        doc=f"{len(image.parts)} parts → build/{image.name}.kfpkg",
    )


def addresses(manifest: Manifest) -> dict[str, int]:
    """Where each model lies, as far as it is known before anything is built.

    The address an image gives it, else the base of its profile.
    """
    given = {
        part.model: part.address
        for image in reversed(manifest.firmware)
        for part in image.parts
        if part.model is not None and part.address is not None
    }
    return {
        model.name: given.get(model.name, PROFILES[model.firmware].model_base)
        for model in manifest.models
    }
