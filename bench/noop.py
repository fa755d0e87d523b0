"""Nothing to do: what our graph costs over bare doit.

1000 models with 20 images each, all up to date, against a dodo.py without us that has the
same task names, targets, and the same files and images as ``file_dep``, a report that reads
every verify.json among them. Run is plain ``doit``, so all default tasks of both. They are run
by turns in one session; printed are the medians of wall time and of processor time (user and
system, which a busy machine disturbs less), and the ratios of the medians.

    python bench/noop.py [MODELS [ROUNDS]]
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compile import bytecode_kept  # beside this script

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

OURS = """\
import k210tasks

DOIT_CONFIG = k210tasks.doit_config("models.yaml")
models = k210tasks.tasks_from("models.yaml")
"""

BARE = """\
import os

MODELS = sorted(name[:-3] for name in os.listdir("src"))

def images(folder):
    return [f"{folder}/{name}" for name in sorted(os.listdir(folder))]

def action():
    pass

def task(basename, name, file_dep, targets):
    return {"basename": basename, "name": name, "actions": [action], "file_dep": file_dep,
            "targets": targets}

def task_all():
    for m in MODELS:
        build = f"build/{m}"
        tflite, kmodel = f"workspace/{m}.tflite", f"workspace/{m}.kmodel"
        yield task("convert", m, [f"src/{m}.pb"], [tflite])
        yield task("calibrate", m, [tflite, *images(f"images/{m}/calibration")],
                   [f"{build}/calibration.npz"])
        yield task("kmodel", m, [tflite, f"{build}/calibration.npz"],
                   [kmodel, f"{build}/layers.json", f"{build}/listing.txt",
                    f"{build}/contract.json"])
        yield task("verify", m, [kmodel, tflite, f"{build}/contract.json",
                                 *images(f"images/{m}/verification")],
                   [f"{build}/measurement.json", f"{build}/verify.json"])
        yield task("vectors", m, [kmodel, f"{build}/contract.json"], [f"{build}/vectors"])
        yield {"basename": "model", "name": m, "actions": None,
               "task_dep": [f"{s}:{m}" for s in ("convert", "calibrate", "kmodel", "verify")]}

    yield {"basename": "report", "actions": [action], "targets": ["build/report/index.html"],
           "file_dep": [f"build/{m}/verify.json" for m in MODELS]}

DOIT_CONFIG = {"default_tasks": [*(f"verify:{m}" for m in MODELS), "report"]}
"""

MODEL = """\
  {name}:
    source: src/{name}.pb
    inputs: {{input: [1, 28, 28, 1]}}
    outputs: [output]
    images: images/{name}/calibration
    preprocess: {{color: gray, mean: 0.0, std: 1.0}}
    verify: {{images: images/{name}/verification, min_cosine: 0.9}}
"""


def make(root: Path, count: int) -> None:
    """The files of a project of ``count`` models."""
    names = [f"model_{i:04}" for i in range(count)]
    head = "defaults: {firmware: canmv-kpu5, compiler: nncase-1.9.0}\nmodels:\n"
    text = head + "".join(MODEL.format(name=name) for name in names)
    (root / "models.yaml").write_text(text)
    (root / "dodo.py").write_text(OURS)
    (root / "bare.py").write_text(BARE)
    (root / "src").mkdir()
    for name in names:
        (root / "src" / f"{name}.pb").write_text(f"graph of {name}")
        for kind in ("calibration", "verification"):
            folder = root / "images" / name / kind
            folder.mkdir(parents=True)
            for i in range(10):
                (folder / f"{i:02}.png").write_text(f"{name} {kind} {i}")


def build(root: Path) -> None:
    """Records as if every step had run, made by the real runner with bodies of no cost."""
    from k210tasks.engine.opening import open_project
    from k210tasks.engine.runner import Runner
    from k210tasks.steps.chain import chain_of
    from tests.graph import toy

    class Offline(Runner):
        def _install(self, plan: object, decision: object) -> bool:
            return False

    os.chdir(root)
    os.environ["K210_STORE"] = "off"
    project, loaded = open_project()
    runner = Offline(project)
    # What is made beyond the models is no default task: nothing of it would run.
    for plan in itertools.chain.from_iterable(chain_of(loaded).models.values()):
        toyed = toy.toy(plan)
        runner.run(dataclasses.replace(toyed, tools=plan.tools, libraries=plan.libraries))
    del os.environ["K210_STORE"]


def run(root: Path, *args: str) -> tuple[float, float, list[str]]:
    """Wall and processor seconds of one doit, and the lines of tasks that were not up to date."""
    environment = bytecode_kept(root.with_name(f"{root.name}-bytecode"))
    with tempfile.TemporaryFile("w+") as out:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "doit", *args],
            cwd=root,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = out.read().splitlines()
    if process.returncode:
        raise SystemExit(f"doit {' '.join(args)}: {lines[:20]}")
    return wall, used.ru_utime + used.ru_stime, [x for x in lines if not x.startswith("-- ")]


def timed(root: Path, *args: str) -> tuple[float, float]:
    """Wall and processor seconds of a doit that finds nothing to do."""
    wall, processor, ran = run(root, *args)
    if ran:
        raise SystemExit(f"doit {' '.join(args)}: not up to date: {ran[:5]}")
    return wall, processor


def main(count: int = 1000, rounds: int = 15) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "project")
        root.mkdir()
        make(root, count)
        build(root)
        for _ in range(2):  # the report is written, young stamps settle, the manifest is cached
            run(root, "-f", "bare.py")
            run(root)
        ours, bare = [], []
        for number in range(rounds):
            for who in (ours, bare) if number % 2 else (bare, ours):
                who.append(timed(root) if who is ours else timed(root, "-f", "bare.py"))
        print(f"{count} models, {count * 20} images, nothing to do, {rounds} rounds by turns")
        print("             wall  processor")
        medians = []
        for name, found in (("bare doit", bare), ("k210tasks", ours)):
            medians.append([statistics.median(column) for column in zip(*found, strict=True)])
            print(f"{name}  {medians[-1][0]:6.2f} s   {medians[-1][1]:6.2f} s")
        wall, processor = (o / b for b, o in zip(*medians, strict=True))
        print(f"ratio      {wall:6.2f}     {processor:6.2f}    (limit 1.2)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
