"""What the history and the store tell: the last run, what failed last, the previous build.

A model's previous build is the last kmodel of other content that the history names and the
store still holds; its accuracy is what ``verify`` measured before the next kmodel came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from k210tasks.artifacts.layer_table import LayerTable
from k210tasks.artifacts.measurement import Measurement
from k210tasks.firmware.contract import ContractFile
from k210tasks.jsondata import known
from k210tasks.report.builds import build_of
from k210tasks.report.facts import Build, Run
from k210tasks.store.history import Line
from k210tasks.store.results import Store
from k210tasks.wording import flowing


def last_run(entries: Sequence[Line], tasks: Iterable[str]) -> Run | None:
    """The run of the last line, a judgement told with the step it followed.

    ``tasks``: those there are; the rest of them had nothing to do or was not asked for.
    """
    if not entries:
        return None
    name = entries[-1].run
    merged: dict[str, Line] = {}
    for event in (entry for entry in entries if entry.run == name):
        before = merged.get(event.task)
        if event.did == "judged" and before is not None and before.did != "failed":
            seconds = max(before.seconds, event.seconds)
            event = replace(event, did=before.did, seconds=seconds)
        merged[event.task] = replace(event, message=flowing(event.message))
    if not merged:
        return None
    events = tuple(sorted(merged.values(), key=lambda e: e.time))
    started = min(e.time - e.seconds for e in events)
    return Run(started, events, len(set(tasks) - set(merged)))


def last_failures(entries: Iterable[Line]) -> dict[str, str]:
    """Task -> message, for the tasks whose last line is a failure or a bad verdict."""
    failures: dict[str, str] = {}
    for entry in entries:
        note_outcome(failures, entry)
    return failures


def note_outcome(failures: dict[str, str], entry: Line) -> None:
    """Bring ``failures`` up to date with one more line of the history."""
    if not entry.ok:
        failures[entry.task] = flowing(entry.message)
    elif entry.did != "skipped":
        failures.pop(entry.task, None)


class Previous:
    """The builds before today's, of every model."""

    def __init__(self, entries: Iterable[Line], store: Store) -> None:
        self._store = store
        self._lines: dict[str, list[Line]] = {}
        for entry in entries:
            if entry.step in ("kmodel", "verify") and entry.did in ("computed", "restored"):
                self._lines.setdefault(entry.subject, []).append(entry)

    def of(self, model: str, sha256: str) -> tuple[Build | None, str]:
        """The last build whose kmodel has other content than ``sha256``, or why there is none."""
        lines = self._lines.get(model, [])
        lost = False
        for i in range(len(lines) - 1, -1, -1):
            entry = lines[i]
            if entry.step != "kmodel":
                continue
            found = self._files(entry)
            if found is None:
                lost = True
                continue
            if found.get("kmodel") == sha256:
                continue
            build = self._build(entry, found, self._verify_after(lines, i))
            if build is not None:
                return build, ""
            lost = True
        if not self._store:
            return None, "the store is off (K210_STORE=off), so earlier builds are not kept"
        if lost:
            return None, "earlier builds are no longer in the store"
        return None, "this is the first build"

    def _files(self, entry: Line) -> dict[str, str] | None:
        """Role -> hash of the one file of it, as the store has it."""
        result = self._store.find(entry.key)
        if result is None:
            return None
        return {role: files.get("", "") for role, files in result.outputs.items()}

    @staticmethod
    def _verify_after(lines: Sequence[Line], i: int) -> Line | None:
        """The last measurement of the kmodel of line ``i``."""
        found = None
        for entry in lines[i + 1 :]:
            if entry.step == "kmodel":
                break
            found = entry
        return found

    def _build(
        self,
        entry: Line,
        files: Mapping[str, str],
        verify: Line | None,
    ) -> Build | None:
        kmodel = self._store.read(files.get("kmodel", ""))
        if kmodel is None:
            return None
        table = known(LayerTable, self._store.read(files.get("layers", "")))
        about = known(ContractFile, self._store.read(files.get("contract", "")))
        measured = None
        if verify is not None and (found := self._files(verify)) is not None:
            measured = known(Measurement, self._store.read(found.get("measurement", "")))
        return build_of(
            "previous build",
            kmodel,
            table,
            measured,
            main_bytes=None if about is None else about.kmodel.main_memory,
            built=entry.time,
        )
