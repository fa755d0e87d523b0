"""What both example scripts share: reproducible training and a frozen TensorFlow graph.

The scripts run in an environment of their own, since neither TensorFlow nor
scikit-learn is a dependency of k210tasks::

    uv venv /tmp/examples -p 3.11
    uv pip install -p /tmp/examples tensorflow-cpu==2.21.0 scikit-learn pillow

**Reproducible** means: run twice on one machine, with the same versions of
TensorFlow, NumPy, Pillow and scikit-learn, a script writes the same bytes, pictures
and graph alike. Another processor or another TensorFlow may sum in another order, so
the weights may differ there in their last digits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its kernels differ between processors
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
from PIL import Image

Weights = dict[str, Any]  # name -> variable while training, constant when frozen
ROOT = Path(__file__).resolve().parent.parent


def fix_randomness(seed: int) -> np.random.Generator:
    """One thread, deterministic kernels, and the only source of random numbers."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(seed)
    return np.random.default_rng(seed)


def he_normal(rng: np.random.Generator, *shape: int, fan_in: int) -> Any:
    """A variable of that shape, normal with variance 2 / ``fan_in``."""
    return tf.Variable((rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32))


class Adam:
    """The usual optimiser, written out: Keras is not needed for this."""

    def __init__(self, variables: list[Any]):
        self.variables = variables
        self.first = [tf.Variable(tf.zeros_like(v)) for v in variables]
        self.second = [tf.Variable(tf.zeros_like(v)) for v in variables]
        self.step = tf.Variable(0.0)

    def apply(self, gradients: list[Any], rate: Any) -> None:
        self.step.assign_add(1.0)
        correction = tf.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        for v, m, s, g in zip(self.variables, self.first, self.second, gradients, strict=True):
            m.assign(0.9 * m + 0.1 * g)
            s.assign(0.999 * s + 0.001 * g * g)
            v.assign_sub(rate * correction * m / (tf.sqrt(s) + 1e-7))


def batches(rng: np.random.Generator, count: int, size: int) -> Iterator[np.ndarray]:
    """Indices of one epoch in random order; a last short batch is left out."""
    order = rng.permutation(count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def write_frozen(path: Path, shape: list[int], network: Callable[[Any, Weights], Any],
                 weights: Weights) -> None:  # fmt: skip
    """Write ``network`` as TensorFlow 1 froze graphs: ``input``, constants, ``output``."""
    values = {name: variable.numpy() for name, variable in weights.items()}
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, shape, name="input")
        constants = {name: tf.constant(value, name=name) for name, value in values.items()}
        tf.nn.softmax(network(x, constants), name="output")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(graph.as_graph_def().SerializeToString(deterministic=True))


def write_pictures(folder: Path, pictures: np.ndarray, names: list[str]) -> None:
    """Write uint8 grey pictures (N, H, W) as PNG files ``names`` of a folder made anew."""
    if folder.exists():
        shutil.rmtree(folder)
    for picture, name in zip(pictures, names, strict=True):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, optimize=True)
