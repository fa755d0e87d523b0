"""Paths of models.yaml: one spelling each, and which files doit writes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from k210tasks.manifest.model import IN_PLACE, SourceKind
from k210tasks.manifest.names import folded

#: Suffix of a source -> its kind. A path with another suffix is a SavedModel folder.
SOURCE_KINDS: dict[str, SourceKind] = {
    ".pb": "pb",
    ".pbtxt": "pbtxt",
    ".keras": "keras",
    ".h5": "h5",
    ".tflite": "tflite",
    ".onnx": "onnx",
}
_EXPORT = "export it to .onnx first: docs/how-to/pytorch.md"
SOURCES_ALLOWED = f"allowed: {', '.join(SOURCE_KINDS)} or a SavedModel folder"

#: Suffixes of other tools' models -> what to do with one.
FOREIGN: dict[str, str] = {
    ".pt": _EXPORT,
    ".pth": _EXPORT,
    ".pdmodel": _EXPORT,
    ".pdparams": _EXPORT,
    ".weights": _EXPORT,
    ".cfg": _EXPORT,
    ".mlmodel": _EXPORT,
    ".safetensors": _EXPORT,
    ".hdf5": "rename it to .h5",
    ".ckpt": "freeze it to a .pb first",
    ".meta": "freeze the checkpoint to a .pb first",
    ".caffemodel": _EXPORT,
    ".prototxt": _EXPORT,
    ".kmodel": "a kmodel is what doit writes; give the model it was made from",
    ".zip": "unpack it",
    ".json": "give the model itself",
}


def normalise(written: str, root: str) -> str:
    """The one spelling of a path: POSIX, relative to ``root`` (absolute) where below or near it.

    An absolute path that leads outside the project stays absolute.
    """
    absolute = os.path.isabs(written)  # noqa: PTH117 (strings; thousands of them)
    full = os.path.normpath(written if absolute else os.path.join(root, written))  # noqa: PTH118
    try:
        relative = os.path.relpath(full, root).replace(os.sep, "/")
    except ValueError:  # another drive
        return full.replace(os.sep, "/")
    if absolute and relative.startswith(".."):
        return full.replace(os.sep, "/")
    return relative


def suffix(path: str) -> str:
    """The suffix in lower case, with its dot; empty where there is none."""
    return os.path.splitext(path)[1].lower()  # noqa: PTH122


def model_files(name: str, kind: SourceKind) -> Iterator[tuple[str, str]]:
    """What doit writes for a model: path and the task that does; folders end in ``/``."""
    if kind not in IN_PLACE:
        yield f"workspace/{name}.tflite", f"convert:{name}"
    yield f"workspace/{name}.kmodel", f"kmodel:{name}"
    yield f"build/{name}/", f"model:{name}"


def firmware_files(name: str) -> Iterator[tuple[str, str]]:
    """What doit writes for a firmware image."""
    yield f"build/{name}.kfpkg", f"firmware:{name}"
    yield f"build/{name}.firmware/", f"firmware:{name}"


class Written:
    """All files that doit writes, to be compared as the least careful file system would."""

    def __init__(self) -> None:
        self._owner: dict[str, str] = {".k210": "k210tasks", folded("build/report"): "report"}

    def claim(self, path: str, task: str) -> str | None:
        """Take ``path`` for ``task``; the task that has it already, if there is one."""
        return self._owner.setdefault(folded(path.rstrip("/")), task)

    def writer(self, path: str) -> str | None:
        """The task that writes ``path`` or a folder above it."""
        at = folded(path)
        while at and at != ".":
            if at in self._owner:
                return self._owner[at]
            at = at.rpartition("/")[0]
        return None
