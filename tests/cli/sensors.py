"""Small networks on sensor tensors, their samples, and the files a user would have of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.compiler.tflite_builder import Net

#: Windows of an accelerometer: 24 moments of 8 readings, far from 0..1 and not centred.
WINDOW = (24, 8, 1)


def windows(count: int = 60, shape: tuple[int, ...] = WINDOW) -> np.ndarray:
    """float32 (count, *shape)."""
    rng = np.random.default_rng(210)
    return (rng.normal(0, 3, (count, *shape)) + 1).astype(np.float32)


def sensor_network() -> bytes:
    """A convolution and a dense layer on windows: a kmodel 3 takes codes, a kmodel 4 floats."""
    net = Net((1, *WINDOW), seed=3)
    net.dense(net.conv(net.input, 4, act="RELU"), 3)
    return net.build()


def perceptron(inputs: int = 6) -> bytes:
    net = Net((1, inputs), seed=4)
    net.dense(net.dense(net.input, 8, act="RELU"), 3)
    return net.build()


def digits_network(shape: tuple[int, ...] = (1, 28, 28)) -> bytes:
    """The beginners' network: the input has no channels, and is flattened first."""
    net = Net(shape, seed=5)
    x = net.input if len(shape) == 2 else net.reshape(net.input, (1, int(np.prod(shape))))
    net.dense(net.dense(x, 16, act="RELU"), 10)
    return net.build()


def grey_pictures(folder: Path, side: int = 28, count: int = 12) -> Path:
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(7)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (side, side), np.uint8)).save(folder / f"{i:02}.png")
    return folder
