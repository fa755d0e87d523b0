"""Judge a measurement: thresholds and facts against numbers already taken. Cheap, no numpy.

``verify.json`` is the measurement with the judgement beside it, written also when the
judgement is bad.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from k210tasks.artifacts import doubts as doubt
from k210tasks.artifacts.doubts import MODELS_YAML, AnyDoubt, Doubts, Words
from k210tasks.artifacts.measurement import Accuracy, BoxFigures, Measurement
from k210tasks.artifacts.verification import Thresholds, Verification, Weighed
from k210tasks.engine.job import Job
from k210tasks.engine.plan import Verdict
from k210tasks.firmware.contract import Contract
from k210tasks.firmware.sram import Fit, fit
from k210tasks.jsondata import loads
from k210tasks.profiles import PROFILES
from k210tasks.steps.settings import JudgeSettings
from k210tasks.wording import decimals
from k210tasks.wording import share as percent

_INDENT = " " * 6
#: How far above chance, in standard deviations, an accuracy is no chance: 1 in 100.
CLEARLY = 2.33


@dataclass(frozen=True, slots=True)
class Facts:
    """What a judgement depends on beside the measurement."""

    doubts: tuple[AnyDoubt, ...] = ()  # about what the kmodel was made of
    fit: Fit | None = None  # None: not weighed


@dataclass(frozen=True, slots=True)
class Judgement:
    """``headline``: the measured numbers in a line or two. ``warnings``: what the doubts say."""

    verified: bool | Literal["off"]
    headline: str
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    doubts: tuple[AnyDoubt, ...] = field(default=(), repr=False)

    def message(self, after: str = "") -> str:
        """For the terminal: failures first where there are any, no line over 80 columns.

        ``after`` is what stands before it on its first line.
        """
        lines = [*self.failures, self.headline, *(f"warning: {w}" for w in self.warnings)]
        wrapped = [_wrapped(line, _INDENT if i else after) for i, line in enumerate(lines)]
        return "\n".join(wrapped)[len(after) :]


def judge(
    measurement: Measurement | None,
    thresholds: Thresholds | None,
    facts: Facts,
    words: Words = MODELS_YAML,
) -> Judgement:
    """``thresholds`` None: ``verify: off``."""
    verified: bool | Literal["off"] = "off"
    headline, failures = "not verified (verify: off)", []
    found: list[AnyDoubt] = [*facts.doubts, *_memory(facts.fit)]
    if thresholds is None or measurement is None:
        if facts.fit is not None and not facts.fit.fits:
            found.insert(0, doubt.Told(facts.fit.sentence))
    else:
        failures = [
            *_non_finite(measurement),
            *_low_cosine(measurement, thresholds),
            *_low_top1(measurement, thresholds),
            *_low_f1(measurement, thresholds),
            *_low_map(measurement, thresholds),
        ]
        if facts.fit is not None and not facts.fit.fits:
            failures.append(facts.fit.sentence)
        verified, headline = not failures, _headline(measurement)
        found += weak_proof(measurement, facts.doubts)
    told = tuple(doubt.sentences(found, words))
    return Judgement(verified, headline, tuple(failures), told, tuple(found))


def run(job: Job) -> Verdict:
    """Inputs: measurement (unless verify is off), contract, layers. Outputs: verify."""
    asked = job.told(JudgeSettings)
    contract = Contract.from_json(job.file("contract").read_bytes())
    weighed = None
    if (profile := PROFILES.get(asked.firmware)) is not None and contract.nbytes is not None:
        weighed = fit(job.model, contract.nbytes, contract.main_memory, profile, asked.sram_free)
    measurement = thresholds = None
    if asked.verify != "off" and "measurement" in job.inputs:
        measurement = loads(Measurement, job.file("measurement").read_bytes())
        thresholds = Thresholds(asked.min_cosine, asked.min_top1, asked.min_f1, asked.max_map_loss)
    made = loads(Doubts, job.file("layers").read_bytes())
    found = judge(measurement, thresholds, Facts(made.doubts, weighed))
    sram = None
    if (w := weighed) is not None:
        sram = Weighed(w.file, w.main_memory, w.needed, w.available, w.known, w.fits, w.sentence)
    verification = Verification(
        job.model, found.verified, found.headline, found.failures, found.warnings, thresholds,
        sram, found.doubts,
    )  # fmt: skip
    job.outputs["verify"].write_text(verification.beside(measurement), "utf-8")
    return Verdict(found.verified is not False, found.message(f"   {job.name}: "))


def _headline(m: Measurement) -> str:
    """How a detector's boxes agree, the numbers of the worst output, then accuracy."""
    worst = m.worst_output
    where = f"{worst.name}: " if len(m.outputs) > 1 else ""
    parts = [f"cosine {fixed(worst.cosine_mean)}", f"SNR {worst.snr_db:.1f} dB"]
    if tops := [o.top1_agreement for o in m.outputs if o.top1_agreement is not None]:
        parts.append(f"top-1 agreement {percent(min(tops))}")
    parts.append(doubt.counted(m.samples, m.noun))
    text = where + ", ".join(parts)
    if m.boxes is not None:
        text = f"{boxes_found(m.boxes)}; {text}"
    if (right := m.accuracy) is not None:
        text += f"; accuracy: float {percent(right.float_model)}, kmodel {percent(right.kmodel)}"
    return f"{text}; {checked_on(m)}"


def boxes_found(boxes: BoxFigures) -> str:
    """How a detector's boxes agree, and how well both find what people have drawn."""
    overlap = "" if boxes.mean_overlap is None else f", mean IoU {fixed(boxes.mean_overlap)}"
    text = (
        f"F1 {fixed(boxes.f1)}{overlap}, {boxes.found} boxes for {boxes.wanted} of the float model"
    )
    if (truth := boxes.truth) is None:
        return text
    theirs, ours = truth.float_model, truth.kmodel
    half = f"mAP50 {fixed(ours.ap50)} (float {fixed(theirs.ap50)})"
    return f"{text}; of {truth.boxes} drawn: {half}, mAP50-95 {fixed(ours.ap)} ({fixed(theirs.ap)})"


def checked_on(m: Measurement) -> str:
    """Whether the samples are held out, and what was simulated."""
    held = {True: "held out", False: "not held out", None: "held out or not is not known"}
    runtime = m.engine  # a vendor's, which is no board's
    if m.runtime is not None:
        runtime = m.runtime.name + ("" if m.runtime.recorded else " (not recorded)")
    return f"{held[m.held_out]}, runtime {runtime}"


def _non_finite(m: Measurement) -> list[str]:
    return [
        f"output {o.name} is infinite or not a number for {o.non_finite} of "
        f"{m.samples} images, first {m.path(o.non_finite_file)}"
        for o in m.outputs
        if o.non_finite
    ]


def _low_cosine(m: Measurement, thresholds: Thresholds) -> list[str]:
    worst, limit = m.worst_output, thresholds.min_cosine
    if limit is None or worst.cosine_mean >= limit or worst.cosine_min_file is None:
        return []
    return [
        f"output {worst.name}: mean cosine {fixed(worst.cosine_mean)}"
        f" is below min_cosine {limit:g}; "
        f"worst image {m.path(worst.cosine_min_file)} "
        f"(cosine {fixed(worst.cosine_min)}){_weakest_layer(m)}"
    ]


def _weakest_layer(m: Measurement) -> str:
    """Where the error comes from, as far as layers could be compared."""
    if not m.layers:
        return ""
    layer = min(m.layers, key=lambda row: row.snr_db)
    source = f" ({', '.join(layer.source)})" if layer.source else ""
    return f"; weakest layer {layer.index} {layer.name}{source}: {layer.snr_db:.1f} dB"


def _low_top1(m: Measurement, thresholds: Thresholds) -> list[str]:
    limit = thresholds.min_top1
    if limit is None:
        return []
    scored = [
        (o.top1_agreement, i) for i, o in enumerate(m.outputs) if o.top1_agreement is not None
    ]
    if not scored:
        return [
            f"min_top1 {limit:g} is asked for, but no output is a row of class scores; "
            "leave min_top1 out"
        ]
    agreement, at = min(scored)
    if agreement >= limit:
        return []
    differing = [
        (-2.0 if (cosine := image.cosine[at]) is None else cosine, image.file)
        for image in m.images
        if (picks := image.top1[at]) is None or picks[0] != picks[1]
    ]
    return [
        f"output {m.outputs[at].name}: float model and kmodel agree on the class of "
        f"{percent(agreement)} of the images, min_top1 is {percent(limit)}; "
        f"worst image that differs {m.path(min(differing)[1])}"
    ]


def _low_f1(m: Measurement, thresholds: Thresholds) -> list[str]:
    boxes, limit = m.boxes, thresholds.min_f1
    if boxes is None or limit is None or boxes.f1 >= limit:
        return []
    worst = ""
    if boxes.worst_file is not None:
        worst = f"; worst image {m.path(boxes.worst_file)} (F1 {fixed(boxes.worst_f1)})"
    return [
        f"F1 of the boxes {fixed(boxes.f1)} is below min_f1 {limit:g}: of {boxes.wanted} of the "
        f"float model the kmodel finds {boxes.matched}, and {boxes.found - boxes.matched} others"
        f"{worst}{_weakest_layer(m)}"
    ]


def _low_map(m: Measurement, thresholds: Thresholds) -> list[str]:
    limit = thresholds.max_map_loss
    if limit is None or m.boxes is None:
        return []
    if (truth := m.boxes.truth) is None:
        return [
            f"max_map_loss {limit:g} is asked for, but no drawn boxes lie beside the pictures of "
            f"{m.folder}: a .txt (YOLO) or .xml (Pascal VOC) each, or one .json (COCO); "
            "leave max_map_loss out, or add them"
        ]
    loss = truth.float_model.ap - truth.kmodel.ap
    if loss <= limit:
        return []
    return [
        f"mAP50-95 of the kmodel is {fixed(truth.kmodel.ap)}, {loss:.4f} less than the float "
        f"model's {fixed(truth.float_model.ap)}; max_map_loss is {limit:g}"
    ]


def _memory(weighed: Fit | None) -> list[AnyDoubt]:
    # What is free is seldom known; a small model is no reason to say so each time.
    if weighed is None or not weighed.fits or 2 * weighed.needed <= weighed.available:
        return []
    return [doubt.Told(weighed.warning)] if weighed.warning else []


def weak_proof(m: Measurement, known: Sequence[AnyDoubt] = ()) -> list[AnyDoubt]:
    """What makes a measurement prove less than it seems to; ``known``: what is said already."""
    found = list(m.doubts)
    if any(isinstance(d, doubt.LabelsMisfit) for d in known):
        found = [d for d in found if not isinstance(d, doubt.ClassesMisfit)]
    more: list[AnyDoubt] = []
    if m.samples < doubt.FEW:
        more.append(doubt.FewMeasured(m.noun, m.samples))
    if m.boxes is not None and not m.boxes.wanted:
        more.append(doubt.NoBoxes(m.noun, m.samples, m.boxes.score))
    if m.copies:
        more.append(doubt.Copies(m.noun, m.copies, m.samples))
    if m.shared:
        more.append(doubt.NotHeldOut(m.noun, m.shared, m.samples))
    hints = [d for d in found if isinstance(d, doubt.Hint)]
    if not hints and m.accuracy is not None and _is_chance(m, m.accuracy):
        right = round(m.accuracy.float_model * m.samples)
        more.append(doubt.ChanceLevel(m.noun, right, m.samples, m.accuracy.classes))
    # What measuring found stands where it always stood: why there is no accuracy comes first.
    return [*(d for d in found if d not in hints), *more, *hints]


def _is_chance(m: Measurement, accuracy: Accuracy) -> bool:
    """Whether the float model's answers could have been dealt out to the samples at random.

    The number right is then the number of hits of a random permutation: its mean and variance
    follow from how often each class is there and is answered. Where there is but one class,
    each of the model's is as likely.
    """
    n = m.samples
    if accuracy.float_model == 1:
        return False
    at = [output.name for output in m.outputs].index(accuracy.output)
    there = Counter(image.truth for image in m.images)
    picks = [image.top1[at] for image in m.images]
    answered = Counter(accuracy.labels[picked[0]] for picked in picks if picked is not None)
    right = accuracy.float_model * n
    if len(there) == 1:
        share = 1 / accuracy.classes
        return right <= n * share + CLEARLY * math.sqrt(n * share * (1 - share)) + 0.5
    both = [(there[name], answered[name or ""]) for name in there]
    hits = sum(t * a for t, a in both)
    spread = hits - sum(t * a * (t + a) for t, a in both) / n + hits**2 / n**2
    deviation = math.sqrt(max(0.0, spread) / (n - 1))
    return right <= hits / n + CLEARLY * deviation + 0.5 * (deviation > 0)


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
