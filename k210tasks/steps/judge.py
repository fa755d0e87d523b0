"""Judge a measurement: thresholds and facts against numbers already taken. Cheap, no numpy.

``verify.json`` is the measurement with the judgement beside it, written also when the
judgement is bad.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from k210tasks.engine.job import Job
from k210tasks.engine.plan import Verdict
from k210tasks.firmware.contract import Contract
from k210tasks.firmware.sram import Fit, fit
from k210tasks.profiles import PROFILES
from k210tasks.report.wording import decimals
from k210tasks.report.wording import share as percent
from k210tasks.samples.folder import kind_of_sample
from k210tasks.steps.jsontext import pretty
from k210tasks.steps.label_order import better_order

#: Fewer samples prove little.
FEW = 10
_INDENT = " " * 6

UNSTATED = (
    "mean and std are not stated, 0 and 1 are used: the commonest fault is a wrong pair; "
    "state preprocess.mean and preprocess.std"
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """``min_cosine``: of the mean over samples of the worst output. ``min_top1``: share."""

    min_cosine: float
    min_top1: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a judgement depends on beside the measurement."""

    stated: bool = True  # mean and std are written down by the user
    fit: Fit | None = None  # None: not weighed


@dataclass(frozen=True, slots=True)
class Judgement:
    """``headline``: the measured numbers in a line or two."""

    verified: bool | Literal["off"]
    headline: str
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default_factory=tuple)

    def message(self, after: str = "") -> str:
        """For the terminal: failures first where there are any, no line over 80 columns.

        ``after`` is what stands before it on its first line.
        """
        lines = [*self.failures, self.headline, *(f"warning: {w}" for w in self.warnings)]
        wrapped = [_wrapped(line, _INDENT if i else after) for i, line in enumerate(lines)]
        return "\n".join(wrapped)[len(after) :]


def judge(
    measurement: Mapping[str, Any] | None, thresholds: Thresholds | None, facts: Facts
) -> Judgement:
    """``thresholds`` None: ``verify: off``. A measurement has the form of steps/measure.py."""
    if thresholds is None or measurement is None:
        told = [facts.fit.sentence] if facts.fit is not None and not facts.fit.fits else []
        return Judgement("off", "not verified (verify: off)", (), (*told, *_doubts(facts)))
    failures = [
        *_non_finite(measurement),
        *_low_cosine(measurement, thresholds),
        *_low_top1(measurement, thresholds),
    ]
    if facts.fit is not None and not facts.fit.fits:
        failures.append(facts.fit.sentence)
    warnings = [*_doubts(facts), *_weak_proof(measurement)]
    return Judgement(
        verified=not failures,
        headline=_headline(measurement),
        failures=tuple(failures),
        warnings=tuple(warnings),
    )


def _pictures(measurement: Mapping[str, Any] | None, contract: Contract) -> bool:
    """Whether the samples were pictures: only then do mean and std matter."""
    if measurement is not None and measurement["images"]:
        name = measurement["images"][0]["file"].rsplit("/", 1)[-1]
        return kind_of_sample(name) == "images"
    return contract.input.kind == "images"


def run(job: Job) -> Verdict:
    """Inputs: measurement (unless verify is off), contract. Outputs: verify."""
    settings = job.settings
    contract = Contract.from_json(job.file("contract").read_bytes())
    profile = PROFILES.get(settings["firmware"])
    weighed = None
    if profile is not None and contract.nbytes is not None:
        weighed = fit(
            job.model, contract.nbytes, contract.main_memory, profile, settings["sram_free"]
        )
    measurement = None
    thresholds = None
    if settings["verify"] != "off" and "measurement" in job.inputs:
        measurement = json.loads(job.file("measurement").read_text("utf-8"))
        thresholds = Thresholds(settings["min_cosine"], settings["min_top1"])
    stated = settings["stated"] or not _pictures(measurement, contract)
    found = judge(measurement, thresholds, Facts(stated, weighed))
    text = verify_json(job.model, measurement, thresholds, found, weighed)
    job.outputs["verify"].write_text(text, "utf-8")
    return Verdict(found.verified is not False, found.message(f"   {job.name}: "))


def verify_json(
    model: str,
    measurement: Mapping[str, Any] | None,
    thresholds: Thresholds | None,
    found: Judgement,
    weighed: Fit | None,
) -> str:
    """The text of verify.json."""
    result: dict[str, Any] = {
        "model": model,
        "verified": found.verified,
        "headline": found.headline,
        "failures": list(found.failures),
        "warnings": list(found.warnings),
        "thresholds": None,
        "sram": None,
    }
    if thresholds is not None:
        result["thresholds"] = {
            "min_cosine": thresholds.min_cosine,
            "min_top1": thresholds.min_top1,
        }
    if weighed is not None:
        result["sram"] = {
            "file": weighed.file,
            "main_memory": weighed.main_memory,
            "needed": weighed.needed,
            "available": weighed.available,
            "known": weighed.known,
            "fits": weighed.fits,
            "sentence": weighed.sentence,
        }
    result |= measurement or {}
    return pretty(result)


def worst_output(measurement: Mapping[str, Any]) -> Mapping[str, Any]:
    """The output of the lowest mean cosine; the first of equal ones."""
    return min(measurement["outputs"], key=lambda output: output["cosine_mean"])


def _headline(m: Mapping[str, Any]) -> str:
    """The numbers of the worst output, then accuracy."""
    worst = worst_output(m)
    where = f"{worst['name']}: " if len(m["outputs"]) > 1 else ""
    parts = [f"cosine {fixed(worst['cosine_mean'])}", f"SNR {worst['snr_db']:.1f} dB"]
    tops = [o["top1_agreement"] for o in m["outputs"] if o["top1_agreement"] is not None]
    if tops:
        parts.append(f"top-1 agreement {percent(min(tops))}")
    parts.append(f"{m['samples']} image{'s'[: m['samples'] != 1]}")
    if not m["held_out"]:
        parts[-1] += ", not held out"
    runtime = m.get("runtime")
    if runtime and not runtime["recorded"]:
        parts.append(f"simulated as {runtime['title']} (not recorded)")
    text = where + ", ".join(parts)
    if (accuracy := m["accuracy"]) is not None:
        text += (
            f"; accuracy: float {percent(accuracy['float'])}, kmodel {percent(accuracy['kmodel'])}"
        )
    return text


def _non_finite(m: Mapping[str, Any]) -> list[str]:
    return [
        f"output {o['name']} is infinite or not a number for {o['non_finite']} of "
        f"{m['samples']} images, first {_image(m, o['non_finite_file'])}"
        for o in m["outputs"]
        if o["non_finite"]
    ]


def _low_cosine(m: Mapping[str, Any], thresholds: Thresholds) -> list[str]:
    worst = worst_output(m)
    if worst["cosine_mean"] >= thresholds.min_cosine or worst["cosine_min_file"] is None:
        return []
    return [
        f"output {worst['name']}: mean cosine {fixed(worst['cosine_mean'])}"
        f" is below min_cosine {thresholds.min_cosine:g}; "
        f"worst image {_image(m, worst['cosine_min_file'])} "
        f"(cosine {fixed(worst['cosine_min'])}){_weakest_layer(m)}"
    ]


def _weakest_layer(m: Mapping[str, Any]) -> str:
    """Where the error comes from, as far as layers could be compared."""
    if not m["layers"]:
        return ""
    layer = min(m["layers"], key=lambda row: row["snr_db"])
    source = f" ({', '.join(layer['source'])})" if layer["source"] else ""
    return f"; weakest layer {layer['index']} {layer['name']}{source}: {layer['snr_db']:.1f} dB"


def _low_top1(m: Mapping[str, Any], thresholds: Thresholds) -> list[str]:
    limit = thresholds.min_top1
    if limit is None:
        return []
    scored = [(i, o) for i, o in enumerate(m["outputs"]) if o["top1_agreement"] is not None]
    if not scored:
        return [
            f"min_top1 {limit:g} is asked for, but no output is a row of class scores; "
            "leave min_top1 out"
        ]
    at, worst = min(scored, key=lambda pair: pair[1]["top1_agreement"])
    agreement = worst["top1_agreement"]
    if agreement >= limit:
        return []
    differing = [
        (image["cosine"][at] if image["cosine"][at] is not None else -2.0, image["file"])
        for image in m["images"]
        if image["top1"][at] is None or image["top1"][at][0] != image["top1"][at][1]
    ]
    return [
        f"output {worst['name']}: float model and kmodel agree on the class of "
        f"{percent(agreement)} of the images, min_top1 is {percent(limit)}; "
        f"worst image that differs {_image(m, min(differing)[1])}"
    ]


def _doubts(facts: Facts) -> list[str]:
    """What may be wrong whatever was measured."""
    found = [] if facts.stated else [UNSTATED]
    weighed = facts.fit
    # What is free is seldom known; a small model is no reason to say so each time.
    if weighed is not None and weighed.fits and 2 * weighed.needed > weighed.available:
        found += [weighed.warning] if weighed.warning else []
    return found


def _weak_proof(m: Mapping[str, Any]) -> list[str]:
    found = list(m["notes"])
    if m["samples"] < FEW:
        count = f"{m['samples']} image{'s'[: m['samples'] != 1]}"
        found.append(f"only {count}: too few to prove much, {FEW} are the least")
    if not m["held_out"]:
        found.append("not held out: measured on the calibration images; name verify.images")
    accuracy = m["accuracy"]
    if accuracy is not None and (better := accuracy["better"]) is not None:
        found.append(
            f"accuracy {percent(accuracy['float'])}; with mean {_number(better['mean'])} "
            f"std {_number(better['std'])}: {percent(better['accuracy'])}"
        )
    if (other := better_order(m)) is not None:
        found.append(
            f"accuracy {percent(accuracy['float'])}; with labels [{', '.join(other[0])}]: "
            f"{percent(other[1])}; labels are in the order of the model's scores"
        )
    return found


def _image(m: Mapping[str, Any], file: str | None) -> str:
    return f"{m['folder']}/{file}"


def _number(value: float) -> str:
    return "1/255" if abs(value - 1 / 255) < 1e-9 else f"{value:g}"


def fixed(value: float) -> str:
    """Four decimals, cut and not rounded: what is below a limit, or below 1, looks so."""
    return decimals(min(value, 1.0), 4)  # float32 noise is no error


def _wrapped(line: str, before: str) -> str:
    """At most 80 columns, later lines indented; paths are not broken."""
    return textwrap.fill(
        line,
        width=80,
        initial_indent=before,
        subsequent_indent=f"{_INDENT}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
