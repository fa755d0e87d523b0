"""Damages the texts that k210tasks reads: models.yaml, contracts, k210.lock, records, results,
the kept manifest, stamps, history, doit's bookkeeping and answers of workers.

    python tests/fuzz_texts.py KIND [--cases 3000] [--seed 0]
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from doit.dependency import JSONCodec

from k210tasks import manifest
from k210tasks.errors import K210Error
from k210tasks.firmware import c_header
from k210tasks.firmware.contract import Contract
from k210tasks.manifest import kept
from k210tasks.plugin.database import Database
from k210tasks.store.checked import HEAD, checked
from k210tasks.store.history import History
from k210tasks.store.records import TaskStates, written
from k210tasks.store.results import Result, Store
from k210tasks.toolchains import lockfile, worker
from tests import fuzzing
from tests.firmware.test_contract import FACES

YAML = """\
defaults: {firmware: maixpy, compiler: builtin}
toolchains:
  ncc-0.1.0-rc5:
    url: https://example.org/ncc.tar.gz
    sha256: 0000000000000000000000000000000000000000000000000000000000000000
models:
  one:
    source: a.pb
    inputs: {input: [1, 28, 28, 1]}
    outputs: [output]
    images: images
    preprocess: {color: gray, mean: 0.5, std: 0.5, resize: stretch}
    calibrate: {method: kl, samples: 30}
    verify: {images: images, min_cosine: 0.99, min_top1: 0.5}
    labels: [a, b]
    kmodel: 4
  two:
    source: b.tflite
    verify: off
firmware:
  app:
    parts: [{bin: app.bin}, {model: two, address: 0x300000}]
    profile: maixpy
"""


def _in_a_folder(target: Callable[[bytes], str]) -> Callable[[bytes], str]:
    """``target`` in a folder that has what :data:`YAML` names."""

    @functools.wraps(target)
    def inside(data: bytes) -> str:
        with tempfile.TemporaryDirectory() as folder:
            before = Path.cwd()
            os.chdir(folder)
            try:
                Path("images").mkdir()
                for name in ("a.pb", "b.tflite", "app.bin", "images/a.png"):
                    Path(name).write_bytes(b"x")
                return target(data)
            finally:
                os.chdir(before)

    return inside


@_in_a_folder
def models_yaml(data: bytes) -> str:
    Path("models.yaml").write_bytes(data)
    loaded = manifest.load("models.yaml")
    manifest.check_files(loaded)
    return " ".join(model.name for model in loaded.models)


def contract(data: bytes) -> str:
    found = Contract.from_json(data)
    again = Contract.from_json(found.to_json())
    assert again == found
    c_header.c_header(found).encode("ascii")
    return found.input.sentence


@_in_a_folder
def lock(data: bytes) -> str:
    Path("k210.lock").write_bytes(data)
    return str(lockfile.read(Path("k210.lock"), "nncase-1.9.0", "linux-x86_64"))


@_in_a_folder
def record(data: bytes) -> str:
    said: list[str] = []
    states = TaskStates(str(Path.cwd()), said.append)
    Path("kmodel.one.json").write_bytes(data)
    states.seal("kmodel:one")
    found = states.load("kmodel:one")
    written(found)
    list(states.all())
    return "".join(said)


@_in_a_folder
def result(data: bytes) -> str:
    store = Store(str(Path.cwd()))
    path = Path("results/ab/abc.json")
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    found = store.find("abc")
    if found is not None:
        for files in found.outputs.values():
            for digest in files.values():
                store.read(digest)
    store.collect(lambda record: True)
    assert {p.name for p in Path().iterdir()} >= {"a.pb", "b.tflite", "app.bin", "images"}
    return ""


@_in_a_folder
def kept_manifest(data: bytes) -> str:
    Path(".k210/manifest").mkdir(parents=True)
    Path(".k210/manifest/models.yaml.json").write_bytes(data)
    kept.load("models.yaml", str(Path.cwd()), "k" * 64)
    return ""


@_in_a_folder
def history(data: bytes) -> str:
    Path("history.jsonl").write_bytes(data)
    return str(len(list(History("history.jsonl").entries())))


@_in_a_folder
def bookkeeping(data: bytes) -> str:
    Path("doit.json").write_bytes(data)
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        base = Database("doit.json", JSONCodec())
        base.set("a", "b", 1)
        base.get("kmodel:one", "x")
        base.dump()
    return err.getvalue()


def worker_answer(data: bytes) -> str:
    try:
        return str(worker.understood(data.decode("utf-8", "replace"), 7).id)
    except worker._Broken as broken:
        raise K210Error(broken.how) from None


def _seeds() -> dict[str, list[bytes]]:
    done = {
        "outcome": "done", "version": 3, "settings": {"a": [1, None]}, "key": "ab" * 32,
        "outputs": {"kmodel": {"path": "w/one.kmodel", "files": {"": ["cd" * 32, [1, 2, 3, 4]]}}},
    }  # fmt: skip
    outputs = {"kmodel": {"": "ab" * 32}, "out": {"sub/x.bin": "cd" * 32}}
    told = Result(key="abc", outputs=outputs, task="kmodel:one", project="/p")
    entry = {"sha256": "ab" * 32, "size": 100, "url": "https://example.org/a.tar.gz"}
    locked = {"version": 1, "archives": {"nncase-1.9.0": {"linux-x86_64": entry}}}
    answers = (
        {"id": 7, "progress": [1, 2, "reading"]}, {"id": 7, "ok": True, "result": {"a": [1]}},
        {"id": 7, "ok": False, "kind": "refused", "message": "no"},
    )  # fmt: skip
    line = {"run": "r", "time": 1.5, "task": "kmodel:one", "did": "computed", "ok": True}
    return {
        "models.yaml": [YAML.encode()],
        "contract": [FACES.to_json().encode()],
        "lock": [json.dumps(locked, indent=1).encode()],
        "record": [
            checked({"seal": "", "format": 2, "task": "kmodel:one", **done}),
            json.dumps({"format": 1, "task": "kmodel:one", **done}, separators=(",", ":")).encode(),
        ],
        "result": [checked({**_plain(told)})],
        "kept manifest": [
            checked({"key": "k" * 64, "models": [{"name": "one", "source": "a.pb"}]})
        ],
        "history": [b"\n".join([json.dumps(line).encode()] * 4) + b"\n"],
        "bookkeeping": [json.dumps({"kmodel:one": {"x": 1}, "b": {"y": [1]}}).encode()],
        "worker answer": [json.dumps(answer).encode() + b"\n" for answer in answers],
    }


def _plain(told: Result) -> dict[str, object]:
    from k210tasks.jsondata import plain

    return dict(plain(told))


TARGETS: dict[str, Callable[[bytes], str]] = {
    "models.yaml": models_yaml,
    "contract": contract,
    "lock": lock,
    "record": record,
    "result": result,
    "kept manifest": kept_manifest,
    "history": history,
    "bookkeeping": bookkeeping,
    "worker answer": worker_answer,
}
SEEDS = _seeds()


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Damaged text; of a file with a checksum, half of the time with the right one: others
    than a disk may have changed it."""
    if not data.startswith(b'{"sum"') or rng.random() < 0.5:
        return fuzzing.mutate_text(rng, data)
    inner = fuzzing.mutate_text(rng, b"{" + data[HEAD:])
    try:
        value = json.loads(inner)
        return checked(value) if isinstance(value, dict) and value else inner
    except (ValueError, RecursionError):
        return inner


if __name__ == "__main__":
    kind = fuzzing.chosen(tuple(TARGETS))
    given = fuzzing.arguments(kind, 3000).parse_args()
    sys.exit(fuzzing.reported(kind, TARGETS[kind], SEEDS[kind], mutate, given))
