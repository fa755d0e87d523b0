"""models.yaml: what to build, checked as a whole before anything runs.

Who builds the task graph calls, in this order::

    manifest = k210tasks.manifest.load("models.yaml")      # -> model.Manifest
    samples = k210tasks.manifest.check_files(manifest)      # -> {folder: samples.Samples}

Both raise :class:`ManifestError` (a :class:`~k210tasks.errors.K210Error`): ``str(error)`` is
the whole text to show, with all problems; ``error.problems`` is the list of them.

:func:`load` reads the file, fills in every default and judges all entries. When nothing
about the file has changed since it was last found good, the result comes from
``.k210/manifest/`` beside it, without YAML or pydantic being imported. When something is
wrong, missing files of the other entries are reported along with it. It writes nothing.

:func:`check_files` looks whether sources, binaries and folders of samples are there, each
time anew; entries with ``made_by`` are left out. It returns the listing of every folder it
scanned, keyed by the path as the manifest spells it, so that nobody need scan twice. Only
when all is well does it write the cache that the next :func:`load` reads.

Paths in a manifest are relative to ``manifest.root``, the absolute folder of models.yaml
(absolute themselves where they lead out of it by an absolute path).

:func:`json_schema` is the schema of the file for editors.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from k210tasks.manifest.diagnostics import ManifestError, Problem
from k210tasks.manifest.model import Manifest
from k210tasks.manifest.presence import Missing, Scan
from k210tasks.manifest.presence import check as _check
from k210tasks.samples import folder as samples

if TYPE_CHECKING:
    from k210tasks.manifest.kinds import JsonSchema

__all__ = ["Manifest", "ManifestError", "Problem", "check_files", "json_schema", "load"]


def load(path: str | Path = "models.yaml") -> Manifest:
    """The manifest of that file.

    Raises:
        ManifestError: with everything that is wrong; missing files only where there is
            something else too, for they are :func:`check_files`'s business.
    """
    from k210tasks.manifest import kept

    name = os.fspath(path)
    content = _content(name)
    full = os.path.abspath(name)  # noqa: PTH100
    root = os.path.dirname(full)  # noqa: PTH120
    made_from = kept.key(content, root)
    stored = kept.load(name, root, made_from)
    if stored is not None:
        return stored
    from k210tasks.manifest import entries

    manifest, found = entries.read(content, name, root)
    if found.problems:
        # A file that is missing where something else is wrong already is no news.
        places = {problem.marks[:1] for problem in found.problems}
        missing = _located(_check(manifest, root)[1], content)
        problems = found.problems + [p for p in missing if p.marks[:1] not in places]
        raise ManifestError(name, problems, found.document.text)
    return replace(manifest, made_from=made_from)


def check_files(manifest: Manifest, scan: Scan = samples.scan) -> dict[str, samples.Samples]:
    """The samples of every folder the manifest names, by folder.

    ``scan(path, shown)`` lists one folder; it is called once for each.

    Raises:
        ManifestError: a source, a binary or a folder of samples is missing, empty or of
            the wrong kind.
    """
    found, missing = _check(manifest, manifest.root, scan)
    if missing:
        try:
            content = Path(manifest.path).read_bytes()
        except OSError:
            content = b""
        from k210tasks.manifest import entries

        raise ManifestError(manifest.path, _located(missing, content), entries.decode(content)[0])
    if manifest.made_from and not manifest.kept:
        from k210tasks.manifest import kept

        kept.save(manifest, manifest.root)
    return found


def json_schema() -> JsonSchema:
    """The JSON Schema of models.yaml (draft 2020-12)."""
    from k210tasks.manifest import keys_page

    return keys_page.json_schema()


def _content(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except FileNotFoundError:
        why = Problem("the file does not exist", (), _instead(name))
    except IsADirectoryError:
        why = Problem("is a folder, not a file")
    except (OSError, ValueError) as error:
        why = Problem(f"the file cannot be read: {getattr(error, 'strerror', None) or error}")
    raise ManifestError(name, [why])


def _instead(name: str) -> str:
    """What to do without the file: use one of that name in a folder above, or begin one."""
    folder, base = os.path.split(os.path.abspath(name))  # noqa: PTH100
    for above in Path(folder).parents:
        if (above / base).is_file():
            return f"there is one in {above}: go there, or name it with -f"
    return "k210 init writes one to begin with"


def _located(missing: list[Missing], content: bytes) -> list[Problem]:
    """Missing files with the places that name them, at the model or under defaults."""
    if not missing:
        return []
    from k210tasks.manifest import document, entries
    from k210tasks.manifest.findings import Findings

    found = Findings(document.Document(""))
    text, _ = entries.decode(content)
    found.document = document.parse(text)
    for item in missing:
        place = found.written(item.place)
        found.add(place, item.message, item.allowed)
    return found.problems
