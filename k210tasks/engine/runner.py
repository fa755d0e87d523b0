"""Carry out a plan: restore its result from the store, or compute, check, keep and place it.

The order makes every moment safe to be killed at: work in a folder of its own, check that
no input changed meanwhile, put the result in the store, rename it into place, write the
record. A judgement follows, and is repeated without the work when only it changed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from k210tasks.engine import reasons as r
from k210tasks.engine import snapshot
from k210tasks.engine.bodies import call, check_inputs, collect, job_of, open_log
from k210tasks.engine.current import keep, skipped_before
from k210tasks.engine.decide import Decision, decide, key_of, same_content
from k210tasks.engine.failures import (
    FollowsSkipped,
    InputsMissing,
    JudgedBad,
    ToolFailedBefore,
    told,
)
from k210tasks.engine.placing import place, temporary, work_folder
from k210tasks.engine.plan import StepPlan, Verdict
from k210tasks.engine.project import Project, say
from k210tasks.errors import K210Error
from k210tasks.progress import Progress, no_progress
from k210tasks.store.history import Did, Line
from k210tasks.store.locks import lock
from k210tasks.store.records import Judged, Place, Record, file_name, outputs_of
from k210tasks.store.results import DamagedObject, Result


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: computed, restored, kept, judged or skipped."""

    did: Did
    message: str = ""


class Runner:
    """Carries out the plans of one project. ``tell`` shows a line; failures are raised."""

    def __init__(
        self,
        project: Project,
        tell: Callable[[str], None] = say,
        progress: Progress = no_progress,
    ) -> None:
        self.project = project
        self.tell = tell
        self.progress = progress

    # -- one task ----------------------------------------------------------------------

    def run(self, plan: StepPlan) -> Outcome:
        """Bring one task up to date.

        Raises a :class:`~k210tasks.errors.K210Error` that says why it could not be.
        """
        project = self.project
        project.sweep()
        started = time.monotonic()
        lock_path = os.path.join(project.locks_folder, f"{lock_name(plan.id)}.lock")
        try:
            with lock(lock_path, lambda: self.tell(f"   {plan.task}: waiting for another process")):
                outcome = self._run(plan, started)
        except (K210Error, OSError) as error:
            failure = (
                error if isinstance(error, K210Error) else told(plan.task, error, project.root)
            )
            skipped = self._skip(plan, failure)
            if skipped is None:
                self._note(plan, "failed", started, ok=False, message=str(failure))
                raise failure from error
            outcome = skipped
        if outcome.did in ("kept", "skipped"):
            self._note(plan, outcome.did, started, message=outcome.message)
        return outcome

    def _run(self, plan: StepPlan, started: float) -> Outcome:
        project = self.project
        record = project.states.load(plan.id)
        if (because := skipped_before(project, plan)) is not None:
            raise FollowsSkipped(plan.task, because)
        decision = decide(project, plan, record, fresh=True)
        if decision.trouble is not None:
            raise InputsMissing(plan.task, decision.trouble, plan.made_by) from decision.trouble
        if decision.refreshed is not None:
            if decision.refreshed != record:
                keep(project, plan, decision.refreshed)
            return Outcome("kept")
        did: Did = "kept"
        if decision.reasons:
            did, record = self._result(plan, decision, record, started)
        if plan.judge is not None:
            assert record is not None
            self._judge(plan, decision, record, started)
            did = "judged" if did == "kept" else did
        return Outcome(did)

    def _note(
        self,
        plan: StepPlan,
        did: Did,
        started: float,
        *,
        ok: bool = True,
        key: str = "",
        message: str = "",
    ) -> None:
        self.project.history.add(
            Line(
                run=self.project.run_id,
                time=round(time.time(), 3),
                task=plan.id,
                step=plan.step,
                subject=plan.subject,
                did=did,
                seconds=round(time.monotonic() - started, 3),
                ok=ok,
                key=key,
                message=message,
            )
        )

    def _skip(self, plan: StepPlan, error: K210Error) -> Outcome | None:
        """An optional step whose toolchain cannot be had, or which follows such a one."""
        if not plan.optional:
            return None
        if isinstance(error, FollowsSkipped):
            because = error.because
        else:
            from k210tasks.toolchains import ToolchainUnavailable

            if not isinstance(error, ToolchainUnavailable):
                return None
            because = str(error)
            self.tell(f"   {plan.task}: skipped, it is optional: {because}")
        previous = self.project.states.load(plan.id)
        skipped: Record = {
            "outcome": "skipped",
            "because": because,
            "run": self.project.run_id,
            "outputs": outputs_of(previous),
        }
        self.project.states.save(plan.id, skipped)
        return Outcome("skipped", because)

    # -- the result --------------------------------------------------------------------

    def _result(
        self, plan: StepPlan, decision: Decision, record: Record | None, started: float
    ) -> tuple[Did, Record]:
        """Restored or computed: returns which, and the new record, saved."""
        project = self.project
        if plan.run is None:  # nothing but a judgement: the inputs are all there is to record
            key = key_of(plan, decision.inputs, {}, {})
            new = self._record(plan, decision, key, {}, 0.0, record)
            return "kept", new
        why = "; ".join(r.listing(decision.reasons))

        def waiting() -> None:
            self.tell(f"   {plan.task}: waiting for another process that computes the same")

        while True:
            key = key_of(plan, decision.inputs, decision.tools, decision.libraries)
            with project.store.lock_key(key, waiting):
                outputs = self._restore(plan, key, record)
                if outputs is not None:
                    if not isinstance(decision.reasons[0], r.NeverRun):
                        self.tell(f"   {plan.task}: restored from the store ({why})")
                    self._note(plan, "restored", started, key=key)
                    return "restored", self._record(plan, decision, key, outputs, 0.0, record)
                if not isinstance(decision.reasons[0], r.NeverRun):
                    self.tell(f"   {plan.task}: {why}")
                if self._install(plan, decision):
                    continue  # a first download told its hash: the key is another one now
                begun = time.monotonic()
                outputs = self._compute(plan, decision, key, record, started)
                seconds = round(time.monotonic() - begun, 3)
                return "computed", self._record(plan, decision, key, outputs, seconds, record)

    def _record(
        self,
        plan: StepPlan,
        decision: Decision,
        key: str,
        outputs: dict[str, Place],
        seconds: float,
        before: Record | None,
    ) -> Record:
        record: Record = {
            "outcome": "done",
            "run": self.project.run_id,
            "finished": round(time.time(), 3),
            "seconds": seconds,
            "key": key,
            "step": plan.step,
            "version": plan.version,
            "settings": dict(plan.settings),
            "tools": decision.tools,
            "libraries": decision.libraries,
            "inputs": decision.inputs,
            "outputs": outputs,
            "former": {k: v for k, v in outputs_of(before).items() if k not in outputs},
        }
        # As it will be read back: the judge's comparison must not meet a tuple.
        record = json.loads(json.dumps(record))
        keep(self.project, plan, record)
        return record

    def _install(self, plan: StepPlan, decision: Decision) -> bool:
        """Have the toolchains ready; whether that changed what the result is known by."""
        for tool in plan.tools:
            before = self.project.states.load(f"toolchain:{tool}")
            if (
                before is not None
                and before["outcome"] == "failed"
                and before["run"] == self.project.run_id
                and not plan.optional
            ):
                raise ToolFailedBefore(plan.task, tool)
            toolchain = self.project.toolchain(tool)
            if not toolchain.installed():
                toolchain.install(self.tell, self.progress)
        pins = {tool: self.project.pin(tool, anew=True) for tool in plan.tools}
        changed = pins != decision.tools
        decision.tools = pins
        return changed

    # -- restoring ---------------------------------------------------------------------

    def _restore(self, plan: StepPlan, key: str, record: Record | None) -> dict[str, Place] | None:
        """The outputs, put back from the store; None: not there, or damaged (said)."""
        found = self.project.store.find(key)
        if found is None or set(found.outputs) != set(plan.outputs):
            return None
        with work_folder(self.project) as work:
            made: dict[str, dict[str, str]] = {}
            try:
                for role, files in found.outputs.items():
                    made[role] = {}
                    for relative, digest in files.items():
                        target = temporary(work, role, plan.outputs[role], relative)
                        made[role][relative] = target
                        final = snapshot.place_of(self.project, plan.outputs[role], relative)
                        if not same_content(final, digest):
                            self.project.store.copy_out(digest, target)
            except DamagedObject as error:
                self.project.store.drop(key)
                self.tell(f"   {plan.task}: damaged in the store: {error}; computing it again")
                return None
            return place(self.project, plan, plan.outputs, found.outputs, made, work, record)

    # -- computing ---------------------------------------------------------------------

    def _compute(
        self,
        plan: StepPlan,
        decision: Decision,
        key: str,
        record: Record | None,
        started: float,
    ) -> dict[str, Place]:
        project = self.project
        assert plan.run is not None
        with work_folder(self.project) as work:
            begun = time.monotonic()
            with open_log(self.project, plan, "w") as log:
                log.write(
                    f"{plan.task}, {time.strftime('%Y-%m-%d %H:%M:%S')}\nkey {key}\n"
                    f"settings {json.dumps(dict(plan.settings), ensure_ascii=False)}\n"
                )
                log.writelines(f"because {line}\n" for line in r.listing(decision.reasons, 100))
                log.flush()
                job = job_of(project, plan, plan, decision, work, log, self.tell, self.progress)
                call(project, plan, plan.run, job, log)
                contents, places = collect(project, plan, plan.outputs, job)
                log.write(f"done in {time.monotonic() - begun:.2f} s\n")
            check_inputs(project, plan, decision)
            try:
                result = Result(
                    key=key,
                    outputs=contents,
                    task=plan.id,
                    project=project.root,
                    time=round(time.time(), 3),
                )
                project.store.put(result, places)
            except OSError as error:
                self.tell(f"   {plan.task}: not kept in the store: {error}")
            self._note(plan, "computed", started, key=key)
            return place(self.project, plan, plan.outputs, contents, places, work, record)

    # -- the judgement -----------------------------------------------------------------

    def _judge(self, plan: StepPlan, decision: Decision, record: Record, started: float) -> None:
        """Judge the result and write what was found, good or bad. Raises :class:`JudgedBad`."""
        judge = plan.judge
        assert judge is not None
        with work_folder(self.project) as work, open_log(self.project, plan, "a") as log:
            job = job_of(self.project, plan, judge, decision, work, log, self.tell, self.progress)
            verdict = call(self.project, plan, judge.run, job, log)
            verdict = verdict if isinstance(verdict, Verdict) else Verdict(True)
            contents, made = collect(self.project, plan, judge.outputs, job)
            placed = place(self.project, plan, judge.outputs, contents, made, work, record)
            log.write(f"judged: {'good' if verdict.ok else 'bad'}. {verdict.message}\n")
        judged: Judged = {
            "version": judge.version,
            "settings": dict(judge.settings),
            "ok": verdict.ok,
            "message": verdict.message,
            "outputs": placed,
        }
        keep(self.project, plan, {**record, "judge": judged})
        self._note(plan, "judged", started, ok=verdict.ok, message=verdict.message)
        if not verdict.ok:
            raise JudgedBad(plan.task, verdict.message)
        if verdict.message:
            self.tell(f"   {plan.task}: {verdict.message}")


def lock_name(task: str) -> str:
    """A file name for the lock of a task."""
    return file_name(task).removesuffix(".json")


def would_compute(project: Project, plan: StepPlan, decision: Decision) -> bool:
    """Whether the body would run: the store has no result for today's inputs."""
    if not decision.reasons or plan.run is None or decision.trouble is not None:
        return False
    key = key_of(plan, decision.inputs, decision.tools, decision.libraries)
    return project.store.find(key) is None
