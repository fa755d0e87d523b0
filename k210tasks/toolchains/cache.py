"""The user's cache folder: one for all projects, on this machine only."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """``$K210_CACHE``, else the platform's cache folder for k210tasks. Need not exist."""
    chosen = os.environ.get("K210_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("k210tasks", appauthor=False))
