"""The rooms of the house: imports point down, none in a circle, and each name says one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import k210tasks

HOUSE = Path(k210tasks.__file__).parent

#: Top to bottom: a room imports itself and those below. The package's own ``__init__`` stands
#: on top of all. The chains and bodies of ``steps`` use the plans and jobs of ``engine``, which
#: knows no step: hence their order.
ROOMS = (
    "plugin", "cli", "graph", "steps", "engine", "report", "artifacts", "board", "app", "manifest",
    "toolchains", "store", "firmware", "heads", "reference", "samples", "compiler",
    "simulator", "kmodel", "profiles", "kpu", "tflite_verifier", "tflite_tables", "tflite_schema",
    "wording", "npz", "bounded", "jsondata", "progress", "process_wide", "errors", "version",
)  # fmt: skip

#: Names that several modules bear with reason.
SHARED = {
    "__init__",
    "errors",  # each room's own
    # a verb, and the step it is the short way to
    "convert",
    "report",
}


@cache
def modules() -> dict[str, Path]:
    """Every module, by its dotted name below the package; "" is the package itself."""
    found = {}
    for path in HOUSE.rglob("*.py"):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str) -> Iterator[str]:
    """What a module imports of ours anywhere: in functions and under TYPE_CHECKING too.

    Modules named in a string, such as the bodies a plan names, are not imports of it.
    """
    known = modules()
    for node in ast.walk(ast.parse(known[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively: this test does not see it"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [
                full if full.removeprefix("k210tasks.") in known else str(node.module)
                for full in inside
            ]
        else:
            continue
        for full in named:
            if full.split(".")[0] == "k210tasks":
                yield full.removeprefix("k210tasks").removeprefix(".")


@cache
def arrows() -> dict[str, frozenset[str]]:
    return {name: frozenset(imported(name)) - {name} for name in modules()}


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_is_in_a_room() -> None:
    assert {room(name) for name in modules()} - {""} <= set(ROOMS)


def test_imports_point_down() -> None:
    up = [
        f"{name} -> {other or 'k210tasks'}"
        for name, others in sorted(arrows().items())
        for other in sorted(others)
        if name and (not other or ROOMS.index(room(other)) < ROOMS.index(room(name)))
    ]
    assert up == []


def test_no_imports_in_a_circle() -> None:
    circle = None
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert circle is None


def test_no_two_modules_of_one_name() -> None:
    bearing = defaultdict(list)
    for name, path in modules().items():
        bearing[path.stem].append(name)
    twice = {stem for stem, names in bearing.items() if len(names) > 1}
    assert twice - SHARED == set()


def test_architecture_names_every_room() -> None:
    text = (HOUSE.parent / "ARCHITECTURE.md").read_text("utf-8")
    drawn = text.partition("```text")[2].partition("```")[0]
    there = {path.stem for path in HOUSE.iterdir() if path.suffix == ".py" or path.is_dir()}
    missing = [name for name in ROOMS if name in there and f"{name}" not in drawn]
    assert missing == []
