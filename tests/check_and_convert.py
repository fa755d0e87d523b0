"""Does ``k210 check`` say of random networks what ``k210 convert`` then does with them?

    python tests/check_and_convert.py [--networks 500]

Each network is checked, calibrated and compiled as kmodel 3 and 4, the runtimes in turn: check
approves where the compiler succeeds and nowhere else, with the same layers and the same bytes of
KPU RAM, main memory and file; what both refuse they refuse for the same reason.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k210tasks import compiler
from k210tasks.compiler.checking import Report
from k210tasks.compiler.options import Compiled, Fed, Options
from k210tasks.compiler.problems import CompileError
from k210tasks.kmodel.runtimes import RUNTIMES
from k210tasks.reference.litert import FloatModel, measurable
from tests.compiler.chains import networks
from tests.compiler.tflite_builder import Net


def samples(tflite: bytes) -> list[np.ndarray]:
    """What the model may be fed with: pixels for one or three channels, tensors for others."""
    shape = FloatModel(tflite).input_shape
    rng = np.random.default_rng(0)
    if told(tflite) == "pixels":
        return [(rng.integers(0, 256, shape) / 255).astype(np.float32) for _ in range(3)]
    return [rng.normal(0, 1, shape).astype(np.float32) for _ in range(3)]


def told(tflite: bytes) -> Fed:
    """What :func:`samples` are."""
    shape = FloatModel(tflite).input_shape
    return "pixels" if len(shape) == 4 and shape[-1] in (1, 3) else "tensors"


def disagreement(tflite: bytes, kmodel: int, runtime: str | None = None) -> str | None:
    """What check and compiler say differently of a model; None where they agree."""
    try:
        report: Report | str = compiler.check(tflite, kmodel, runtime=runtime)
    except CompileError as error:
        report = str(error)
    made: Compiled | str
    try:
        calibration = compiler.calibrate(tflite, samples(tflite), measurable)
        options = Options(kmodel=kmodel, effort="fast", fed=told(tflite), runtime=runtime)
        made = compiler.compile(tflite, calibration, options)
    except CompileError as error:
        made = str(error)
    except Exception as error:
        # A file that LiteRT refuses is never compiled: check may only refuse it too.
        made = f"{type(error).__name__}: {error}"
    return _difference(report, made)


def _difference(report: Report | str, made: Compiled | str) -> str | None:
    approved = isinstance(report, Report) and report.supported
    if isinstance(made, str):
        if approved:
            return f"check approves, the compiler says: {made}"
        said = report if isinstance(report, str) else " ".join(_reasons(report))
        if "internal error" in said + made:
            return f"a fault of ours: {said}; {made}"
        return None
    if not isinstance(report, Report) or not approved:
        return f"it compiles, check says: {report}"
    figures = {
        "layers": (report.layers, len(made.layers)),
        "kpu_bytes": (report.kpu_bytes, made.kpu_bytes),
        "main_bytes": (report.main_bytes, made.main_bytes),
        "model_bytes": (report.model_bytes, len(made.kmodel)),
    }
    wrong = [f"{name} {a}, then {b}" for name, (a, b) in figures.items() if a != b]
    return ", ".join(wrong) or None


def _reasons(report: Report) -> list[str]:
    return [*report.problems, *(reason for op in report.ops for reason in op.reasons)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=500)
    asked = parser.parse_args()
    seen: list[str] = []
    count, turns = 0, itertools.cycle(RUNTIMES)

    @settings(
        max_examples=asked.networks,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(networks())
    def run(net: Net) -> None:
        nonlocal count
        count += 1
        for kmodel in (3, 4):
            runtime = next(name for name in turns if kmodel in RUNTIMES[name].kmodels)
            what = disagreement(net.build(*net.outputs), kmodel, runtime)
            if what is not None:
                names = [op[0] for op in net.ops]
                seen.append(f"kmodel {kmodel}, {runtime}, {net.shape(net.input)} {names}: {what}")

    run()
    print("\n".join(seen[:20]))
    print(f"{count} networks, {len(seen)} disagreements")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
