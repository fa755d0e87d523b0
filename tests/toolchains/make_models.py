"""Runs inside the tensorflow environment: writes models of every kind, with what they compute.

``expected.npz`` holds, for each good model, ``NAME.x`` and ``NAME.y`` (its output, or
``NAME.y0`` and ``NAME.y1``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
import tensorflow as tf
import tf_keras

v1 = tf.compat.v1
out = Path(sys.argv[1])
rng = np.random.default_rng(5)
expected: dict[str, np.ndarray] = {}


def path(name: str) -> str:
    return str(out / name)


def weights(*shape: int) -> np.ndarray:
    return rng.normal(0, 0.4, shape).astype(np.float32)


def write(name: str, graph: tf.Graph) -> None:
    (out / (name + ".pb")).write_bytes(graph.as_graph_def().SerializeToString())


def compute(name: str, graph: tf.Graph, x: np.ndarray, outputs: list[str], feed: str) -> None:
    with v1.Session(graph=graph) as session:
        got = session.run([o + ":0" for o in outputs], {feed + ":0": x})
    expected[name + ".x"] = x
    for number, y in enumerate(got):
        expected[f"{name}.y{number}" if len(got) > 1 else f"{name}.y"] = y


def frozen(shape: list[int | None], **kinds: bool) -> tf.Graph:
    graph = tf.Graph()
    with graph.as_default():
        x = v1.placeholder(tf.float32, shape, "image")
        y = tf.nn.relu(tf.nn.conv2d(x, tf.constant(weights(3, 3, 3, 4)), 2, "SAME"))
        if kinds.get("dropout"):
            y = y * v1.placeholder(tf.float32, [], "keep_prob")
        if kinds.get("training"):
            flag = v1.placeholder_with_default(False, [], "is_training")
            y = tf.where(flag, y * 2.0, y)
        if kinds.get("unused"):
            v1.placeholder(tf.float32, [None, 7], "labels")
        if kinds.get("two"):
            tf.identity(y, "map")
        tf.nn.softmax(tf.reduce_mean(y, [1, 2]), name="probabilities")
    return graph


plain = frozen([None, 16, 12, 3])
write("plain", plain)
(out / "plain.pbtxt").write_text(str(plain.as_graph_def()))
x = rng.uniform(-1, 1, (1, 16, 12, 3)).astype(np.float32)
compute("plain", plain, x, ["probabilities"], "image")

two = frozen([1, 16, 12, 3], two=True)
write("two", two)
compute("two", two, x, ["probabilities", "map"], "image")
write("dropout", frozen([None, 16, 12, 3], dropout=True))
write("training", frozen([None, 16, 12, 3], training=True))
write("unused", frozen([None, 16, 12, 3], unused=True))
write("open", frozen([None, None, None, 3]))
write("unranked", frozen(None))
write("batch8", frozen([8, 16, 12, 3]))

with tf.Graph().as_default() as variable:
    v = v1.get_variable("w", [4, 2], use_resource=False)
    tf.identity(tf.matmul(v1.placeholder(tf.float32, [1, 4], "x"), v), "y")
write("variable", variable)

with tf.Graph().as_default() as odd:  # an operation without a TFLite counterpart
    z = v1.placeholder(tf.float32, [1, 4, 4], "x")
    tf.identity(tf.linalg.inv(z), "y")
write("odd", odd)

for number in range(20):
    write(f"many{number}", frozen([None, 16 + number, 12, 3]))


class Module(tf.Module):
    def __init__(self) -> None:
        self.w = tf.Variable(weights(6, 3))

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, name="features")])
    def __call__(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        y = tf.matmul(features, self.w)
        return {"scores": y, "best": tf.nn.relu(y)}


module = Module()
tf.saved_model.save(module, path("saved"), signatures=module.__call__)
tf.saved_model.save(
    module, path("many_signatures"), signatures={"one": module.__call__, "two": module.__call__}
)
x = rng.uniform(-1, 1, (1, 6)).astype(np.float32)
made = module(x)
expected["saved.x"] = x
expected["saved.y0"], expected["saved.y1"] = made["best"].numpy(), made["scores"].numpy()


def network(k: object, shape: tuple[int | None, ...]) -> object:
    return k.Sequential(  # type: ignore[attr-defined]
        [
            k.layers.Input(shape, name="picture"),  # type: ignore[attr-defined]
            k.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            k.layers.BatchNormalization(),
            k.layers.GlobalAveragePooling2D(),
            k.layers.Dropout(0.5),
            k.layers.Dense(3, activation="softmax", name="classes"),
        ]
    )


x = rng.uniform(-1, 1, (1, 16, 12, 3)).astype(np.float32)
for name, k, shape in (
    ("three.keras", keras, (16, 12, 3)),
    ("open.keras", keras, (None, None, 3)),
    ("three.h5", keras, (16, 12, 3)),
    ("old.h5", tf_keras, (16, 12, 3)),
):
    k.utils.set_random_seed(1)
    model = network(k, shape)
    model.save(path(name))  # type: ignore[attr-defined]
    expected[name + ".x"] = x
    expected[name + ".y"] = np.asarray(model(x, training=False))  # type: ignore[operator]
for name, k in (("heads.keras", keras), ("heads.h5", tf_keras)):
    k.utils.set_random_seed(2)
    x = rng.uniform(-1, 1, (1, 6)).astype(np.float32)
    features = k.layers.Input((6,), name="features")
    hidden = k.layers.Dense(5, activation="relu")(features)
    heads = [k.layers.Dense(2, name="second")(hidden), k.layers.Dense(3, name="first")(hidden)]
    model = k.Model(features, heads)
    model.save(path(name))
    expected[name + ".x"] = x
    for number, y in enumerate(model(x, training=False)):
        expected[f"{name}.y{number}"] = np.asarray(y)
network(tf_keras, (16, 12, 3)).save_weights(path("only_weights.h5"))  # type: ignore[attr-defined]

np.savez(path("expected.npz"), **expected)


def lite(name: str, build: object, **settings: object) -> None:
    graph = tf.Graph()
    with graph.as_default():
        tf.identity(build(v1.placeholder(tf.float32, [1, 16, 16, 3], "x")), "y")  # type: ignore
    write(name, graph)
    converter = v1.lite.TFLiteConverter.from_frozen_graph(path(name + ".pb"), ["x"], ["y"])
    for key, value in settings.items():
        setattr(converter, key, value)
    (out / (name + ".tflite")).write_bytes(converter.convert())


lite("cumsum", lambda x: tf.math.cumsum(tf.nn.conv2d(x, weights(3, 3, 3, 8), 1, "SAME"), 1))
lite(
    "int8",
    lambda x: tf.nn.conv2d(x, weights(3, 3, 3, 8), 2, "SAME"),
    optimizations=[tf.lite.Optimize.DEFAULT],
    representative_dataset=lambda: (
        [rng.uniform(0, 1, (1, 16, 16, 3)).astype(np.float32)] for _ in range(5)
    ),
    inference_input_type=tf.int8,
    inference_output_type=tf.int8,
)
