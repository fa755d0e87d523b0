"""Results by key: what a step once computed is never computed again.

Layout, under ``.k210/store`` or ``K210_STORE``::

    results/ab/abcd….json   what a key stands for: outputs by role, each file with its hash
    objects/12/1234…        file contents by SHA-256, read-only
    locks/, tmp/            who works on a key; unfinished files of living processes

Everything is written under a temporary name, flushed to disk and renamed. Objects are
copied out (or reflinked, never hard-linked) and their hash is checked on the way: a bad
one is removed, said, and counts as a miss.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Literal

from k210tasks.errors import K210Error
from k210tasks.jsondata import Rule, loads, plain
from k210tasks.store.checked import checked, unchecked
from k210tasks.store.files import Unreadable, copy_file, stays_inside, write_atomically
from k210tasks.store.locks import WorkFolder, lock, remove_locked, sweep, try_locked

#: role -> relative path ("" for an output that is one file) -> SHA-256
Contents = Mapping[str, Mapping[str, str]]

_AT_ONCE = 200  # locks of keys that gc holds: open files
_DIGEST = re.compile("[0-9a-f]{64}")
#: files of ours in ``results`` and ``objects``; others may lie there by mistake
_OURS = {
    "results": re.compile(r"\w{2}/(\w+\.json|\.k210-.*\.tmp)"),
    "objects": re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}"),
}


def _sound(outputs: Contents) -> bool:
    """Whether every digest is one, and every path stays within its output: what is read here
    decides which files are written, and others than ourselves may write to a shared store."""
    return all(
        _DIGEST.fullmatch(digest) and stays_inside(relative)
        for files in outputs.values()
        for relative, digest in files.items()
    )


_Outputs = Annotated[
    dict[str, dict[str, str]], Rule("file names within the output, each with a SHA-256", _sound)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a key stands for, and who put it there."""

    format: Literal[2] = 2  # a reader treats another number as a miss
    key: str
    outputs: _Outputs
    task: str = ""
    project: str = ""  # its root
    time: float = 0.0  # seconds since 1970

    def digests(self) -> Iterator[str]:
        """Of all its files."""
        return (digest for files in self.outputs.values() for digest in files.values())


class DamagedObject(K210Error):
    """An object of the store that does not have the content its name promises."""

    def __init__(self, path: str, wanted: str, found: str | None) -> None:
        what = f"its SHA-256 is {found[:12]}…" if found else "it is missing"
        super().__init__(f"{path} should hold {wanted[:12]}…, but {what}")


class StoreUnusable(K210Error):
    def __init__(self, root: str, why: str) -> None:
        super().__init__(
            f"the store {root} cannot be used: {why}; mend it, or set K210_STORE to another "
            "folder or to off"
        )


def _finished(source: str, digest: str, work: WorkFolder) -> str:
    """A copy of a file, flushed to disk and read-only, in the work folder."""
    temporary = os.path.join(work.path, secrets.token_hex(8))
    found = copy_file(source, temporary, sync=True)
    if found != digest:
        raise DamagedObject(source, digest, found)
    os.chmod(temporary, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    return temporary


def _rename(temporary: str, final: str) -> None:
    os.makedirs(os.path.dirname(final), exist_ok=True)
    os.replace(temporary, final)


def place(root: str) -> str | None:
    """The store's folder for a project at ``root``: K210_STORE, or ``.k210/store``; None: off."""
    wanted = os.environ.get("K210_STORE", "")
    if wanted.lower() == "off":
        return None
    return os.path.abspath(wanted) if wanted else os.path.join(root, ".k210", "store")


class Store:
    """A folder of results. ``root`` None: a store that knows and keeps nothing."""

    def __init__(self, root: str | None) -> None:
        self.root = root

    def __bool__(self) -> bool:
        return self.root is not None

    # -- places ------------------------------------------------------------------------

    def _result(self, key: str) -> str:
        assert self.root is not None
        return os.path.join(self.root, "results", key[:2], f"{key}.json")

    def _object(self, digest: str) -> str:
        assert self.root is not None
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is no SHA-256")
        return os.path.join(self.root, "objects", digest[:2], digest)

    def lock_key(self, key: str, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """One process works on a key at a time. Raises :class:`StoreUnusable`."""
        if self.root is None:
            return nullcontext()
        try:
            os.makedirs(os.path.join(self.root, "locks"), exist_ok=True)
        except OSError as error:
            raise StoreUnusable(self.root, error.strerror or str(error)) from None
        return lock(os.path.join(self.root, "locks", f"{key}.lock"), waiting)

    @contextlib.contextmanager
    def _tried(self, key: str) -> Iterator[bool]:
        """The lock of a key, where nobody has it; whether it is ours."""
        assert self.root is not None
        path = os.path.join(self.root, "locks", f"{key}.lock")
        fd = try_locked(path)
        try:
            yield fd is not None
        finally:
            if fd is not None:
                remove_locked(fd, path)

    def _lock_all(self) -> AbstractContextManager[None]:
        """Between ``put`` and ``collect``: no object goes while a result is being written."""
        assert self.root is not None
        return lock(os.path.join(self.root, "locks", "store.lock"))

    # -- reading -----------------------------------------------------------------------

    def find(self, key: str) -> Result | None:
        """What is kept for a key, or None."""
        if self.root is None:
            return None
        try:
            return self._load(key)
        except OSError:
            return None

    def _load(self, key: str) -> Result | None:
        """The same; raises OSError where it is there and cannot be read."""
        try:
            with open(self._result(key), "rb") as file:
                result = loads(Result, unchecked(file.read()))
        except (FileNotFoundError, ValueError):
            return None
        return result if result.key == key else None

    def copy_out(self, digest: str, target: str) -> None:
        """Copy an object to ``target`` (which must not exist), checking its hash.

        Raises:
            DamagedObject: the copy has another hash, or there is no object; both are gone then.
            OSError: the target cannot be written, which says nothing of the object.
        """
        path = self._object(digest)
        try:
            found: str | None = copy_file(path, target)
        except Unreadable:
            found = None
        except OSError as error:
            error.filename = error.filename or target  # write() does not tell
            raise
        if found != digest:
            for bad in (target, path):
                with contextlib.suppress(OSError):
                    os.unlink(bad)
            raise DamagedObject(path, digest, found)

    def read(self, digest: str) -> bytes | None:
        """The content of an object; None where it is gone or damaged."""
        if self.root is None or not digest:
            return None
        try:
            with open(self._object(digest), "rb") as file:
                data = file.read()
        except (OSError, ValueError):
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    # -- writing -----------------------------------------------------------------------

    def put(self, result: Result, places: Contents) -> None:
        """Keep a result. ``places``: role -> relative path -> the file to copy from.

        Raises OSError, and :class:`K210Error` if a file is not what ``outputs`` says.
        """
        if self.root is None:
            return
        sources = {
            digest: places[role][relative]
            for role, files in result.outputs.items()
            for relative, digest in files.items()
        }
        with WorkFolder(os.path.join(self.root, "tmp")) as work:
            # Finished inside the work folder: what a kill leaves of it is swept with the rest.
            told = os.path.join(work.path, "result")
            write_atomically(told, checked(plain(result)), sync=True)
            new: dict[str, str] = {}  # digest -> finished temporary file
            while True:
                for digest, source in sources.items():
                    if digest not in new and not self._has(digest, source):
                        new[digest] = _finished(source, digest, work)
                with self._lock_all():
                    # An object that was there may have been collected before we had the lock.
                    if all(d in new or self._has(d, source) for d, source in sources.items()):
                        for digest, temporary in new.items():
                            _rename(temporary, self._object(digest))
                        _rename(told, self._result(result.key))
                        return

    def _has(self, digest: str, source: str) -> bool:
        """Whether the object is there with the right size; its content is checked on restore."""
        try:
            return os.stat(self._object(digest)).st_size == os.stat(source).st_size
        except OSError:
            return False

    def drop(self, key: str) -> bool:
        """Forget one result; its objects go with the next :meth:`collect`."""
        if self.root is None:
            return False
        try:
            os.unlink(self._result(key))
        except OSError:
            return False
        return True

    # -- upkeep ------------------------------------------------------------------------

    def sweep(self) -> None:
        """Remove what killed processes left half written."""
        if self.root is not None:
            sweep(os.path.join(self.root, "tmp"))

    def results(self) -> Iterator[Result]:
        """Every readable record."""
        for path in self._files("results"):
            record = self.find(os.path.basename(path).removesuffix(".json"))
            if record is not None:
                yield record

    def _files(self, kind: str) -> Iterator[str]:
        assert self.root is not None
        for folder, _, names in os.walk(os.path.join(self.root, kind)):
            for name in names:
                path = os.path.join(folder, name)
                if _OURS[kind].fullmatch(f"{os.path.basename(folder)}/{name}"):
                    yield path

    def collect(
        self,
        keep: Callable[[Result], bool],
        *,
        dry_run: bool = False,
        look: Callable[[], None] = lambda: None,
    ) -> tuple[int, int, int]:
        """Remove the results ``keep`` refuses and every object no result names.

        What another process works on, between finding or putting a result and noting down that it
        is used, stays: its key is locked. ``look`` is called before ``keep`` is asked about keys
        whose lock is ours, and their last holder has noted down all by then.

        Returns (results removed, objects removed, bytes freed). Raises OSError, and removes
        no object, where a result cannot be read: what it names is not known.
        """
        if self.root is None:
            return 0, 0, 0
        self.sweep()
        with self._lock_all():
            look()
            used: set[str] = set()
            results = 0
            unwanted: list[tuple[str, Result | None]] = []
            for path in list(self._files("results")):
                record = self._load(os.path.basename(path).removesuffix(".json"))
                if record is not None and keep(record):
                    used.update(record.digests())
                else:
                    unwanted.append((path, record))
            for first in range(0, len(unwanted), _AT_ONCE):
                with contextlib.ExitStack() as locks:
                    some = unwanted[first : first + _AT_ONCE]
                    ours = [r is None or locks.enter_context(self._tried(r.key)) for _, r in some]
                    look()
                    for (path, record), free in zip(some, ours, strict=True):
                        if record is not None and (not free or keep(record)):
                            used.update(record.digests())
                            continue
                        results += not path.endswith(".tmp")  # else: of one killed while writing
                        if not dry_run:
                            with contextlib.suppress(OSError):
                                os.unlink(path)
            objects = freed = 0
            for path in list(self._files("objects")):
                if os.path.basename(path) in used:
                    continue
                with contextlib.suppress(OSError):
                    size = os.stat(path).st_size
                    if not dry_run:
                        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)  # Windows: else not removable
                        os.unlink(path)
                    objects += 1
                    freed += size
            return results, objects, freed
