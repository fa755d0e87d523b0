"""``k210 diff``: what changed between two kmodels, or since a model's previous build."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k210tasks.cli import contracts
from k210tasks.cli.output import Json
from k210tasks.errors import K210Error

if TYPE_CHECKING:
    from k210tasks.report.changes import Change, Comparison, LayerChange
    from k210tasks.report.facts import Build

EXAMPLE = "k210 diff workspace/nn_xo.kmodel workspace/digits.kmodel"
WIDTH = 80


class NoSuchBuild(K210Error):
    def __init__(self, name: str, file: str, names: str) -> None:
        super().__init__(f"there is no file {name}, and {file} has no model of that name: {names}")


class OnlyOne(K210Error):
    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} is a file: give the kmodel to compare it with as well, or the name of a model"
        )


class NotBuilt(K210Error):
    def __init__(self, name: str, path: str) -> None:
        super().__init__(f"model {name} is not built: there is no {path}; run doit model:{name}")


class NoPrevious(K210Error):
    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"model {name} has no previous build to compare with: {why}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a .kmodel, or a model of models.yaml")
    parser.add_argument(
        "b",
        metavar="B",
        nargs="?",
        help="likewise; left out, model A is compared with its previous build",
    )
    parser.add_argument(
        "-f", "--file", default="models.yaml", help="of the project (default: models.yaml)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: argparse.Namespace) -> int:
    from k210tasks.report.changes import compare

    if args.b is None:
        before, after = _previous(args.a, args.file)
    else:
        before, after = _build(args.a, args.file), _build(args.b, args.file)
    found = compare(before, after)
    if args.json:
        print(json.dumps(as_json(before, after, found), indent=1, ensure_ascii=False))
    else:
        print("\n".join(as_text(before, after, found)))
    return 0


# -- what is compared --------------------------------------------------------------------------


def _build(name: str, file: str) -> Build:
    """A kmodel file, or a model's current build."""
    path = Path(name)
    if path.is_file():
        return _of_file(path, name)
    if path.suffix == ".kmodel" or "/" in name:
        from k210tasks.cli.given import read_bytes

        read_bytes(name)  # says what is wrong with it
    project, model = _model(name, file)
    target = Path(project.path(f"workspace/{model}.kmodel"))
    if not target.is_file():
        raise NotBuilt(model, target.as_posix())
    return _of_file(target, model)


def _of_file(path: Path, title: str) -> Build:
    """What the file tells, and what is known of it where it is the build of a project."""
    from k210tasks.artifacts.layer_table import LayerTable
    from k210tasks.artifacts.measurement import Measurement
    from k210tasks.cli.given import UnreadableKmodel, read_bytes
    from k210tasks.jsondata import known
    from k210tasks.kmodel import KmodelError, detect, parse
    from k210tasks.report.builds import build_of
    from k210tasks.report.recorded import read_bytes as read

    data = read_bytes(str(path))
    try:
        if detect(data).readable:
            parse(data)
    except KmodelError as error:
        raise UnreadableKmodel(str(path), error) from error
    found = contracts.of_kmodel("diff", path, data)
    table = measured = None
    if found is not None and found[1].name == "contract.json":  # of a project's build
        table = known(LayerTable, read(found[1].with_name("layers.json")))
        measured = known(Measurement, read(found[1].with_name("verify.json")))
    main = None if found is None else found[0].main_memory
    return build_of(title, data, table, measured, main_bytes=main)


def _previous(name: str, file: str) -> tuple[Build, Build]:
    """A model's previous build and its current one."""
    from dataclasses import replace

    from k210tasks.report.past import Previous

    if Path(name).is_file():
        raise OnlyOne(name)
    project, model = _model(name, file)
    after = _build(model, file)
    before, why = Previous(project.history.entries(), project.store).of(model, after.sha256)
    if before is None:
        raise NoPrevious(model, why)
    return replace(before, title=f"{model}, previous build"), replace(after, title=f"{model}, now")


def _model(name: str, file: str) -> tuple[Any, str]:
    from k210tasks.engine.opening import open_project

    if not Path(file).is_file():
        raise NoSuchBuild(name, file, "the file is not there either")
    project, manifest = open_project(file)
    names = [model.name for model in manifest.models]
    if name not in names:
        raise NoSuchBuild(name, file, ", ".join(names) or "it has none")
    return project, name


# -- how it is shown ---------------------------------------------------------------------------


def as_json(before: Build, after: Build, found: Comparison) -> Json:
    """Every figure, and every layer that differs."""
    return {
        "format": 1,
        "before": {"name": before.title, "sha256": before.sha256},
        "after": {"name": after.title, "sha256": after.sha256},
        "identical": before.sha256 == after.sha256,
        "figures": {
            f.key: {"before": f.before, "after": f.after, "direction": f.direction}
            for f in found.figures
        },
        "layers": [_layer_json(change) for change in found.changed_layers],
    }


def _layer_json(change: LayerChange) -> Json:
    def side(layer: Any) -> Json | None:
        if layer is None:
            return None
        keys = ("index", "name", "input", "output", "kernel", "pool", "weight_bytes", "snr_db")
        return {key: getattr(layer, key) for key in keys}

    return {
        "kind": change.kind,
        "before": side(change.before),
        "after": side(change.after),
        "changes": list(change.changes),
    }


def as_text(before: Build, after: Build, found: Comparison) -> list[str]:
    """At most 80 columns."""
    lines = [f"before: {_cut(before.title, 8)}", f"now:    {_cut(after.title, 8)}"]
    if before.sha256 == after.sha256:
        lines.append("the two files are identical")
    lines += ["", f"{'':19} {'before':>14} {'now':>14}  change"]
    lines += [_figure(figure) for figure in found.figures]
    for build in (before, after):
        lines += [f"note: {build.title}: {note}" for note in build.notes if not build.layers]
    if found.layers:
        changed = found.changed_layers
        lines += ["", f"{len(changed)} of {len(found.layers)} layers differ"]
        for change in changed:
            lines += _layer_lines(change)
    return [piece for line in lines for piece in _wrapped(line)]


def _figure(figure: Change) -> str:
    sign = {"better": "  better", "worse": "  worse"}.get(figure.direction, "")
    row = f"{figure.what:19} {_cut(figure.before_text, 65):>14} {_cut(figure.after_text, 65):>14}"
    return f"{row}  {figure.change}{sign}".rstrip()


def _layer_lines(change: LayerChange) -> list[str]:
    layer = change.after or change.before
    assert layer is not None
    mark = {"added": "+", "removed": "-"}.get(change.kind, "~")
    row = f"{mark} {layer.index}: {layer.name} {layer.input} -> {layer.output}"
    if layer.kernel:
        row += f" {layer.kernel}"
    return [row, *(f"    {text}" for text in change.changes)]


def _cut(text: str, used: int) -> str:
    room = WIDTH - used
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _wrapped(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    return textwrap.wrap(line, WIDTH, subsequent_indent="      ", break_on_hyphens=False)
