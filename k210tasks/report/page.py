"""From facts to HTML: whole pages that need nothing but themselves."""

from __future__ import annotations

import functools
import time
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from k210tasks import wording
from k210tasks.kpu.layout import KPU_RAM_BYTES
from k210tasks.report import drawings
from k210tasks.report.changes import compare
from k210tasks.report.drawing_ram import ram_drawing
from k210tasks.report.facts import ModelFacts, Plot, ReportFacts, Scores

#: Rows of the table of all images; a page stays small.
IMAGE_ROWS = 400

STATUS = {
    "verified": "verified",
    "unverified": "not verified",
    "failed": "failed",
    "skipped": "skipped",
    "missing": "not built",
}
DID = {
    "computed": "computed",
    "restored": "from the store",
    "kept": "unchanged",
    "judged": "judged anew",
    "skipped": "skipped",
    "failed": "failed",
}


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("k210tasks.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "count": wording.count,
        "size": lambda v: wording.together(wording.size(v)),
        "big": lambda v: wording.together(wording.big(v)),
        "ms": lambda v: wording.together(wording.milliseconds(v)),
        "seconds": lambda v: wording.together(wording.seconds(v)),
        "share": lambda v: wording.together(wording.share(v)),
        "together": wording.together,
        "cosine": lambda v: wording.decimals(v, 4),
        "plain": wording.plain,
        "hex": wording.hexadecimal,
        "utc": utc,
        "page": model_page,
        "breakable": breakable,
        "percent_of": percent_of,
    }
    environment.globals |= {
        "STATUS": STATUS,
        "DID": DID,
        "KPU_RAM_BYTES": KPU_RAM_BYTES,
        "IMAGE_ROWS": IMAGE_ROWS,
        "ram_drawing": ram_drawing,
        "histogram_drawing": drawings.histogram_drawing,
        "flash_drawing": drawings.flash_drawing,
        "used_span": drawings.used_span,
        "scatter_drawing": drawings.scatter_drawing,
        "error_map": drawings.error_map,
        "is_scores": lambda answer: isinstance(answer, Scores),
        "is_plot": lambda answer: isinstance(answer, Plot),
        "style": _resource("style.css"),
        "script": _resource("script.js"),
    }
    return environment


def _resource(name: str) -> Any:
    from markupsafe import Markup

    return Markup(files("k210tasks.report").joinpath("templates", name).read_text("utf-8"))


def utc(moment: float) -> str:
    """A time in words that do not depend on where the page is read."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


def model_page(name: str) -> str:
    """The address of a model's page from the index."""
    return f"models/{quote(name)}.html"


def breakable(path: str) -> Any:
    """A path that is broken behind its slashes before it is broken anywhere else."""
    from markupsafe import Markup, escape

    return Markup("/<wbr>").join(escape(part) for part in path.split("/"))


def percent_of(value: float | None, limit: float | None) -> float:
    """How full a bar is, 0..100."""
    if value is None or not limit:
        return 0.0
    return round(min(100.0, 100 * value / limit), 2)


def index_page(facts: ReportFacts) -> str:
    """The page of the whole project."""
    template = _environment().get_template("index.html.j2")
    return str(template.render(report=facts))


def one_model_page(facts: ReportFacts, model: ModelFacts) -> str:
    """The page of one model."""
    template = _environment().get_template("model.html.j2")
    comparison = None
    if model.build is not None and model.previous is not None:
        comparison = compare(model.previous, model.build)
    measured = [
        (layer.snr_db, layer.index, layer)
        for layer in (model.build.layers if model.build else ())
        if layer.snr_db is not None
    ]
    return str(
        template.render(
            report=facts,
            model=model,
            build=model.build,
            comparison=comparison,
            worst=[layer for _, _, layer in sorted(measured, key=lambda entry: entry[:2])],
            shown=[sample for sample in model.samples if sample.answers],
            images=[image for image in facts.images if _holds(image, model.name)],
        )
    )


def _holds(image: Any, name: str) -> bool:
    return any(part.is_model and part.name == name for part in image.parts)
