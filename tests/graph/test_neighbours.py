"""Beside a user's own tasks: made_by, prefixes, other folders."""

from __future__ import annotations

from pathlib import Path

from tests.graph.conftest import DODO, Toy


def test_made_by(toy: Toy) -> None:
    image = toy.root / "images/one"
    toy.edit("source: src/one.pb", "made_by: [graph, draw]\n    source: src/one.pb")
    (toy.root / "src/one.pb").rename(toy.root / "graph.txt")
    image.rename(toy.root / "elsewhere")
    toy.write(
        "dodo.py",
        DODO + "def task_graph():\n"
        "    return {'actions': ['cp graph.txt src/one.pb'], 'targets': ['src/one.pb'],\n"
        "            'uptodate': [True]}\n"
        "def task_draw():\n"
        "    return {'actions': ['cp -r elsewhere images/one'], 'targets': ['images/one'],\n"
        "            'uptodate': [True]}\n",
    )
    done = toy.doit("verify:one")
    order = [line[3:] for line in done.stdout.splitlines()]
    assert order.index("graph") < order.index("convert:one")
    assert order.index("draw") < order.index("calibrate:one")
    assert len(toy.computed()) == 4
    done = toy.doit("verify:one")
    assert all(line.startswith("-- ") for line in done.stdout.splitlines())
    (image / "calibration/3.png").write_text("other")
    toy.doit("verify:one")
    assert toy.computed()[4:] == ["calibrate:one", "kmodel:one", "verify:one"]


def test_made_by_that_does_not_make_it(toy: Toy) -> None:
    toy.edit("source: src/one.pb", "made_by: [graph]\n    source: src/one.pb")
    (toy.root / "src/one.pb").unlink()
    toy.write("dodo.py", DODO + "def task_graph():\n    return {'actions': ['true']}\n")
    done = toy.doit("convert:one", status=1)
    assert done.stderr == (
        "!! convert:one: the file src/one.pb does not exist; it should come from graph (made_by)\n"
    )


def test_a_users_tasks_stand_beside_ours(toy: Toy) -> None:
    toy.write(
        "dodo.py",
        DODO + "def task_pack():\n"
        "    return {'actions': ['cat workspace/one.kmodel > packed'],\n"
        "            'file_dep': ['workspace/one.kmodel'], 'targets': ['packed']}\n",
    )
    done = toy.doit("pack")
    assert done.stdout.splitlines() == [
        ".  convert:one",
        ".  calibrate:one",
        ".  kmodel:one",
        ".  pack",
    ]
    assert toy.read("packed") == toy.read("workspace/one.kmodel")
    assert "-- pack" in toy.doit("pack").stdout


def test_prefix(toy: Toy) -> None:
    toy.write(
        "dodo.py",
        "from tests.graph import toy\n"
        "from k210tasks.graph import tasks as graph\n"
        "DOIT_CONFIG = graph.doit_config('models.yaml', prefix='k210-')\n"
        "models = toy.Tasks('models.yaml', prefix='k210-')\n"
        "def task_convert():\n    return {'actions': ['echo mine > mine']}\n",
    )
    done = toy.doit()
    assert ".  k210-kmodel:one" in done.stdout
    assert "mine" not in toy.files()
    toy.doit("convert")
    assert "mine" in toy.files()
    assert toy.did("computed")[0] == "calibrate:one"
    # Without the prefix nothing is computed again.
    toy.write("dodo.py", DODO)
    assert toy.run() == []
    assert "-- kmodel:one" in toy.last.stdout


def test_models_yaml_in_a_sub_folder(tmp_path: Path) -> None:
    inner = Toy(tmp_path / "ml")
    (inner.root / "dodo.py").unlink()
    outer = Toy(tmp_path)
    (tmp_path / "models.yaml").unlink()
    outer.write(
        "dodo.py",
        "from tests.graph import toy\n"
        "from k210tasks.graph import tasks as graph\n"
        "DOIT_CONFIG = graph.doit_config('ml/models.yaml')\n"
        "models = toy.Tasks('ml/models.yaml')\n",
    )
    outer.doit("ml/workspace/one.kmodel")
    assert "ml/workspace/one.kmodel" in outer.files()
    assert inner.did("computed") == ["calibrate:one", "convert:one", "kmodel:one"]
    # The same project from the inside.
    inner.write("dodo.py", DODO)
    assert inner.run() == ["calibrate:two", "convert:two", "kmodel:two", "verify:one", "verify:two"]


def test_equal_models_under_two_names_share_results(toy: Toy) -> None:
    for path in sorted((toy.root / "images/one").rglob("*.png")):
        (toy.root / "images/two" / path.relative_to(toy.root / "images/one")).write_bytes(
            path.read_bytes()
        )
    toy.write("src/two.pb", toy.read("src/one.pb"))
    # kmodel differs: the contract bears the model's name.
    assert toy.run() == [
        "calibrate:one",
        "convert:one",
        "kmodel:one",
        "kmodel:two",
        "verify:one",
        "verify:two",
    ]


SUMMARY = """\
from tests.graph import toy

DOIT_CONFIG = toy.config()
DOIT_CONFIG["default_tasks"].append("summary:all")
models = toy.WithSummary()
"""


def test_a_step_that_runs_also_after_failures(toy: Toy) -> None:
    toy.write("dodo.py", SUMMARY)
    toy.wish(one_kmodel={"fail": "no room"})
    for args in ((), ("-n", "3")):
        done = toy.doit(*args, status=2)
        assert "_before" not in done.stdout
        assert toy.read("build/summary.txt") == "one: missing\ntwo: there"
    assert toy.computed().count("summary:all") == 1
    assert "-- summary:all" in done.stdout
    toy.wish()
    toy.doit("-n", "3")
    assert toy.read("build/summary.txt") == "one: there\ntwo: there"
    done = toy.doit()
    assert all(line.startswith("-- ") for line in done.stdout.splitlines())
    (toy.root / "build/two/verify.json").unlink()
    toy.doit("verify:two")
    assert toy.computed().count("summary:all") == 2
