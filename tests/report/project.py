"""A project whose every name is hostile, built by the real chain: two kmodel formats, a
classifier and a map, a model that fails to verify and one that cannot be calibrated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import tflite as schema
from PIL import Image

from tests.steps.tiny import Tiny

REPOSITORY = Path(__file__).resolve().parents[2]

SCRIPT = "<script>window.hacked=1</script>"
QUOTES = "\"'`</td><img src=x onerror='window.hacked=2'>&amp;"
LONG = "x" * 200
CHINESE = "模型 é ∑ 🙂"

LABELS = [SCRIPT, QUOTES, LONG, CHINESE]
#: no slash in a file's name
FILES = [name.replace("/", "∕") for name in (SCRIPT, QUOTES, CHINESE, LONG[:180])]

DODO = """\
import k210tasks

DOIT_CONFIG = k210tasks.doit_config("models.yaml")
models = k210tasks.tasks_from("models.yaml")
"""

MODELS = """\
defaults: {{firmware: maixpy, images: images, preprocess: {{color: rgb, mean: 0.5, std: 0.5}}}}
models:
  模型_scores:
    source: "{classifier}"
    labels: {labels}
    verify: {{images: images, min_cosine: 0.5}}
  map-4:
    source: map.tflite
    kmodel: 4
    verify: {{images: images, min_cosine: 0.5}}
  fails:
    source: map.tflite
    verify: {{images: images, min_cosine: 0.5, min_top1: 1.0}}
  broken:
    source: map.tflite
    images: broken
  unmeasured:
    source: map.tflite
    verify: off
firmware:
  demo:
    parts: [{{model: 模型_scores}}, {{model: map-4}}, {{bin: extra.bin, address: 0x900000}}]
"""


def classifier(names: tuple[str, str, str] = (SCRIPT, QUOTES, LONG)) -> bytes:
    """A convolution and a dense layer to four scores, the tensors named by ``names``."""
    random = np.random.default_rng(3)
    tiny = Tiny()
    x = tiny.tensor(names[0], [1, 8, 8, 3])
    w = tiny.tensor("w", [4, 1, 1, 3], random.normal(size=(4, 1, 1, 3)).astype(np.float32))
    b = tiny.tensor("b", [4], np.zeros(4, np.float32))
    y = tiny.tensor(names[1], [1, 8, 8, 4])
    tiny.op(schema.BuiltinOperator.CONV_2D, [x, w, b], [y])
    dense = random.normal(size=(4, 256)).astype(np.float32) / 8
    v = tiny.tensor("v", dense.shape, dense)
    c = tiny.tensor("c", [4], np.zeros(4, np.float32))
    z = tiny.tensor(names[2], [1, 4])
    tiny.op(schema.BuiltinOperator.FULLY_CONNECTED, [y, v, c], [z])
    return tiny.bytes([x], [z])


def feature_map() -> bytes:
    """Two convolutions to a map of four channels."""
    random = np.random.default_rng(4)
    tiny = Tiny()
    x = tiny.tensor("input", [1, 8, 8, 3])
    previous, channels = x, 3
    for name in (CHINESE, "map"):
        shape = (4, 1, 1, channels)
        w = tiny.tensor("w" + name, shape, random.normal(size=shape).astype(np.float32))
        b = tiny.tensor("b" + name, [4], np.zeros(4, np.float32))
        y = tiny.tensor(name, [1, 8, 8, 4])
        tiny.op(schema.BuiltinOperator.CONV_2D, [previous, w, b], [y])
        previous, channels = y, 4
    return tiny.bytes([x], [previous])


def make(root: Path) -> None:
    """Write the project's files."""
    import json

    name = "<b>&'é.tflite"
    (root / name).write_bytes(classifier())
    (root / "map.tflite").write_bytes(feature_map())
    (root / "extra.bin").write_bytes(bytes(5000))
    random = np.random.default_rng(5)
    (root / "images").mkdir()
    for i in range(12):
        stem = FILES[i] if i < len(FILES) else f"{i:02}"
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{stem}.png")
    (root / "broken").mkdir()
    (root / "broken" / "no.png").write_bytes(b"not a picture")
    (root / "dodo.py").write_text(DODO, "utf-8")
    text = MODELS.format(classifier=name, labels=json.dumps(LABELS, ensure_ascii=False))
    (root / "models.yaml").write_text(text, "utf-8")


def doit(root: Path, *args: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    """The real command line."""
    return _run(root, ["doit", *args], status)


def k210(root: Path, *args: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    return _run(root, ["k210", *args], status)


def _run(root: Path, args: list[str], status: int | None) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("K210_", "DOIT_"))}
    command = [sys.executable, "-m", *args]
    if args[0] == "k210":
        program = "import sys; from k210tasks.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", program, *args[1:]]
    done = subprocess.run(
        command,
        cwd=root,
        env={**env, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if status is not None:
        assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done
