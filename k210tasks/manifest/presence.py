"""Whether the files a manifest names are there: looked at anew every time.

No file is opened: a ``stat`` for each source and binary, one scan for each folder of
samples. Entries with ``made_by`` are left out, their files may come later.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from k210tasks.manifest.model import Manifest, Model
from k210tasks.samples import folder as samples

#: What tells a SavedModel folder from any other.
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")


@dataclass(frozen=True, slots=True)
class Missing:
    """A file or folder that is not there, or not what it should be."""

    place: tuple[str | int, ...]  # of the key in models.yaml
    message: str
    allowed: str = ""


Scan = Callable[[str, str], samples.Samples]


def check(
    manifest: Manifest, root: str, scan: Scan = samples.scan
) -> tuple[dict[str, samples.Samples], list[Missing]]:
    """The samples by folder, as the manifest spells it, and what is missing.

    ``scan(path, shown)`` is called once for each folder.
    """
    found: dict[str, samples.Samples] = {}
    refused: dict[str, str] = {}
    missing: list[Missing] = []
    for model in manifest.models:
        if model.made_by:
            continue
        top: tuple[str | int, ...] = ("models", model.name)
        for why, allowed in _source(model, root):
            missing.append(Missing((*top, "source"), why, allowed))
        for keys, folder in _folders(model):
            if folder not in found and folder not in refused:
                try:
                    found[folder] = scan(_join(root, folder), folder)
                except samples.SamplesError as error:
                    refused[folder] = str(error)
            if folder in refused:
                missing.append(Missing((*top, *keys), refused[folder]))
    for image in manifest.firmware:
        for i, part in enumerate(image.parts):
            if part.bin is None or part.made_by:
                continue
            why_not = _regular(part.bin, root)
            if why_not:
                place = ("firmware", image.name, "parts", i, "bin")
                missing.append(Missing(place, why_not, _MADE_BY))
    return found, missing


_MADE_BY = "if a task of yours makes it, name the task: made_by: [TASK]"


def _join(root: str, path: str) -> str:
    return os.path.join(root, path)  # noqa: PTH118


def _folders(model: Model) -> Iterator[tuple[tuple[str, ...], str]]:
    if model.images is not None:
        yield ("images",), model.images
    if model.verify is not None and model.verify.images is not None:
        yield ("verify", "images"), model.verify.images


def _mode(path: str, root: str) -> int | str:
    """The file's mode, or why there is none."""
    try:
        return os.stat(_join(root, path)).st_mode  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return f"{path} does not exist{_neighbours(path, root)}"
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"


def _neighbours(path: str, root: str) -> str:
    """What the folder has instead."""
    folder, _, name = path.rpartition("/")
    try:
        there = sorted(os.listdir(_join(root, folder)))  # noqa: PTH208
    except OSError:
        return f"; there is no folder {folder}" if folder else ""
    from k210tasks.manifest.diagnostics import did_you_mean

    meant = did_you_mean(name, there)
    if meant:
        return meant
    suffix = os.path.splitext(name)[1]  # noqa: PTH122
    same = [n for n in there if suffix and n.endswith(suffix) and not n.startswith(".")]
    if not same:
        return ""
    more = ", …" if len(same) > 5 else ""
    return f"; {folder or 'the folder'} holds {', '.join(same[:5])}{more}"


def _regular(path: str, root: str) -> str | None:
    mode = _mode(path, root)
    if isinstance(mode, str):
        return mode
    return None if stat.S_ISREG(mode) else f"{path} is a folder, not a file"


def _source(model: Model, root: str) -> Iterator[tuple[str, str]]:
    """Why a source cannot be one, and what to do."""
    from k210tasks.manifest.paths import SOURCES_ALLOWED

    mode = _mode(model.source, root)
    if isinstance(mode, str):
        yield mode, _MADE_BY
    elif model.source_kind != "savedmodel":
        if not stat.S_ISREG(mode):
            yield f"{model.source} is a folder, not a file", SOURCES_ALLOWED
        elif model.source.endswith(_SAVED_MODEL):
            folder = model.source.rpartition("/")[0]
            if os.path.isdir(_join(root, f"{folder}/variables" if folder else "variables")):  # noqa: PTH112
                yield (
                    f"{model.source} is one file of a SavedModel",
                    f"give its folder: {folder or '.'}",
                )
    elif not stat.S_ISDIR(mode):
        yield f"{model.source} is of no kind that can be read", SOURCES_ALLOWED
    elif not any(os.path.exists(_join(root, f"{model.source}/{f}")) for f in _SAVED_MODEL):  # noqa: PTH110
        yield f"the folder {model.source} holds no saved_model.pb", SOURCES_ALLOWED
