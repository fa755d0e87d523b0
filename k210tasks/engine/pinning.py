"""Inputs that are reached through links, held fast: what is read is what was hashed.

A link may lead elsewhere while a step runs, and back before its inputs are looked at again. So a
step is given such an input by links of our own, which lead to where the files really were when
their hashes were compared.
"""

from __future__ import annotations

import os

from k210tasks.engine import snapshot
from k210tasks.engine.plan import Input
from k210tasks.engine.project import Project
from k210tasks.errors import K210Error
from k210tasks.store.files import hash_file, stamp_of
from k210tasks.store.records import Files


class LedElsewhere(K210Error):
    """A link leads to another file than the one that was hashed."""


def pinned(project: Project, source: Input, files: Files, folder: str) -> str:
    """The path that a step is given for an input: its own, or where a link is on the way to any
    of its ``files``, one below ``folder`` with links to them all.

    Raises :class:`LedElsewhere`, OSError.
    """
    path = project.path(source.path)
    if os.name == "nt":  # few may make links there
        return path
    base = os.path.realpath(project.base or ".")
    real: dict[str, str] = {}
    linked = False
    for relative, (digest, stamp) in files.items():
        place = snapshot.place_of(project, source.path, relative)
        real[relative] = os.path.realpath(place)
        if real[relative] != os.path.normpath(os.path.join(base, source.path, relative)):
            linked = True
            if stamp_of(real[relative]) != stamp and hash_file(real[relative]) != digest:
                raise LedElsewhere(f"{source.path} leads elsewhere")
    if not linked:
        return path
    held = os.path.join(folder, os.path.basename(source.path.rstrip("/")))
    for relative, target in real.items():
        link = os.path.join(held, *relative.split("/")) if relative else held
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(target, link)
    return held
