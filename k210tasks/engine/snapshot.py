"""What is in the inputs of a step right now: names, content hashes, stamps.

Names and stamps are cheap and looked up once per process; a hash is taken from the record
of the task or from the folder's stamp cache (``.k210/stamps``) wherever a stamp vouches
for it, and only else from the content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any

from k210tasks.engine.plan import FileInput, Input, OptionalInput, SamplesInput, TreeInput
from k210tasks.engine.project import Project
from k210tasks.errors import K210Error
from k210tasks.samples.folder import Samples, evenly_spaced, scan
from k210tasks.store.checked import checked, unchecked
from k210tasks.store.files import Stamp, hash_stamped, stamp_of, write_atomically
from k210tasks.store.records import Files


class InputUnreadable(K210Error):
    """An input that is not there or cannot be read; ``path`` as in models.yaml."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(why)
        self.path = path


def names(project: Project, source: Input) -> tuple[tuple[str, ...], int]:
    """The relative paths that count, in order, and how many other files were passed over.

    Raises :class:`InputUnreadable`, :class:`~k210tasks.samples.folder.SamplesError`.
    """
    if isinstance(source, FileInput):
        return ("",), 0
    if isinstance(source, OptionalInput):
        return ("",) if os.path.isfile(project.path(source.path)) else (), 0
    if isinstance(source, TreeInput):
        return tree(project.path(source.path), source.path), 0
    samples = listing(project, source.path)
    if source.count is None:
        return samples.files, samples.ignored
    return evenly_spaced(samples.files, source.count), samples.ignored


def listing(project: Project, folder: str) -> Samples:
    """The samples of a folder, listed once per process."""
    found = project.listings.get(folder)
    if found is None:
        found = project.listings[folder] = scan(project.path(folder), shown=folder)
    return found


def tree(path: str, shown: str) -> tuple[str, ...]:
    """The relative paths of all files in a folder. Raises :class:`InputUnreadable`."""
    if not os.path.isdir(path):
        raise InputUnreadable(shown, f"the folder {shown} does not exist")
    found: list[str] = []
    for folder, _, files in os.walk(path):
        inside = os.path.relpath(folder, path).replace(os.sep, "/")
        prefix = "" if inside == "." else inside + "/"
        found += [prefix + name for name in files]
    return tuple(sorted(found))


def place_of(project: Project, path: str, relative: str) -> str:
    """The path of one file of an input or output."""
    return project.path(f"{path.rstrip('/')}/{relative}" if relative else path)


def take(project: Project, source: Input, recorded: Files | None) -> tuple[Files, int]:
    """Names, hashes and stamps of an input, and how many files were passed over.

    Raises:
        InputUnreadable: a file is missing or cannot be read.
        SamplesError: the folder cannot serve as samples.
    """
    relatives, ignored = names(project, source)
    if isinstance(source, SamplesInput):
        return _take_samples(project, source, relatives, recorded or {}), ignored
    files: Files = {}
    for relative in relatives:
        path = place_of(project, source.path, relative)
        shown = f"{source.path}/{relative}" if relative else source.path
        files[relative] = _hashed(path, shown, (recorded or {}).get(relative))
    return files, ignored


def _hashed(path: str, shown: str, recorded: list[Any] | None) -> list[Any]:
    try:
        if recorded is not None and recorded[1] == stamp_of(path):
            return recorded
        digest, stamp = hash_stamped(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputUnreadable(shown, f"the file {shown} does not exist") from None
    except IsADirectoryError:
        raise InputUnreadable(shown, f"{shown} is a folder, not a file") from None
    except OSError as error:
        raise InputUnreadable(
            shown, f"the file {shown} cannot be read: {error.strerror or error}"
        ) from None
    return [digest, stamp]


def _take_samples(
    project: Project, source: SamplesInput, relatives: tuple[str, ...], recorded: Files
) -> Files:
    stamps = project.stamps.setdefault(source.path, {})
    cache: Files | None = None  # read when first needed
    files: Files = {}
    learnt = False
    for relative in relatives:
        path = place_of(project, source.path, relative)
        shown = f"{source.path}/{relative}" if relative else source.path
        try:
            stamp = stamps.get(relative) or stamp_of(path)
        except OSError as error:
            raise InputUnreadable(
                shown, f"the file {shown} cannot be read: {error.strerror or error}"
            ) from None
        known = recorded.get(relative)
        if known is None or known[1] != stamp:
            if cache is None:
                cache = _read_cache(project, source.path)
            known = cache.get(relative)
        if known is None or known[1] != stamp:
            known = _hashed(path, shown, None)
            assert cache is not None
            cache[relative] = known
            learnt = True
        files[relative] = known
        stamps[relative] = known[1]
    if learnt and cache is not None:
        _write_cache(project, source.path, cache)
    return files


def _cache_path(project: Project, folder: str) -> str:
    name = hashlib.sha256(folder.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return os.path.join(project.stamps_folder, f"{name}.json")


def _read_cache(project: Project, folder: str) -> Files:
    try:
        with open(_cache_path(project, folder), "rb") as file:
            cache = json.loads(unchecked(file.read()))
    except (OSError, ValueError):
        return {}
    return cache["files"] if cache["folder"] == folder else {}


def _write_cache(project: Project, folder: str, files: Files) -> None:
    """Two processes may write at once: the last one wins, and the other hashes again."""
    alive = set(listing(project, folder).files)
    kept = {relative: entry for relative, entry in files.items() if relative in alive}
    data = checked({"folder": folder, "files": kept})
    with contextlib.suppress(OSError):
        write_atomically(_cache_path(project, folder), data)


def look_again(project: Project, source: Input, files: Files) -> tuple[Files, str | None]:
    """After the work: the same files with stamps that vouch for them, or what has changed."""
    if not isinstance(source, FileInput):
        project.forget_looks(source.path)
    relatives, _ = names(project, source)
    if set(relatives) != set(files):
        return files, sorted(set(relatives) ^ set(files))[0]
    fresh: Files = {}
    for relative, (digest, stamp) in files.items():
        path = place_of(project, source.path, relative)
        now: Stamp = stamp_of(path)
        if now != stamp:
            found, now = hash_stamped(path)
            if found != digest:
                return files, relative
        fresh[relative] = [digest, now]
    return fresh, None
