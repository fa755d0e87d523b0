"""Judge a measurement: thresholds and facts against numbers already taken. Cheap, no numpy.

``verify.json`` is the measurement with the judgement beside it, written also when the
judgement is bad.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from k210tasks.engine.job import Job
from k210tasks.engine.plan import Verdict
from k210tasks.firmware.contract import Contract
from k210tasks.firmware.sram import Fit, fit
from k210tasks.profiles import PROFILES
from k210tasks.report.wording import decimals
from k210tasks.report.wording import share as percent
from k210tasks.samples.folder import noun_of
from k210tasks.steps import doubts as doubt
from k210tasks.steps.doubts import MODELS_YAML, Doubt, Words
from k210tasks.steps.jsontext import pretty

_INDENT = " " * 6
#: How far above chance, in standard deviations, an accuracy is no chance: 1 in 100.
CLEARLY = 2.33


@dataclass(frozen=True, slots=True)
class Thresholds:
    """``min_cosine``: of the mean over samples of the worst output. ``min_top1``: share."""

    min_cosine: float
    min_top1: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a judgement depends on beside the measurement."""

    doubts: tuple[Doubt, ...] = ()  # about what the kmodel was made of
    fit: Fit | None = None  # None: not weighed


@dataclass(frozen=True, slots=True)
class Judgement:
    """``headline``: the measured numbers in a line or two. ``warnings``: what the doubts say."""

    verified: bool | Literal["off"]
    headline: str
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = field(default=(), repr=False)

    def message(self, after: str = "") -> str:
        """For the terminal: failures first where there are any, no line over 80 columns.

        ``after`` is what stands before it on its first line.
        """
        lines = [*self.failures, self.headline, *(f"warning: {w}" for w in self.warnings)]
        wrapped = [_wrapped(line, _INDENT if i else after) for i, line in enumerate(lines)]
        return "\n".join(wrapped)[len(after) :]


def judge(
    measurement: Mapping[str, Any] | None,
    thresholds: Thresholds | None,
    facts: Facts,
    words: Words = MODELS_YAML,
) -> Judgement:
    """``thresholds`` None: ``verify: off``. A measurement has the form of steps/measure.py."""
    verified: bool | Literal["off"] = "off"
    headline, failures = "not verified (verify: off)", []
    found = [*facts.doubts, *_memory(facts.fit)]
    if thresholds is None or measurement is None:
        if facts.fit is not None and not facts.fit.fits:
            found.insert(0, doubt.Told(facts.fit.sentence))
    else:
        failures = [
            *_non_finite(measurement),
            *_low_cosine(measurement, thresholds),
            *_low_top1(measurement, thresholds),
        ]
        if facts.fit is not None and not facts.fit.fits:
            failures.append(facts.fit.sentence)
        verified, headline = not failures, _headline(measurement)
        found += weak_proof(measurement, facts.doubts)
    told = tuple(doubt.sentences(found, words))
    return Judgement(verified, headline, tuple(failures), told, tuple(found))


def run(job: Job) -> Verdict:
    """Inputs: measurement (unless verify is off), contract, layers. Outputs: verify."""
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
    made = json.loads(job.file("layers").read_text("utf-8"))
    found = judge(measurement, thresholds, Facts(tuple(doubt.from_json(made["doubts"])), weighed))
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
    result["doubts"] = doubt.to_json(found.doubts)
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
    parts.append(doubt.counted(m["samples"], noun_of(m["kind"])))
    text = where + ", ".join(parts)
    if (accuracy := m["accuracy"]) is not None:
        text += (
            f"; accuracy: float {percent(accuracy['float'])}, kmodel {percent(accuracy['kmodel'])}"
        )
    return f"{text}; {checked_on(m)}"


def checked_on(m: Mapping[str, Any]) -> str:
    """Whether the samples are held out, and what was simulated."""
    held = {True: "held out", False: "not held out", None: "held out or not is not known"}
    told = m["runtime"]
    runtime = m["engine"]  # a vendor's, which is no board's
    if told is not None:
        runtime = told["name"] + ("" if told["recorded"] else " (not recorded)")
    return f"{held[m['held_out']]}, runtime {runtime}"


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


def _memory(weighed: Fit | None) -> list[Doubt]:
    # What is free is seldom known; a small model is no reason to say so each time.
    if weighed is None or not weighed.fits or 2 * weighed.needed <= weighed.available:
        return []
    return [doubt.Told(weighed.warning)] if weighed.warning else []


def weak_proof(m: Mapping[str, Any], known: Sequence[Doubt] = ()) -> list[Doubt]:
    """What makes a measurement prove less than it seems to; ``known``: what is said already."""
    found = doubt.from_json(m["doubts"])
    if any(isinstance(d, doubt.LabelsMisfit) for d in known):
        found = [d for d in found if not isinstance(d, doubt.ClassesMisfit)]
    samples, noun = m["samples"], noun_of(m["kind"])
    more: list[Doubt] = []
    if samples < doubt.FEW:
        more.append(doubt.FewMeasured(noun, samples))
    if m["copies"]:
        more.append(doubt.Copies(noun, m["copies"], samples))
    if m["shared"]:
        more.append(doubt.NotHeldOut(noun, m["shared"], samples))
    if not any(isinstance(d, doubt.Hint) for d in found) and _is_chance(m):
        right = round(m["accuracy"]["float"] * samples)
        more.append(doubt.ChanceLevel(noun, right, samples, m["accuracy"]["classes"]))
    # What measuring found stands where it always stood: why there is no accuracy comes first.
    hints = [d for d in found if isinstance(d, doubt.Hint)]
    return [*(d for d in found if d not in hints), *more, *hints]


def _is_chance(m: Mapping[str, Any]) -> bool:
    """Whether the float model's answers could have been dealt out to the samples at random.

    The number right is then the number of hits of a random permutation: its mean and variance
    follow from how often each class is there and is answered. Where there is but one class,
    each of the model's is as likely.
    """
    accuracy, n = m["accuracy"], int(m["samples"])
    if accuracy is None or accuracy["float"] == 1:
        return False
    at = [output["name"] for output in m["outputs"]].index(accuracy["output"])
    labels = accuracy["labels"]
    there, answered = Counter[str](), Counter[str]()
    for image in m["images"]:
        there[image["class"]] += 1
        if (picked := image["top1"][at]) is not None:
            answered[labels[picked[0]]] += 1
    right = float(accuracy["float"]) * n
    if len(there) == 1:
        share = 1 / int(accuracy["classes"])
        return right <= n * share + CLEARLY * math.sqrt(n * share * (1 - share)) + 0.5
    both = [(there[name], answered[name]) for name in there]
    hits = sum(t * a for t, a in both)
    spread = hits - sum(t * a * (t + a) for t, a in both) / n + hits**2 / n**2
    deviation = math.sqrt(max(0.0, spread) / (n - 1))
    return right <= hits / n + CLEARLY * deviation + 0.5 * (deviation > 0)


def _image(m: Mapping[str, Any], file: str | None) -> str:
    return f"{m['folder']}/{file}"


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
