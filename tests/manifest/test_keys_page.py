"""docs/models-yaml.md and docs/models.schema.json are what the schema says now."""

from __future__ import annotations

import json
from pathlib import Path

from k210tasks import manifest
from k210tasks.manifest import keys_page, schema
from k210tasks.manifest.model import Calibrate, Model, Verify
from tests.manifest.conftest import Write

ROOT = Path(__file__).parents[2]
REMEDY = "old: run python -m k210tasks.manifest.keys_page"


def test_the_page_is_current() -> None:
    assert (ROOT / keys_page.MARKDOWN).read_text(encoding="utf-8") == (keys_page.markdown()), REMEDY


def test_the_json_schema_is_current() -> None:
    kept = json.loads((ROOT / keys_page.JSON).read_text(encoding="utf-8"))
    assert kept == manifest.json_schema(), REMEDY


def test_every_key_is_described() -> None:
    for kind in (schema.File, schema.Model, schema.Preprocess, schema.Part, schema.Toolchain):
        for key, declared in kind.model_fields.items():
            assert declared.description, key


def test_the_json_schema_knows_the_keys() -> None:
    made = manifest.json_schema()
    definitions = made["$defs"]
    assert made["additionalProperties"] is False
    assert set(made["properties"]) == {"defaults", "models", "firmware", "toolchains"}
    assert definitions["Model"]["required"] == ["source"]
    assert set(definitions["Model"]["properties"]) - set(definitions["Defaults"]["properties"]) == {
        "source",
        "inputs",
        "outputs",
    }
    assert definitions["Defaults"]["properties"]["verify"]["anyOf"][1] == {"enum": [False, "off"]}
    assert definitions["Preprocess"]["properties"]["color"]["enum"] == ["rgb", "bgr", "gray"]
    assert "null" not in json.dumps(made)


def test_the_defaults_in_the_page_are_those_in_force() -> None:
    def stated(kind: type, key: str) -> str:
        return str(kind.model_fields[key].json_schema_extra["x-default"])  # type: ignore[attr-defined]

    model = Model("a", "a", "pb", "builtin", "maixpy", 3)
    assert stated(schema.Calibrate, "samples") == str(Calibrate().samples)
    assert stated(schema.Calibrate, "method") == Calibrate().method
    assert stated(schema.Verify, "min_cosine") == str(Verify().min_cosine)
    assert stated(schema.Defaults, "effort") == model.effort
    assert stated(schema.Defaults, "weights") == str(model.weights)
    assert stated(schema.Defaults, "opcodes") == model.opcodes
    assert stated(schema.Defaults, "small_maps") == model.small_maps
    assert stated(schema.Preprocess, "resize") == model.preprocess.resize


def test_the_example_loads(write: Write) -> None:
    found = manifest.load(write(keys_page.EXAMPLE))
    assert [m.name for m in found.models] == ["nn_xo"]
