"""What the history and the store tell: the last run, what failed last, the previous build.

A model's previous build is the last kmodel of other content that the history names and the
store still holds; its accuracy is what ``verify`` measured before the next kmodel came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from k210tasks.report import lenient
from k210tasks.report.builds import build_of
from k210tasks.report.facts import Build, Event, Run
from k210tasks.report.wording import flowing
from k210tasks.store.history import Line
from k210tasks.store.results import Store


def events_of(entries: Iterable[Line]) -> list[Event]:
    """The readable lines of the history."""
    return [event for entry in entries if (event := event_of(entry)) is not None]


def event_of(entry: Line) -> Event | None:
    """One line; None for what a later version may write there."""
    task, when = lenient.text(entry.get("task")), lenient.number(entry.get("time"))
    if not task or when is None:
        return None
    return Event(
        task=task,
        subject=lenient.text(entry.get("subject")),
        did=lenient.text(entry.get("did")),
        ok=entry.get("ok") is not False,
        seconds=lenient.number(entry.get("seconds")) or 0.0,
        time=when,
        message=flowing(lenient.text(entry.get("message"))),
    )


def last_run(entries: Sequence[Line], tasks: Iterable[str]) -> Run | None:
    """The run of the last line, a judgement told with the step it followed.

    ``tasks``: those there are; the rest of them had nothing to do or was not asked for.
    """
    if not entries:
        return None
    name = entries[-1].get("run")
    merged: dict[str, Event] = {}
    for event in events_of(entry for entry in entries if entry.get("run") == name):
        before = merged.get(event.task)
        if event.did == "judged" and before is not None and before.did != "failed":
            event = Event(
                event.task,
                event.subject,
                before.did,
                event.ok,
                max(before.seconds, event.seconds),
                event.time,
                event.message,
            )
        merged[event.task] = event
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
    event = event_of(entry)
    if event is None:
        return
    if not event.ok:
        failures[event.task] = event.message
    elif event.did != "skipped":
        failures.pop(event.task, None)


class Previous:
    """The builds before today's, of every model."""

    def __init__(self, entries: Iterable[Line], store: Store) -> None:
        self._store = store
        self._lines: dict[str, list[Line]] = {}
        for entry in entries:
            if entry.get("step") in ("kmodel", "verify") and entry.get("did") in (
                "computed",
                "restored",
            ):
                self._lines.setdefault(lenient.text(entry.get("subject")), []).append(entry)

    def of(self, model: str, sha256: str) -> tuple[Build | None, str]:
        """The last build whose kmodel has other content than ``sha256``, or why there is none."""
        lines = self._lines.get(model, [])
        lost = False
        for i in range(len(lines) - 1, -1, -1):
            entry = lines[i]
            if entry.get("step") != "kmodel":
                continue
            found = self._files(entry)
            if found is None:
                lost = True
                continue
            if lenient.text(found.get("kmodel")) == sha256:
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
        result = self._store.find(lenient.text(entry.get("key")))
        if result is None:
            return None
        roles = lenient.mapping(result.get("outputs"))
        return {role: lenient.text(lenient.mapping(files).get("")) for role, files in roles.items()}

    @staticmethod
    def _verify_after(lines: Sequence[Line], i: int) -> Line | None:
        """The last measurement of the kmodel of line ``i``."""
        found = None
        for entry in lines[i + 1 :]:
            if entry.get("step") == "kmodel":
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
        layers = lenient.parse_json(self._store.read(files.get("layers", "")))
        contract = lenient.parse_json(self._store.read(files.get("contract", "")))
        measured = lenient.mapping(None)
        if verify is not None and (found := self._files(verify)) is not None:
            measured = lenient.parse_json(self._store.read(found.get("measurement", "")))
        return build_of(
            "previous build",
            kmodel,
            layers,
            measured,
            main_bytes=lenient.whole(lenient.nested(contract, "kmodel", "main_memory")),
            built=lenient.number(entry.get("time")),
        )
