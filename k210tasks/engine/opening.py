"""From the path of a models.yaml to a project whose files are known to be there."""

from __future__ import annotations

import os

from k210tasks import manifest as manifests
from k210tasks.engine.project import Project, say
from k210tasks.manifest.model import Manifest
from k210tasks.store.exposed import exposed
from k210tasks.toolchains.cache import cache_root


def open_project(path: str = "models.yaml") -> tuple[Project, Manifest]:
    """The project of a models.yaml, its folders of samples listed.

    Paths of the project are relative to the current folder where it holds the project.

    Raises:
        ManifestError: with everything that is wrong in the file and missing around it.
    """
    manifest = manifests.load(path)
    listings = manifests.check_files(manifest)
    base = os.path.relpath(manifest.root)
    if base == os.curdir:
        base = ""
    elif base.startswith(os.pardir):
        base = manifest.root
    base = base.replace(os.sep, "/")
    project = Project(f"{base}/" if base else "", manifest.toolchains)
    project.listings.update(listings)
    _tell_exposed(project)
    return project, manifest


def _tell_exposed(project: Project) -> None:
    """Only of folders that were chosen: the others lie in the project and in the user's home."""
    if os.environ.get("K210_STORE") and (store := project.store.root):
        _tell("K210_STORE", store)
    if os.environ.get("K210_CACHE"):
        _tell("K210_CACHE", str(cache_root()))


def _tell(variable: str, folder: str) -> None:
    if risk := exposed(folder):
        say(f"warning: {variable}={folder} is not trustworthy: {risk}")
