"""A chain with the real names, roles and settings, whose bodies are small and really work.

Each body reads its inputs, writes its outputs, and appends its name to ``computed.log``.
``toy.json`` in the project can make a step slow, fail, crash, or touch an input.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from k210tasks import toolchains
from k210tasks.engine.job import Folder, Job, StepFailed
from k210tasks.engine.plan import OptionalInput, StepPlan, Verdict
from k210tasks.graph import tasks as graph
from k210tasks.manifest.model import Manifest
from k210tasks.steps.chain import Chain

HERE = "tests.graph.toy"


class Tasks(graph.Tasks):
    def chain(self, manifest: Manifest) -> Chain:
        real = super().chain(manifest)
        return Chain(
            {name: tuple(toy(plan) for plan in plans) for name, plans in real.models.items()}
        )


class WithSummary(Tasks):
    """With a step that looks at every model, also at failed ones."""

    def chain(self, manifest: Manifest) -> Chain:
        chain = super().chain(manifest)
        names = list(chain.models)
        plan = StepPlan(
            task="summary:all",
            step="summary",
            subject="all",
            version=1,
            run=f"{HERE}:summary",
            inputs={name: OptionalInput(f"build/{name}/verify.json") for name in names},
            outputs={"text": "build/summary.txt"},
            log="build/summary.log",
            after=tuple(f"verify:{name}" for name in names),
            even_if_failed=True,
        )
        return dataclasses.replace(chain, beyond=(plan,))


def toy(plan: StepPlan) -> StepPlan:
    """The plan with toy bodies, without toolchains."""
    judge = plan.judge and dataclasses.replace(plan.judge, run=f"{HERE}:judge")
    tools = plan.tools if os.environ.get("TOY_TOOLS") else ()
    return dataclasses.replace(
        plan, run=plan.run and f"{HERE}:{plan.step}", judge=judge, tools=tools, libraries=()
    )


class Tool:
    """A toolchain that is a file: ``tools/NAME``. ``tools.json`` can make it misbehave."""

    def __init__(self, name: str, override: Any = None, lock_path: Path | None = None) -> None:
        self.name = name
        self.root = Path(lock_path).parent if lock_path else Path()
        self.wish = json.loads((self.root / "tools.json").read_text()).get(name, {})
        self.receipt = self.root / "tools" / name

    def pin(self) -> dict[str, Any]:
        told = self.root / "tools" / f"{self.name}.told"
        return {
            "name": self.name,
            "version": self.wish.get("version", "1"),
            "sha256": told.read_text() if told.exists() else None,
        }

    def installed(self) -> bool:
        return self.receipt.exists() and self.receipt.read_text() == self.pin()["version"]

    def install(self, say: Any, progress: Any = None) -> None:
        if self.installed():
            return
        with (self.root / "installs.log").open("a") as file:
            file.write(self.name + "\n")
        if "unavailable" in self.wish:
            raise toolchains.ToolchainUnavailable(self.wish["unavailable"])
        if "broken" in self.wish:
            raise toolchains.ToolchainError(self.wish["broken"])
        say(f"   fetching {self.name}")
        self.receipt.parent.mkdir(exist_ok=True)
        if self.wish.get("tells"):  # as an archive whose hash nobody published
            self.receipt.with_name(f"{self.name}.told").write_text("abc")
        self.receipt.write_text(self.pin()["version"])


if os.environ.get("TOY_TOOLS"):
    toolchains.get = Tool  # type: ignore[assignment,misc]


def config() -> dict[str, Any]:
    return graph.doit_config("models.yaml")


def _begin(job: Job) -> dict[str, Any]:
    """What toy.json says for this task, done; then the body is noted as computed."""
    root = job.root
    path = root / "toy.json"
    wishes = json.loads(path.read_text("utf-8")) if path.exists() else {}
    wish: dict[str, Any] = wishes.get(job.name, {})
    with (root / "started.log").open("a", encoding="utf-8") as file:
        file.write(f"{job.name} {os.getpid()}\n")
    for number in range(wish.get("progress", 0)):
        time.sleep(0.01)
        job.progress(number + 1, wish["progress"], "working")
    if "half" in wish:  # half an output, then a long pause
        for out in job.outputs.values():
            out.write_text("half")
    time.sleep(wish.get("sleep", 0))
    if "touch" in wish:
        (root / wish["touch"]).write_text(wish["content"])
    if "fail" in wish:
        raise StepFailed(wish["fail"])
    if "full" in wish:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "crash" in wish:
        raise ValueError(wish["crash"])
    if "kill" in wish:
        os.kill(os.getpid(), signal.SIGKILL)
    return wish


def _end(job: Job) -> None:
    with (job.root / "computed.log").open("a", encoding="utf-8") as file:
        file.write(job.name + "\n")


def _digest(job: Job) -> str:
    h = hashlib.sha256(json.dumps(dict(job.settings), sort_keys=True).encode())
    for role in sorted(job.inputs):
        source = job.inputs[role]
        if isinstance(source, Folder):
            for name in source.files:
                h.update(name.encode() + (source.path / name).read_bytes())
        else:
            h.update(source.read_bytes())
    return h.hexdigest()


def convert(job: Job) -> None:
    _begin(job)
    # Two graphs that differ in comments convert to the same bytes.
    lines = job.file("source").read_text("utf-8").splitlines()
    job.outputs["tflite"].write_text("\n".join(x for x in lines if x[:1] != "#"), "utf-8")
    _end(job)


def calibrate(job: Job) -> None:
    _begin(job)
    job.outputs["calibration"].write_text(_digest(job))
    job.outputs["seen"].write_text("seen")
    _end(job)


def kmodel(job: Job) -> None:
    wish = _begin(job)
    coarse = wish.get("coarse")  # a compiler whose bytes do not depend on everything
    job.outputs["kmodel"].write_text(coarse or _digest(job))
    for role in ("layers", "listing", "contract"):
        job.outputs[role].write_text(role)
    if wish.get("forget"):
        job.outputs["listing"].unlink()
        return
    _end(job)


def verify(job: Job) -> None:
    _begin(job)
    job.outputs["measurement"].write_text(json.dumps({"cosine": 0.99, "of": _digest(job)}))
    _end(job)


def judge(job: Job) -> Verdict:
    if job.settings["verify"] == "off":
        job.outputs["verify"].write_text(json.dumps({"verified": "off"}))
        return Verdict(True, "not verified (verify: off)")
    measured = json.loads(job.file("measurement").read_text())
    ok = measured["cosine"] >= job.settings["min_cosine"]
    job.outputs["verify"].write_text(json.dumps({"verified": ok, "measured": measured}))
    if ok:
        return Verdict(True)
    return Verdict(False, f"cosine {measured['cosine']} is below {job.settings['min_cosine']}")


def summary(job: Job) -> None:
    there = {role: job.file(role).exists() for role in job.inputs}
    lines = [f"{role}: {'there' if found else 'missing'}" for role, found in there.items()]
    job.outputs["text"].write_text("\n".join(lines))
    _end(job)
