"""Make the example ``nn_xo``: drawn circles and crosses told apart by a dense network.

Writes ``workspace/nn_xo.pb`` (28x28 grey, flatten, dense 128, 128, 2, softmax) and the
pictures in ``images/nn_xo``. The network is fed ``pixel / 255``: mean 0, std 1. Output 0
means cross, output 1 circle. How to run it and what "reproducible" means stands in
``freezing.py``.

    python examples/make_nn_xo.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from freezing import (
    ROOT,
    Adam,
    Weights,
    batches,
    fix_randomness,
    he_normal,
    tf,
    write_frozen,
    write_pictures,
)
from PIL import Image, ImageDraw

SIZE = 28
FINE = 8  # drawn that many times larger and reduced, for smooth edges
LABELS = ("cross", "circle")
TRAINING, CALIBRATION, VERIFICATION = 6000, 100, 160


def draw(rng: np.random.Generator, label: int) -> np.ndarray:
    """One picture, uint8 (28, 28): a light figure on a dark ground, or the reverse."""
    side = SIZE * FINE
    picture = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(picture)
    radius = rng.uniform(0.22, 0.45) * side
    room = side / 2 - radius
    x, y = side / 2 + rng.uniform(-room, room, 2)
    stroke = int(rng.uniform(1.2, 3.8) * FINE)
    if LABELS[label] == "circle":
        squeeze = rng.uniform(0.8, 1.0)
        box = (x - radius, y - radius * squeeze, x + radius, y + radius * squeeze)
        pen.ellipse(box, outline=255, width=stroke)
    else:
        turn = rng.uniform(-0.35, 0.35)
        for angle in (np.pi / 4 + turn, 3 * np.pi / 4 + turn + rng.uniform(-0.2, 0.2)):
            dx, dy = radius * np.cos(angle), radius * np.sin(angle)
            pen.line((x - dx, y - dy, x + dx, y + dy), fill=255, width=stroke)
    ink = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX), np.float64) / 255
    ground, line = rng.uniform(0.0, 0.25), rng.uniform(0.6, 1.0)
    grey = ground + (line - ground) * ink + rng.normal(0, rng.uniform(0, 0.08), ink.shape)
    return (np.clip(grey, 0, 1) * 255).round().astype(np.uint8)


def draw_many(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 2
    return np.stack([draw(rng, int(label)) for label in labels]), labels


def network(x: Any, weights: Weights) -> Any:
    """Logits (N, 2) of pictures (N, 28, 28, 1)."""
    x = tf.reshape(x, [-1, SIZE * SIZE])
    x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, weights["dense/kernel"]), weights["dense/bias"]))
    x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, weights["dense_1/kernel"]), weights["dense_1/bias"]))
    return tf.nn.bias_add(tf.matmul(x, weights["dense_2/kernel"]), weights["dense_2/bias"])


def train(rng: np.random.Generator, pictures: np.ndarray, labels: np.ndarray) -> Weights:
    weights: Weights = {}
    for name, inputs, outputs in (("dense", 784, 128), ("dense_1", 128, 128), ("dense_2", 128, 2)):
        weights[f"{name}/kernel"] = he_normal(rng, inputs, outputs, fan_in=inputs)
        weights[f"{name}/bias"] = tf.Variable(tf.zeros([outputs]))
    optimiser = Adam(list(weights.values()))
    x_all = (pictures / 255).astype(np.float32)[..., None]

    @tf.function
    def step(x: Any, y: Any, rate: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = network(x, weights)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
            for name, v in weights.items():
                if name.endswith("kernel"):
                    loss += 1e-4 * tf.nn.l2_loss(v)
        optimiser.apply(tape.gradient(loss, optimiser.variables), rate)
        return loss

    epochs = 30
    for epoch in range(epochs):
        rate = tf.constant(1e-3 * (1 - epoch / epochs), tf.float32)
        for chosen in batches(rng, len(x_all), 50):
            loss = step(tf.constant(x_all[chosen]), tf.constant(labels[chosen]), rate)
    print(f"loss of the last batch {float(loss):.4f}")
    return weights


def main() -> None:
    rng = fix_randomness(28)
    pictures, labels = draw_many(rng, TRAINING)
    weights = train(rng, pictures, labels)

    calibration, _ = draw_many(rng, CALIBRATION)
    names = [f"{i:03}" for i in range(CALIBRATION)]
    write_pictures(ROOT / "images/nn_xo/calibration", calibration, names)
    verification, labels = draw_many(rng, VERIFICATION)
    names = [f"{LABELS[label]}/{i:03}" for i, label in enumerate(labels)]
    write_pictures(ROOT / "images/nn_xo/verification", verification, names)

    logits = network((verification / 255).astype(np.float32)[..., None], weights).numpy()
    print(f"accuracy on the verification pictures {(logits.argmax(1) == labels).mean():.1%}")
    write_frozen(ROOT / "workspace/nn_xo.pb", [1, SIZE, SIZE, 1], network, weights)


if __name__ == "__main__":
    main()
