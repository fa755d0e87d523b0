"""Make the example ``digits``: scikit-learn's handwritten digits, a small MobileNet.

Writes ``workspace/digits.pb`` and the pictures in ``images/digits``: the 8x8 scans of
``sklearn.datasets.load_digits`` enlarged to 32x32 grey. The network is fed
``(pixel / 255 - 0.5) / 0.5``: mean 0.5, std 0.5. Verification pictures are held out of
training; calibration pictures are a part of the training pictures. Batch norms stay in
the graph as TensorFlow freezes them. How to run it and what "reproducible" means stands
in ``freezing.py``.

    python examples/make_digits.py
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
from PIL import Image
from sklearn.datasets import load_digits

SIZE = 32
CALIBRATION, VERIFICATION = 100, 200

#: name, kind, input channels, output channels, stride, whether relu6 follows
LAYERS = (
    ("conv", "conv3x3", 1, 16, 2, True),
    ("block1/depthwise", "depthwise", 16, 16, 1, True),
    ("block1/pointwise", "conv1x1", 16, 32, 1, True),
    ("block2/depthwise", "depthwise", 32, 32, 2, True),
    ("block2/pointwise", "conv1x1", 32, 48, 1, False),
    ("block3/expand", "conv1x1", 48, 96, 1, True),
    ("block3/depthwise", "depthwise", 96, 96, 1, True),
    ("block3/project", "conv1x1", 96, 48, 1, False),  # the residual add follows
    ("head", "conv1x1", 48, 96, 1, True),
)


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """All digits, uint8 (1797, 32, 32), and their labels."""
    digits = load_digits()
    small = (digits.images * (255 / 16)).round().astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        for image in small
    ]
    return np.stack(large), digits.target.astype(np.int64)


def to_input(images: np.ndarray) -> np.ndarray:
    return ((images / 255 - 0.5) / 0.5).astype(np.float32)[..., None]


def new_weights(rng: np.random.Generator) -> tuple[Weights, Weights]:
    """The trained variables and the running means and variances of the batch norms."""
    weights: Weights = {}
    running: Weights = {}
    for name, kind, inputs, outputs, _, _ in LAYERS:
        side = 1 if kind == "conv1x1" else 3
        shape = (side, side, inputs, 1 if kind == "depthwise" else outputs)
        fan_in = side * side * (1 if kind == "depthwise" else inputs)
        weights[f"{name}/kernel"] = he_normal(rng, *shape, fan_in=fan_in)
        weights[f"{name}/gamma"] = tf.Variable(tf.ones([outputs]))
        weights[f"{name}/beta"] = tf.Variable(tf.zeros([outputs]))
        running[f"{name}/moving_mean"] = tf.Variable(tf.zeros([outputs]))
        running[f"{name}/moving_variance"] = tf.Variable(tf.ones([outputs]))
    weights["dense/kernel"] = he_normal(rng, LAYERS[-1][3], 10, fan_in=LAYERS[-1][3])
    weights["dense/bias"] = tf.Variable(tf.zeros([10]))
    return weights, running


def network(x: Any, weights: Weights, training: bool = False) -> Any:
    """Logits (N, 10) of inputs (N, 32, 32, 1).

    In training the batch norms use, and remember in their running values, the batch.
    """
    for name, kind, _, _, stride, relu6 in LAYERS:
        if name == "block3/expand":
            shortcut = x
        kernel, strides = weights[f"{name}/kernel"], [1, stride, stride, 1]
        convolve = tf.nn.depthwise_conv2d if kind == "depthwise" else tf.nn.conv2d
        x = convolve(x, kernel, strides, "SAME")
        mean, variance = weights[f"{name}/moving_mean"], weights[f"{name}/moving_variance"]
        x, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(
            x, weights[f"{name}/gamma"], weights[f"{name}/beta"],
            None if training else mean, None if training else variance,
            epsilon=1e-3, is_training=training,
        )  # fmt: skip
        if training:
            mean.assign(0.95 * mean + 0.05 * batch_mean)
            variance.assign(0.95 * variance + 0.05 * batch_variance)
        if name == "block3/project":
            x = x + shortcut
        if relu6:
            x = tf.nn.relu6(x)
    x = tf.reduce_mean(x, [1, 2])
    return tf.nn.bias_add(tf.matmul(x, weights["dense/kernel"]), weights["dense/bias"])


def vary(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """The batch shifted by up to three pixels, in another contrast, with noise."""
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3)))
    out = np.empty(images.shape)
    for i, (y, x) in enumerate(rng.integers(0, 7, (len(images), 2))):
        out[i] = padded[i, y : y + SIZE, x : x + SIZE]
    out *= rng.uniform(0.7, 1.0, (len(images), 1, 1))
    return np.clip(out + rng.normal(0, 6, out.shape), 0, 255)


def train(rng: np.random.Generator, images: np.ndarray, labels: np.ndarray) -> Weights:
    weights, running = new_weights(rng)
    optimiser = Adam(list(weights.values()))

    @tf.function
    def step(x: Any, y: Any, rate: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = network(x, weights | running, training=True)
            target = tf.one_hot(y, 10) * 0.95 + 0.005
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
            for name, v in weights.items():
                if name.endswith("kernel"):
                    loss += 1e-4 * tf.nn.l2_loss(v)
        optimiser.apply(tape.gradient(loss, optimiser.variables), rate)
        return loss

    epochs = 60
    for epoch in range(epochs):
        rate = tf.constant(4e-3 * (1 - epoch / epochs), tf.float32)
        for chosen in batches(rng, len(images), 64):
            x = to_input(vary(rng, images[chosen]))
            loss = step(tf.constant(x), tf.constant(labels[chosen]), rate)
    print(f"loss of the last batch {float(loss):.4f}")
    return weights | running


def main() -> None:
    rng = fix_randomness(32)
    images, labels = pictures()
    order = rng.permutation(len(images))
    per_class = VERIFICATION // 10
    held_out = np.concatenate([order[labels[order] == digit][:per_class] for digit in range(10)])
    training = np.setdiff1d(order, held_out)
    weights = train(rng, images[training], labels[training])

    chosen = np.sort(rng.permutation(training)[:CALIBRATION])
    names = [f"{i:04}" for i in chosen]
    write_pictures(ROOT / "images/digits/calibration", images[chosen], names)
    names = [f"{labels[i]}/{i:04}" for i in held_out]
    write_pictures(ROOT / "images/digits/verification", images[held_out], names)

    logits = network(to_input(images[held_out]), weights).numpy()
    print(f"accuracy on the held-out digits {(logits.argmax(1) == labels[held_out]).mean():.1%}")
    write_frozen(ROOT / "workspace/digits.pb", [1, SIZE, SIZE, 1], network, weights)


if __name__ == "__main__":
    main()
