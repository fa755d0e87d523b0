"""The pages in a real Chromium: quiet, sortable, no wider than a phone, names as text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.report.chromium import Chromium
from tests.report.project import CHINESE, FILES, LONG, QUOTES, SCRIPT

PAGES = ("index", "模型_scores", "map-4", "fails", "broken", "unmeasured")

#: Clicks every head of every table twice; tells what is not in order afterwards.
SORT = """
(() => {
  const bad = [];
  let clicks = 0;
  const key = (cell) => cell.dataset.sort ?? cell.textContent.trim();
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = table.tHead.rows[0].cells;
    for (let c = 0; c < heads.length; c++) for (const way of ["ascending", "descending"]) {
      const before = table.tBodies[0].rows.length;
      heads[c].querySelector("button").click();
      clicks++;
      const keys = Array.from(table.tBodies[0].rows).map((row) => key(row.cells[c]));
      if (keys.length !== before) bad.push("rows lost");
      if (heads[c].getAttribute("aria-sort") !== way) bad.push([table.id, c, "not " + way]);
      if (keys.every((k) => k !== "" && !isNaN(k))) {
        const numbers = keys.map(Number);
        const sorted = numbers.slice().sort((a, b) => way === "ascending" ? a - b : b - a);
        if (numbers.join() !== sorted.join()) bad.push([table.id, c, way, numbers]);
      }
    }
  }
  return {bad, clicks};
})()
"""


def page(built: Path, name: str) -> Path:
    folder = built / "build/report"
    return folder / "index.html" if name == "index" else folder / f"models/{name}.html"


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_quiet_and_fits(
    built: Path, browser: Chromium, name: str, scheme: str, width: int
) -> None:
    browser.size(width)
    browser.scheme(scheme)
    browser.open(page(built, name))
    assert browser.problems == []
    assert browser.requests == []
    assert browser.js("document.documentElement.scrollWidth") == width
    background = browser.js("getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(background.replace("rgb(", "[").replace(")", "]"))) < 200) == (
        scheme == "dark"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_printed_page_is_dark_on_white_and_whole(
    built: Path, browser: Chromium, name: str, scheme: str
) -> None:
    browser.size(718)  # A4 less the margins, in pixels of 1/96 inch
    browser.scheme(scheme, "print")
    try:
        browser.open(page(built, name))
        colours = """["color", "backgroundColor"].map(key => getComputedStyle(document.body)[key]
            .match(/[0-9]+/g).map(Number).reduce((a, b) => a + b))"""
        text, paper = browser.js(colours)
        assert text < 200
        assert paper == 3 * 255
        # What is wider than the paper, or scrolls, is lost.
        lost = """Array.from(document.querySelectorAll("table, svg, pre, .scroll")).filter(e =>
            e.getBoundingClientRect().right > 718 || e.scrollHeight > e.clientHeight + 2
            && getComputedStyle(e).overflowY !== "visible").map(e => e.className || e.id)"""
        assert browser.js(lost) == []
    finally:
        browser.scheme("light")


def test_the_last_build_fits_a_phone(built: Path, browser: Chromium) -> None:
    browser.size(400)
    browser.open(page(built, "index"))
    outside = """Array.from(document.querySelectorAll("#run td")).filter(e =>
        e.getBoundingClientRect().right > 400).length"""
    assert browser.js('document.querySelectorAll("#run .said").length') > 5
    assert browser.js(outside) == 0


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", PAGES)
def test_tables_sort_on_a_click(built: Path, browser: Chromium, name: str, width: int) -> None:
    browser.size(width)
    browser.open(page(built, name))
    found = browser.js(SORT)
    assert found["bad"] == []
    assert found["clicks"] == 2 * browser.js('document.querySelectorAll("th button").length')
    if name == "index":
        assert found["clicks"] > 20


def test_a_click_brings_the_smallest_file_to_the_top(built: Path, browser: Chromium) -> None:
    browser.size(1400)
    browser.open(page(built, "index"))
    files = "Array.from(document.querySelectorAll('#models tbody th')).map(c => c.textContent)"
    assert browser.js(files) == ["模型_scores", "map-4", "fails", "broken", "unmeasured"]
    browser.js("document.querySelectorAll('#models thead button')[3].click()")
    assert browser.js(files) == ["broken", "fails", "unmeasured", "map-4", "模型_scores"]


@pytest.mark.parametrize("name", ["模型_scores", "map-4", "fails", "unmeasured"])
def test_drawings_hold_a_mark_for_each_layer(built: Path, browser: Chromium, name: str) -> None:
    layers = json.loads((built / f"build/{name}/layers.json").read_text("utf-8"))["layers"]
    assert layers
    browser.open(page(built, name))
    count = "document.querySelectorAll({!r}).length"
    assert browser.js(count.format(".ram g.layer")) == len(layers)
    assert browser.js(count.format("#layers tbody tr")) == len(layers)
    on_kpu = sum(layer["runs_on"] == "KPU" for layer in layers)
    assert browser.js(count.format(".ram g.layer.kpu")) == on_kpu
    # Every output of the KPU, and the input that is put there.
    assert browser.js(count.format(".ram g.resident")) == on_kpu + 1
    inside = """Array.from(document.querySelectorAll(".ram rect")).every(r => {
        const a = r.getBoundingClientRect(), b = r.closest("svg").getBoundingClientRect();
        return a.width > 0 && a.left >= b.left - 1 && a.right <= b.right + 1
            && a.top >= b.top - 1 && a.bottom <= b.bottom + 1; })"""
    assert browser.js(inside)


def test_the_flash_is_drawn_to_scale(built: Path, browser: Chromium) -> None:
    browser.size(1400)
    browser.open(page(built, "index"))
    boxes = browser.js("""(() => {
        const map = document.querySelector("svg.flash"), all = map.getBoundingClientRect();
        return Array.from(map.querySelectorAll(".part")).map(part => {
            const box = part.getBoundingClientRect();
            return (box.left - all.left) / all.width; }); })()""")
    wanted = [0x300000 / 2**24, 0x310000 / 2**24, 0x900000 / 2**24]
    assert boxes == pytest.approx(wanted, abs=2e-3)


def test_hostile_names_are_text(built: Path, browser: Chromium) -> None:
    for name in PAGES:
        browser.open(page(built, name))
        assert browser.js("window.hacked === undefined")
        assert browser.js("document.scripts.length") == 1
        assert browser.js("document.querySelectorAll('[onerror], [onload], [onclick]').length") == 0
    browser.open(page(built, "模型_scores"))
    text = browser.js("document.body.textContent")
    for name in (SCRIPT, QUOTES, LONG, CHINESE, *FILES, "<b>&'é.tflite"):
        assert name in text


def test_ages_are_told_by_the_script(built: Path, browser: Chromium) -> None:
    browser.open(page(built, "index"))
    ages = browser.js("Array.from(document.querySelectorAll('.age')).map(a => a.textContent)")
    assert ages
    assert all(age.endswith(" ago)") for age in ages)


def test_links_lead_to_the_pages_and_back(built: Path, browser: Chromium) -> None:
    browser.open(page(built, "index"))
    links = browser.js("Array.from(document.querySelectorAll('#models a')).map(a => a.href)")
    assert len(links) == 5
    for name, link in zip(PAGES[1:], links, strict=True):
        assert link == page(built, name).resolve().as_uri()
        assert page(built, name).is_file()
