"""Folders of samples: which files of a folder count, of which kind, in which order.

A sample is a picture or a tensor; an ``.npy`` may hold many tensors. This module only reads
folder entries: no picture is opened, no numpy imported, so that the task graph can use it.
Reading the files is the business of :mod:`k210tasks.samples.loading`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from k210tasks.errors import K210Error

Kind = Literal["images", "tensors"]

#: Suffixes, compared without regard to case. ``.bin`` is raw little-endian float32.
SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "images": (".jpg", ".jpeg", ".png", ".bmp", ".gif"),
    "tensors": (".npy", ".bin"),
}
_KIND_OF: dict[str, Kind] = {suffix: kind for kind, all_ in SUFFIXES.items() for suffix in all_}

#: What a folder of samples may hold, for error messages.
ALLOWED = (
    f"pictures ({' '.join(SUFFIXES['images'])}) "
    f"or tensors ({' '.join(SUFFIXES['tensors'])}), sub-folders included"
)

#: The only file that can stand for a folder.
_MANY = ".npy"
_INDEXED = re.compile(r"(.*\.npy)\[(\d+)\]", re.IGNORECASE | re.DOTALL)

_Item = TypeVar("_Item")


class SamplesError(K210Error):
    """A folder that cannot serve as samples; ``folder`` is the path as given."""

    def __init__(self, folder: str, sentence: str) -> None:
        super().__init__(sentence)
        self.folder = folder


class FolderMissing(SamplesError):
    def __init__(self, folder: str) -> None:
        super().__init__(folder, f"the folder {folder} does not exist; it may hold {ALLOWED}")


class NotAFolder(SamplesError):
    def __init__(self, folder: str) -> None:
        super().__init__(
            folder,
            f"{folder} is a file, not a folder; a folder may hold {ALLOWED}; "
            f"of files, only an {_MANY} may stand for all samples",
        )


class FolderUnreadable(SamplesError):
    def __init__(self, folder: str, where: str, why: str) -> None:
        super().__init__(folder, f"the folder {where} cannot be read: {why}")


class FolderEmpty(SamplesError):
    def __init__(self, folder: str, ignored: int) -> None:
        others = f"only {ignored} other file{'s'[: ignored != 1]}" if ignored else "nothing"
        super().__init__(folder, f"the folder {folder} holds {others}; it may hold {ALLOWED}")


class MixedKinds(SamplesError):
    def __init__(self, folder: str, picture: str, tensor: str) -> None:
        super().__init__(
            folder,
            f"the folder {folder} holds pictures ({picture}, …) and tensors ({tensor}, …); "
            "give each kind a folder of its own",
        )


class NotAFile(SamplesError):
    def __init__(self, folder: str, file: str) -> None:
        super().__init__(
            folder, f"{folder}/{file} is a broken link or no regular file; mend or remove it"
        )


class BadFileName(SamplesError):
    def __init__(self, folder: str, file: str) -> None:
        shown = file.encode("utf-8", "backslashreplace").decode()
        super().__init__(
            folder, f"{folder}/{shown}: the file's name is not valid UTF-8; rename the file"
        )


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of a folder. ``files``: POSIX paths relative to ``folder``, sorted; of a
    single ``.npy`` just ``""``: ``folder`` is that file.
    """

    folder: str
    kind: Kind
    files: tuple[str, ...]
    ignored: int = 0  # files of other kinds, and hidden ones


def kind_of(name: str) -> Kind | None:
    """The kind of sample a file of that name is; None for hidden and other files."""
    if name[:1] == ".":  # .DS_Store, and the ._a.jpg that macOS writes beside a.jpg
        return None
    return _KIND_OF.get(name[name.rfind(".") :].lower())


def kind_of_sample(name: str) -> Kind | None:
    """As :func:`kind_of`, of a sample that may be one of many in its file."""
    return kind_of(index_of(name)[0])


def indexed(file: str, index: int) -> str:
    """The name of one sample of an ``.npy`` that holds many."""
    return f"{file}[{index:04}]"


def index_of(name: str) -> tuple[str, int | None]:
    """The inverse of :func:`indexed`; the index is None where the name has none."""
    match = _INDEXED.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def noun_of(kind: str) -> str:
    """What one sample of that kind is called."""
    return "image" if kind == "images" else "sample"


def scan(folder: str | Path, shown: str | None = None) -> Samples:
    """The samples in ``folder`` and its sub-folders; or a single ``.npy``, which may hold many.

    ``shown`` is the folder's name in the result and in errors: the path as the user wrote
    it, where ``folder`` was joined to the project's root.

    Hidden folders are left out, links to folders followed (a link back to a folder on
    the way is not). No file is opened or, links apart, stat'ed.

    Raises:
        SamplesError: :class:`FolderMissing`, :class:`NotAFolder`, :class:`FolderUnreadable`,
            :class:`FolderEmpty`, :class:`MixedKinds`, :class:`NotAFile`, :class:`BadFileName`.
    """
    top = str(folder) if shown is None else shown
    found: dict[Kind, list[str]] = {"images": [], "tensors": []}
    ignored = 0
    stack: list[tuple[str, str, frozenset[str]]] = [(str(folder), "", frozenset())]
    while stack:
        path, prefix, ancestors = stack.pop()
        try:
            with os.scandir(path) as listing:
                entries = list(listing)
        except FileNotFoundError:
            if prefix:  # removed while we look: as if it had never been there
                continue
            raise FolderMissing(top) from None
        except NotADirectoryError:
            if path.lower().endswith(_MANY) and os.path.isfile(path):  # noqa: PTH113
                return Samples(top, "tensors", ("",))
            raise NotAFolder(top) from None
        except OSError as error:
            raise FolderUnreadable(top, path, error.strerror or str(error)) from None
        for entry in entries:
            name = entry.name
            if not entry.is_file(follow_symlinks=False):  # the rare cases; no stat for the others
                if entry.is_dir():
                    if not name.startswith("."):
                        inner = _below(entry, path, ancestors)
                        if inner is not None:
                            stack.append((entry.path, f"{prefix}{name}/", inner))
                    continue
                if kind_of(name) is not None and not entry.is_file():
                    raise NotAFile(top, prefix + name)
            kind = kind_of(name)
            if kind is None:
                ignored += 1
            else:
                found[kind].append(prefix + name)
    for files in found.values():
        if not "".join(files).isascii():
            _check_names(top, files)
    if found["images"] and found["tensors"]:
        raise MixedKinds(top, min(found["images"]), min(found["tensors"]))
    for kind, files in found.items():
        if files:
            return Samples(top, kind, tuple(sorted(files)), ignored)
    raise FolderEmpty(top, ignored)


def _below(entry: os.DirEntry[str], path: str, ancestors: frozenset[str]) -> frozenset[str] | None:
    """The real folders on the way to and including a folder in ``path``; None for a loop.

    Resolving is needed only below links: without them no loop is possible.
    """
    if not ancestors and not entry.is_symlink():
        return ancestors
    real = os.path.realpath(entry.path)
    parent = os.path.realpath(path)
    if real in ancestors or f"{parent}{os.sep}".startswith(f"{real}{os.sep}"):
        return None
    return ancestors | {real}


def _check_names(top: str, files: list[str]) -> None:
    for file in files:
        try:
            file.encode()
        except UnicodeEncodeError:
            raise BadFileName(top, file) from None


def evenly_spaced(items: Sequence[_Item], count: int | None) -> tuple[_Item, ...]:
    """``count`` of the items, evenly spaced over their order; all of them if there are fewer,
    or if ``count`` is None.

    The middle of each of ``count`` equal stretches is taken, so that a list sorted by
    class is sampled fairly.
    """
    n = len(items)
    if count is None or count >= n:
        return tuple(items)
    return tuple(items[(2 * i + 1) * n // (2 * count)] for i in range(count))
