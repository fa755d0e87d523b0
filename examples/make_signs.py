"""Make the example ``signs``: drawn traffic signs in colour, a small MobileNetV2, in PyTorch.

Writes ``workspace/signs.onnx`` and the pictures in ``images/signs``: six kinds of sign, 40x40
RGB, turned, scaled, half dark or in coloured light, before anything. The network is fed as
torchvision's are, with a mean and a std of each channel: ``(pixel / 255 - mean) / std``.
Verification pictures are drawn from another seed; calibration pictures are a part of the training
pictures. The script runs in an environment of its own::

    uv venv /tmp/examples-torch -p 3.11
    uv pip install -p /tmp/examples-torch torch==2.14.1 onnxscript onnx numpy pillow
    /tmp/examples-torch/bin/python examples/make_signs.py

Run twice on one machine, with the same versions, it writes the same bytes. Another processor or
another PyTorch may sum in another order, so the weights may differ there in their last digits.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
SIZE, SCALE = 40, 8  # pixels of a picture, and how many times larger it is drawn
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAINING, CALIBRATION, VERIFICATION = 3000, 100, 120

RED, BLUE, YELLOW, WHITE, BLACK = (
    (196, 30, 40), (25, 85, 170), (245, 195, 30), (240, 240, 240), (25, 25, 25),
)  # fmt: skip


class Sign:
    """Draws on a square of -1..1."""

    def __init__(self, side: int) -> None:
        self.image = Image.new("RGBA", (side, side))
        self.pen, self.half = ImageDraw.Draw(self.image), side / 2

    def polygon(self, points: list[tuple[float, float]], fill: tuple[int, int, int]) -> None:
        self.pen.polygon([((x + 1) * self.half, (y + 1) * self.half) for x, y in points], fill=fill)

    def regular(self, corners: int, size: float, turn: float, fill: tuple[int, int, int]) -> None:
        angles = np.radians(turn + np.arange(corners) * 360 / corners)
        self.polygon([(size * np.cos(a), size * np.sin(a)) for a in angles], fill)

    def disc(self, size: float, fill: tuple[int, int, int]) -> None:
        self.regular(60, size, 0, fill)

    def bar(
        self, x: float, y: float, width: float, height: float, fill: tuple[int, int, int]
    ) -> None:
        """A rectangle around (x, y)."""
        w, h = width / 2, height / 2
        self.polygon([(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)], fill)


def ahead(sign: Sign) -> None:
    sign.disc(0.95, BLUE)
    sign.bar(0, 0.2, 0.24, 0.8, WHITE)
    sign.polygon([(-0.45, -0.1), (0.45, -0.1), (0, -0.7)], WHITE)


def no_entry(sign: Sign) -> None:
    sign.disc(0.95, RED)
    sign.bar(0, 0, 1.3, 0.35, WHITE)


def parking(sign: Sign) -> None:
    sign.bar(0, 0, 1.7, 1.7, BLUE)
    sign.bar(-0.2, 0, 0.25, 1.2, WHITE)
    sign.bar(0.1, -0.3, 0.7, 0.65, WHITE)
    sign.bar(0.07, -0.3, 0.3, 0.25, BLUE)


def priority(sign: Sign) -> None:
    sign.regular(4, 1.0, 0, WHITE)
    sign.regular(4, 0.75, 0, YELLOW)


def stop(sign: Sign) -> None:
    sign.regular(8, 0.98, 22.5, RED)
    for x in (-0.55, -0.18, 0.18, 0.55):
        sign.bar(x, 0, 0.2, 0.5, WHITE)


def yield_(sign: Sign) -> None:
    sign.regular(3, 1.0, 90, RED)
    sign.regular(3, 0.6, 90, WHITE)


#: in the order of the network's scores
SIGNS = {f.__name__.strip("_"): f for f in (ahead, no_entry, parking, priority, stop, yield_)}


def picture(rng: np.random.Generator, label: int) -> np.ndarray:
    """One sign before something blurred, uint8 (40, 40, 3)."""
    whole = SIZE * SCALE
    side = int(whole * rng.uniform(0.5, 0.95))
    sign = Sign(side)
    list(SIGNS.values())[label](sign)
    shrunk = (int(side * rng.uniform(0.75, 1)), side)  # seen from the side
    drawn = sign.image.resize(shrunk).rotate(
        float(rng.uniform(-15, 15)), Image.Resampling.BICUBIC, expand=True
    )
    behind = Image.fromarray(rng.integers(30, 226, (4, 4, 3), np.uint8))
    scene = behind.resize((whole, whole), Image.Resampling.BICUBIC)
    room = [max(whole - n, 1) for n in drawn.size]
    scene.paste(drawn, (int(rng.integers(room[0])), int(rng.integers(room[1]))), drawn)
    blur = ImageFilter.GaussianBlur(float(rng.uniform(0, 8)))
    small = scene.filter(blur).resize((SIZE, SIZE), Image.Resampling.BOX)
    light = rng.uniform(0.45, 1.1) * rng.uniform(0.85, 1.15, 3)
    return np.clip(np.asarray(small) * light + rng.normal(0, 2, (SIZE, SIZE, 3)), 0, 255).astype(
        np.uint8
    )


def pictures(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (count, 40, 40, 3) and their labels, each as often as the others."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(SIGNS)
    return np.stack([picture(rng, int(label)) for label in labels]), labels


def to_input(images: np.ndarray) -> torch.Tensor:
    scaled = (images / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def block(inputs: int, outputs: int, stride: int, expand: int) -> nn.Module:
    """An inverted residual of MobileNetV2."""
    inside = inputs * expand
    layers = nn.Sequential(
        nn.Conv2d(inputs, inside, 1, bias=False), nn.BatchNorm2d(inside), nn.ReLU6(),
        nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False),
        nn.BatchNorm2d(inside), nn.ReLU6(),
        nn.Conv2d(inside, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
    )  # fmt: skip
    return Residual(layers) if stride == 1 and inputs == outputs else layers


class Residual(nn.Module):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


def network() -> nn.Module:
    """Pictures (1, 3, 40, 40) to a score for each sign."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
        block(16, 16, 1, 2),
        block(16, 24, 2, 3),
        block(24, 24, 1, 3),
        block(24, 40, 2, 3),
        nn.Conv2d(40, 96, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, len(SIGNS)),
    )  # fmt: skip


def train(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
    rng, epochs, size = np.random.default_rng(2), 20, 50
    optimiser = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    model.train()
    x, y = to_input(images), torch.from_numpy(labels)
    for _ in range(epochs):
        for chosen in rng.permutation(len(images)).reshape(-1, size):
            loss = loss_of(model(x[chosen]), y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    print(f"loss of the last batch {loss.item():.4f}")


def write_pictures(folder: Path, images: np.ndarray, names: list[str]) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    for image, name in zip(images, names, strict=True):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, optimize=True)


def bare(path: Path) -> None:
    """Leave out what the exporter tells of itself, the paths of this machine among it."""
    model = onnx.load(path)
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
    for weights in graph.initializer:
        del weights.metadata_props[:]
    onnx.save(model, path)


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(7)
    images, labels = pictures(1, TRAINING)
    held_out, wanted = pictures(3, VERIFICATION)
    model = network()
    train(model, images, labels)
    model.eval()

    names = [f"{i:03}" for i in range(CALIBRATION)]
    write_pictures(ROOT / "images/signs/calibration", images[:CALIBRATION], names)
    kinds = list(SIGNS)
    names = [f"{kinds[label]}/{i:03}" for i, label in enumerate(wanted)]
    write_pictures(ROOT / "images/signs/verification", held_out, names)

    with torch.no_grad():
        right = (model(to_input(held_out)).argmax(1).numpy() == wanted).mean()
    print(f"accuracy on the held-out signs {right:.1%}")
    path = ROOT / "workspace/signs.onnx"
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, SIZE, SIZE),),
        path,
        input_names=["picture"],
        output_names=["scores"],
        opset_version=18,
        external_data=False,
    )
    bare(path)


if __name__ == "__main__":
    main()
