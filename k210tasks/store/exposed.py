"""Whether others than those meant to could put something into a folder that we trust."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: what lies in a store or a cache; folders in them are made by us, as the umask says
_PARTS = ("results", "objects", "toolchains")


def exposed(folder: str) -> str | None:
    """Who else could change what lies in ``folder``, and the remedy; None: nobody.

    The rule of OpenSSH's StrictModes (auth.c, safe_path): the folder and all above it belong to
    us or to root, and nobody else may write to them. Unlike there, a group may: a store of several
    people is made so. Above the folder the sticky bit will do, as in ``/tmp``. Root, who builds in
    containers on the folders of others, is not told of owners.
    """
    if not hasattr(os, "geteuid"):  # modes say nothing there
        return None
    us, groups = os.geteuid(), {os.getegid(), *os.getgroups()}
    path = Path(os.path.realpath(folder))
    within = [path, *(path / part for part in _PARTS)]
    for place in (*within, *path.parents):
        try:
            seen = place.stat()
        except OSError:
            continue
        mode = stat.S_IMODE(seen.st_mode)
        if mode & stat.S_IWOTH and (place in within or not mode & stat.S_ISVTX):
            return f"anybody may write to {place} (mode {mode:o}); chmod o-w {place}"
        team = mode & stat.S_IWGRP and seen.st_gid in groups
        if us and seen.st_uid not in (0, us) and not team:
            return (
                f"{place} belongs to {_name(seen.st_uid)}, who may change all of it; choose a "
                "folder of your own, or one that your group may write to"
            )
    return None


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # of another machine
        return f"user {uid}"
