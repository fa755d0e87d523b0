"""``k210 doctor``: what this machine has for us: interpreters, toolchains, cache, store, disk.

Looks only: nothing is installed, fetched or written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from k210tasks.store.records import Pin
    from k210tasks.toolchains.catalogue import ToolchainOverride

    Overrides = dict[str, ToolchainOverride]

EXAMPLE = "k210 doctor"
WIDTH = 80

PACKAGES = (
    "doit", "tflite", "numpy", "Pillow", "PyYAML", "ai-edge-litert", "uv", "rich", "pydantic",
    "platformdirs", "Jinja2", "kflash",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        default="models.yaml",
        metavar="FILE",
        help="whose toolchains: section and k210.lock apply, where it exists (default models.yaml)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: argparse.Namespace) -> int:
    facts = examine(Path(args.file))
    print(json.dumps(facts, indent=2, sort_keys=True) if args.json else report(facts))
    return 0


class _Tool(TypedDict):
    name: str
    title: str
    version: str
    installed: bool
    problem: str | None
    bytes: int | None
    expected_bytes: int


class ToolFacts(_Tool, total=False):
    """A toolchain; the rest of the keys where it is installed."""

    pin: Pin
    folder: str
    interpreter: str | None
    proof: object


class PlaceFacts(TypedDict):
    where: str
    version: str | None
    why_not: str | None


class PythonFacts(TypedDict):
    """The interpreters that a toolchain may be made with."""

    toolchain: str
    needs: list[str]
    variable: str
    places: list[PlaceFacts]


FolderFacts = TypedDict(
    "FolderFacts",
    {"path": str, "exists": bool, "bytes": int, "free_bytes": int, "writable": bool, "from": str},
)


class Facts(TypedDict):
    """What ``--json`` prints."""

    version: str
    python: str
    python_path: str
    platform: str
    packages: dict[str, str | None]
    manifest: str | None
    manifest_problem: str | None
    toolchains: list[ToolFacts]
    interpreters: list[PythonFacts]
    cache: FolderFacts
    store: FolderFacts | None
    locked: bool


def examine(manifest: Path) -> Facts:
    """Everything the report shows, as JSON values; sizes in bytes."""
    from k210tasks.store import results as store
    from k210tasks.toolchains.archive import platform_tag
    from k210tasks.toolchains.cache import cache_root
    from k210tasks.toolchains.lockfile import locked
    from k210tasks.version import __version__

    overrides, problem = _overrides(manifest)
    lock = manifest.absolute().parent / "k210.lock" if manifest.exists() else None
    place = store.place(str(manifest.absolute().parent))
    return {
        "version": __version__,
        "python": platform.python_version(),
        "python_path": sys.executable,
        "platform": platform_tag(),
        "packages": _packages(),
        "manifest": str(manifest) if manifest.exists() else None,
        "manifest_problem": problem,
        "toolchains": _toolchains(overrides, lock),
        "interpreters": _interpreters(overrides),
        "cache": _folder(cache_root(), "K210_CACHE"),
        "store": _folder(Path(place), "K210_STORE") if place is not None else None,
        "locked": locked(),
    }


def _overrides(manifest: Path) -> tuple[Overrides, str | None]:
    from k210tasks.errors import K210Error

    if not manifest.exists():
        return {}, None
    from k210tasks.manifest import load

    try:
        return {o.name: o for o in load(str(manifest)).toolchains}, None
    except K210Error as error:
        return {}, str(error)


def _packages() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _toolchains(overrides: Overrides, lock: Path | None) -> list[ToolFacts]:
    from k210tasks import toolchains
    from k210tasks.toolchains.catalogue import TOOLS

    entries = []
    for name, tool in TOOLS.items():
        entry: ToolFacts = {
            "name": name,
            "title": tool.title,
            "version": tool.version,
            "installed": False,
            "problem": None,
            "bytes": None,
            "expected_bytes": tool.megabytes * 1_000_000,
        }
        try:
            toolchain = toolchains.get(name, overrides.get(name), lock)
            entry["pin"] = toolchain.pin()
            entry["installed"] = toolchain.installed()
            receipt = toolchain.receipt() if entry["installed"] else None
            if receipt is not None:
                entry["bytes"] = receipt.get("bytes")
                entry["folder"] = str(toolchain.folder)
                entry["interpreter"] = receipt.get("interpreter")
                entry["proof"] = receipt.get("proof")
        except toolchains.ToolchainError as error:
            entry["problem"] = str(error)
        entries.append(entry)
    return entries


def _interpreters(overrides: Overrides) -> list[PythonFacts]:
    from k210tasks.toolchains.catalogue import TOOLS, PythonTool
    from k210tasks.toolchains.interpreters import search

    groups: list[PythonFacts] = []
    for name, tool in TOOLS.items():
        if not isinstance(tool, PythonTool):
            continue
        override = overrides.get(name)
        chosen = override.python if override is not None else None
        places: list[PlaceFacts] = []
        usable: set[Path] = set()
        for finding in search(tool.pythons, chosen=chosen, variable=tool.variable):
            found = finding.interpreter
            if found is not None and found.path.resolve() in usable:
                continue  # one interpreter met on two ways is one interpreter
            if found is not None:
                usable.add(found.path.resolve())
            places.append(
                {
                    "where": finding.where,
                    "version": ".".join(map(str, found.version)) if found else None,
                    "why_not": finding.why_not or None,
                }
            )
        groups.append(
            {
                "toolchain": name,
                "needs": list(tool.pythons),
                "variable": tool.variable,
                "places": places,
            }
        )
    return groups


def _folder(path: Path, variable: str) -> FolderFacts:
    import shutil

    from k210tasks.toolchains.toolchain import size_of

    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    return {
        "path": str(path),
        "exists": path.is_dir(),
        "bytes": size_of(path) if path.is_dir() else 0,
        "free_bytes": shutil.disk_usage(existing).free,
        "writable": os.access(existing, os.W_OK),
        "from": f"${variable}" if os.environ.get(variable) else "default",
    }


def report(facts: Facts) -> str:
    """The text for a terminal, 80 columns wide where paths allow."""
    lines = [f"k210tasks {facts['version']}, CPython {facts['python']}, {facts['platform']}"]
    lines += _wrapped("", f"python: {facts['python_path']}")
    versions = ", ".join(f"{n} {v or 'MISSING'}" for n, v in facts["packages"].items())
    lines += _wrapped("", versions)
    if facts["manifest_problem"]:
        lines += ["", f"{facts['manifest']} cannot be read, so its toolchains: are not applied:"]
        lines += ["  " + line for line in facts["manifest_problem"].splitlines()]
    lines += ["", "Toolchains"]
    for entry in facts["toolchains"]:
        lines += _toolchain(entry)
    for group in facts["interpreters"]:
        lines += ["", f"Interpreters for {group['toolchain']}: CPython {_listed(group['needs'])}"]
        for place in group["places"]:
            if place["version"]:
                lines += _wrapped("  usable  ", f"{place['version']}  {place['where']}")
            else:
                lines += _wrapped("  -       ", f"{place['where']}: {place['why_not']}")
        if not any(p["version"] for p in group["places"]):
            lines += _wrapped(
                "  ", "None is usable. When it is needed, uv will try to download one; or set "
                f"{group['variable']}=/path/to/python",
            )  # fmt: skip
    lines += ["", "Folders"]
    lines += _place("cache", facts["cache"])
    if facts["store"] is None:
        lines += ["  store   off (K210_STORE=off)"]
    else:
        lines += _place("store", facts["store"])
    if facts["locked"]:
        lines += ["", "Locked: downloads that k210.lock does not list are refused."]
    return "\n".join(lines)


def _toolchain(entry: ToolFacts) -> list[str]:
    indent = " " * 20
    if entry["installed"]:
        state = f"installed, {_size(entry['bytes'] or 0)}"
    elif entry["problem"]:
        state = "not usable"
    else:
        state = f"not installed (about {_size(entry['expected_bytes'])})"
    lines = [f"  {entry['name']:<18}{state}"]
    lines += _wrapped(indent, entry["title"])
    pin = entry.get("pin") or {}
    if "requirements" in pin:
        text = f"pin: {pin['version']}, requirements sha256 {pin['requirements'][:16]}…"
    elif "sha256" in pin:
        text = f"pin: {pin['version']}, archive sha256 {pin['sha256'][:16]}…"
    elif pin:
        text = f"pin: {pin['version']}, hash not recorded yet"
    else:
        text = ""
    lines += _wrapped(indent, text) if text else []
    if entry.get("interpreter"):
        lines += _wrapped(indent, f"python: {entry['interpreter']}")
    if entry["problem"]:
        lines += _wrapped(indent, entry["problem"])
    elif not entry["installed"]:
        lines += _wrapped(indent, f"to install: doit toolchain:{entry['name']}")
    return lines


def _place(name: str, folder: FolderFacts) -> list[str]:
    origin = f" ({folder['from']})" if folder["from"] != "default" else ""
    lines = [f"  {name:<8}{folder['path']}{origin}"]
    used = _size(folder["bytes"]) if folder["exists"] else "not there yet"
    state = f"{used}; {_size(folder['free_bytes'])} free on its disk"
    lines += _wrapped(" " * 10, state)
    if not folder["writable"]:
        lines += _wrapped(" " * 10, "NOT WRITABLE")
    return lines


def _wrapped(first: str, text: str) -> list[str]:
    """Lines of at most 80 columns, hanging below the first one; paths stay whole."""
    wrapper = textwrap.TextWrapper(
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first) if first else "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line for part in text.splitlines() for line in wrapper.wrap(part)] or [first]


def _size(count: int) -> str:
    """1.4 GiB, 93 MiB."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1000 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"


def _listed(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
