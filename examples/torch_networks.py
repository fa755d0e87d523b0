"""Networks of the structures that people train in PyTorch, small and untrained, as ONNX.

    python examples/torch_networks.py FOLDER [NAME …]

writes ``FOLDER/NAME.EXPORTER.OPSET.onnx`` for every network, by both exporters, with opsets 11 to
20, in an environment like that of ``make_signs.py``. Weights are random, from a fixed seed; the
batch norms have seen random pictures, so that values neither vanish nor explode.
``tests/torch_exports.py`` makes the environment, runs this and compiles what it writes.
"""

from __future__ import annotations

import itertools
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

#: (exporter, opset); the newer exporter knows no opset below 18
EXPORTS = (("script", 11), ("script", 13), ("script", 17), ("dynamo", 18), ("dynamo", 20))
Act = Callable[[], nn.Module]


def conv(
    a: int, b: int, k: int = 3, s: int = 1, g: int = 1, act: Act | None = nn.ReLU
) -> nn.Sequential:
    layers = [nn.Conv2d(a, b, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(b)]
    return nn.Sequential(*layers, *([act()] if act else []))


def separable(a: int, b: int, s: int = 1, k: int = 3, act: Act = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(conv(a, a, k, s, a, act), conv(a, b, 1, act=act))


class Add(nn.Module):
    """The input, or what ``shortcut`` makes of it, and ``body`` of it."""

    def __init__(
        self, body: nn.Module, shortcut: nn.Module | None = None, after: Act | None = None
    ):
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()
        self.after = after() if after else nn.Identity()

    def forward(self, x):
        return self.after(self.shortcut(x) + self.body(x))


class Cat(nn.Module):
    """What each branch makes of the input, channels behind channels."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, c: int):
        super().__init__()
        self.down, self.up = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)

    def forward(self, x):
        return x * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


def inverted(a: int, b: int, s: int, e: int, k: int = 3, act: Act = nn.ReLU6, se: bool = False):
    body = nn.Sequential(
        conv(a, a * e, 1, act=act), conv(a * e, a * e, k, s, a * e, act),
        *([Squeeze(a * e)] if se else []), conv(a * e, b, 1, act=None),
    )  # fmt: skip
    return Add(body) if s == 1 and a == b else body


def classes(c: int, n: int = 10) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, n)]


def mobilenet_v1():
    return nn.Sequential(
        conv(3, 8, 3, 2), separable(8, 16), separable(16, 32, 2), separable(32, 32),
        separable(32, 64, 2), separable(64, 64), *classes(64),
    )  # fmt: skip


def mobilenet_v2():
    return nn.Sequential(
        conv(3, 16, 3, 2, act=nn.ReLU6), inverted(16, 16, 1, 1), inverted(16, 24, 2, 4),
        inverted(24, 24, 1, 4), inverted(24, 32, 2, 4), conv(32, 64, 1, act=nn.ReLU6), *classes(64),
    )  # fmt: skip


def mobilenet_v3():
    hard = nn.Hardswish
    return nn.Sequential(
        conv(3, 16, 3, 2, act=hard), inverted(16, 16, 2, 1, act=nn.ReLU, se=True),
        inverted(16, 24, 2, 4, act=nn.ReLU), inverted(24, 24, 1, 4, 5, hard, True),
        conv(24, 64, 1, act=hard), *classes(64),
    )  # fmt: skip


def squeezenet():
    def fire(a, s, e):
        squeeze = nn.Sequential(nn.Conv2d(a, s, 1), nn.ReLU())
        one = nn.Sequential(nn.Conv2d(s, e, 1), nn.ReLU())
        return nn.Sequential(squeeze, Cat(one, nn.Sequential(nn.Conv2d(s, e, 3, 1, 1), nn.ReLU())))

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), fire(16, 8, 16),
        fire(32, 8, 16), nn.MaxPool2d(3, 2, ceil_mode=True), fire(32, 16, 32), nn.Dropout(0.5),
        nn.Conv2d(64, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def shuffle(x, groups: int = 2):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        h = c // 2
        self.body = nn.Sequential(conv(h, h, 1), conv(h, h, 3, 1, h, None), conv(h, h, 1))

    def forward(self, x):
        a, b = x.chunk(2, 1)
        return shuffle(torch.cat([a, self.body(b)], 1))


class ShuffleDown(nn.Module):
    def __init__(self, a: int, b: int):
        super().__init__()
        self.left = nn.Sequential(conv(a, a, 3, 2, a, None), conv(a, b // 2, 1))
        self.right = nn.Sequential(
            conv(a, b // 2, 1), conv(b // 2, b // 2, 3, 2, b // 2, None), conv(b // 2, b // 2, 1)
        )

    def forward(self, x):
        return shuffle(torch.cat([self.left(x), self.right(x)], 1))


def shufflenet_v2():
    return nn.Sequential(
        conv(3, 16, 3, 2), nn.MaxPool2d(3, 2, 1), ShuffleDown(16, 32), ShuffleUnit(32),
        ShuffleUnit(32), conv(32, 64, 1), *classes(64),
    )  # fmt: skip


def resnet_18():
    def basic(a, b, s):
        body = nn.Sequential(conv(a, b, 3, s), conv(b, b, act=None))
        return Add(body, conv(a, b, 1, s, act=None) if s > 1 or a != b else None, nn.ReLU)

    return nn.Sequential(
        conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1), basic(16, 16, 1), basic(16, 16, 1),
        basic(16, 32, 2), basic(32, 32, 1), basic(32, 64, 2), basic(64, 64, 1), *classes(64),
    )  # fmt: skip


def efficientnet_lite0():
    return nn.Sequential(
        conv(3, 16, 3, 2, act=nn.ReLU6), inverted(16, 16, 1, 1), inverted(16, 24, 2, 4),
        inverted(24, 24, 1, 4, 5), inverted(24, 40, 2, 4, 5), conv(40, 64, 1, act=nn.ReLU6),
        *classes(64),
    )  # fmt: skip


class Ghost(nn.Module):
    def __init__(self, a: int, b: int):
        super().__init__()
        self.first, self.cheap = conv(a, b // 2, 1), conv(b // 2, b // 2, 3, 1, b // 2)

    def forward(self, x):
        y = self.first(x)
        return torch.cat([y, self.cheap(y)], 1)


def ghostnet():
    def unit(c):
        return Add(nn.Sequential(Ghost(c, 2 * c), Ghost(2 * c, c)))

    return nn.Sequential(
        conv(3, 16, 3, 2), unit(16), nn.Sequential(Ghost(16, 32), conv(32, 32, 3, 2, 32)), unit(32),
        conv(32, 64, 1), *classes(64),
    )  # fmt: skip


def repvgg():
    """As it is trained: three branches a layer."""

    def layer(a, b, s):
        branches = [conv(a, b, 3, s, act=None), conv(a, b, 1, s, act=None)]
        whole = Add(branches[0], branches[1])
        if a != b or s != 1:
            return nn.Sequential(whole, nn.ReLU())
        return Add(whole, nn.BatchNorm2d(a), nn.ReLU)

    return nn.Sequential(
        layer(3, 16, 2), layer(16, 16, 1), layer(16, 32, 2), layer(32, 32, 1), *classes(32)
    )


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Sequential(conv(3, 8), conv(8, 8)), conv(8, 16)
        self.c, self.up = conv(16, 32), nn.ConvTranspose2d(32, 16, 2, 2)
        self.d, self.e, self.out = conv(32, 16), conv(24, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        d = self.d(torch.cat([self.up(c), b], 1))
        up = F.interpolate(d, scale_factor=2, mode="nearest")
        return self.out(self.e(torch.cat([up, a], 1)))


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.1)


def yolo_v2_tiny():
    return nn.Sequential(
        conv(3, 8, act=leaky), nn.MaxPool2d(2), conv(8, 16, act=leaky), nn.MaxPool2d(2),
        conv(16, 32, act=leaky), nn.MaxPool2d(2), conv(32, 64, act=leaky), nn.Conv2d(64, 30, 1),
    )  # fmt: skip


class YoloV3Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.early = nn.Sequential(
            conv(3, 8, act=leaky), nn.MaxPool2d(2), conv(8, 16, act=leaky), nn.MaxPool2d(2),
            conv(16, 32, act=leaky),
        )  # fmt: skip
        self.late = nn.Sequential(
            nn.MaxPool2d(2), conv(32, 64, act=leaky), conv(64, 32, 1, act=leaky)
        )
        self.large, self.lateral = nn.Conv2d(32, 21, 1), conv(32, 16, 1, act=leaky)
        self.small = nn.Sequential(conv(48, 32, act=leaky), nn.Conv2d(32, 21, 1))

    def forward(self, x):
        a = self.early(x)
        b = self.late(a)
        up = F.interpolate(self.lateral(b), scale_factor=2)
        return self.large(b), self.small(torch.cat([up, a], 1))


class C3(nn.Module):
    """A stage of YOLOv5: a part goes through residuals, a part past them."""

    def __init__(self, c: int):
        super().__init__()
        h = c // 2
        self.one, self.two = conv(c, h, 1, act=nn.SiLU), conv(c, h, 1, act=nn.SiLU)
        self.body = Add(nn.Sequential(conv(h, h, 1, act=nn.SiLU), conv(h, h, act=nn.SiLU)))
        self.last = conv(2 * h, c, 1, act=nn.SiLU)

    def forward(self, x):
        return self.last(torch.cat([self.body(self.one(x)), self.two(x)], 1))


class Sppf(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.one, self.last = conv(c, c // 2, 1, act=nn.SiLU), conv(c * 2, c, 1, act=nn.SiLU)

    def forward(self, x):
        parts = [self.one(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.last(torch.cat(parts, 1))


class C2f(nn.Module):
    """A stage of YOLOv8."""

    def __init__(self, c: int):
        super().__init__()
        h = c // 2
        self.one, self.last = conv(c, c, 1, act=nn.SiLU), conv(3 * h, c, 1, act=nn.SiLU)
        self.body = Add(nn.Sequential(conv(h, h, act=nn.SiLU), conv(h, h, act=nn.SiLU)))

    def forward(self, x):
        parts = list(self.one(x).chunk(2, 1))
        parts.append(self.body(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    """Two scales, the smaller brought up to the larger, of stages of one kind."""

    def __init__(self, stage: type[nn.Module], outputs: int):
        super().__init__()
        act = nn.SiLU
        self.early = nn.Sequential(conv(3, 8, 3, 2, act=act), conv(8, 16, 3, 2, act=act), stage(16))
        self.late = nn.Sequential(conv(16, 32, 3, 2, act=act), stage(32), Sppf(32))
        self.join = nn.Sequential(conv(48, 16, 1, act=act), stage(16))
        self.small, self.large = nn.Conv2d(16, outputs, 1), nn.Conv2d(32, outputs, 1)

    def forward(self, x):
        a = self.early(x)
        b = self.late(a)
        up = F.interpolate(b, scale_factor=2, mode="nearest")
        return self.small(self.join(torch.cat([up, a], 1))), self.large(b)


class NanoDet(nn.Module):
    def __init__(self):
        super().__init__()
        self.early = nn.Sequential(
            conv(3, 16, 3, 2, act=leaky), nn.MaxPool2d(3, 2, 1), ShuffleUnit(16)
        )
        self.late = ShuffleDown(16, 32)
        self.a, self.b = conv(16, 16, 1, act=leaky), conv(32, 16, 1, act=leaky)
        self.head = nn.Sequential(separable(16, 16, k=5, act=leaky), nn.Conv2d(16, 12, 1))

    def forward(self, x):
        early = self.early(x)
        b = self.b(self.late(early))
        a = self.a(early) + F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(a).flatten(2), self.head(b).flatten(2)


class CenterNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), conv(32, 32, 3, 2))
        self.up = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.heat, self.size = (nn.Sequential(conv(16, 16), nn.Conv2d(16, n, 1)) for n in (3, 2))

    def forward(self, x):
        y = self.up(self.body(x))
        return torch.sigmoid(self.heat(y)), self.size(y)


class Pfld(nn.Module):
    """Landmarks from three scales."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(
            conv(3, 16, 3, 2), separable(16, 16), inverted(16, 16, 2, 2, act=nn.ReLU)
        )
        self.b, self.c = conv(16, 32, 3, 2), nn.Sequential(nn.Conv2d(32, 64, 8), nn.ReLU())
        self.out = nn.Linear(16 + 32 + 64, 20)

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        parts = F.adaptive_avg_pool2d(a, 1), F.adaptive_avg_pool2d(b, 1), self.c(b)
        return self.out(torch.cat([p.flatten(1) for p in parts], 1))


def ds_cnn():
    """Keywords in a spectrogram of 49 frames."""
    return nn.Sequential(
        nn.Conv2d(1, 32, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(32), nn.ReLU(),
        separable(32, 32), separable(32, 32), separable(32, 32), *classes(32, 12),
    )  # fmt: skip


def autoencoder():
    """Of machine sounds: dense layers on 640 values."""
    sizes = (640, 64, 64, 8, 64, 64)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 640))


def tcn():
    """Dilated convolutions of a sequence."""

    def unit(c, dilation):
        body = nn.Sequential(
            nn.Conv1d(c, c, 3, 1, dilation, dilation), nn.BatchNorm1d(c), nn.ReLU()
        )
        return Add(body)

    return nn.Sequential(
        nn.Conv1d(6, 16, 3, 1, 1), nn.ReLU(), unit(16, 1), unit(16, 2), unit(16, 4),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


PICTURE = (1, 3, 64, 64)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mobilenet_v1": (mobilenet_v1, PICTURE),
    "mobilenet_v2": (mobilenet_v2, PICTURE),
    "mobilenet_v3": (mobilenet_v3, PICTURE),
    "squeezenet": (squeezenet, PICTURE),
    "shufflenet_v2": (shufflenet_v2, PICTURE),
    "resnet_18": (resnet_18, PICTURE),
    "efficientnet_lite0": (efficientnet_lite0, PICTURE),
    "ghostnet": (ghostnet, PICTURE),
    "repvgg": (repvgg, PICTURE),
    "unet": (UNet, PICTURE),
    "yolo_v2_tiny": (yolo_v2_tiny, PICTURE),
    "yolo_v3_tiny": (YoloV3Tiny, PICTURE),
    "yolo_v5n": (lambda: Yolo(C3, 21), PICTURE),
    "yolo_v8n": (lambda: Yolo(C2f, 20), PICTURE),
    "nanodet": (NanoDet, PICTURE),
    "centernet": (CenterNet, PICTURE),
    "pfld": (Pfld, PICTURE),
    "ds_cnn": (ds_cnn, (1, 1, 49, 10)),
    "autoencoder": (autoencoder, (1, 640)),
    "tcn": (tcn, (1, 6, 64)),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network, its batch norms settled, and an input."""
    torch.manual_seed(sorted(NETWORKS).index(name))
    make, shape = NETWORKS[name]
    model = make()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(layer.weight, 1, 0.1)
            nn.init.normal_(layer.bias, 0, 0.2)
    model.train()
    with torch.no_grad():
        for _ in range(30):
            model(torch.rand(8, *shape[1:]) * 2 - 1)
    return model.eval(), torch.zeros(shape)


def main(folder: Path, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or list(NETWORKS):
        model, x = made(name)
        for exporter, opset in EXPORTS:
            path = folder / f"{name}.{exporter}.{opset}.onnx"
            options = {"external_data": False} if exporter == "dynamo" else {}
            torch.onnx.export(
                model, (x,), path, input_names=["input"], opset_version=opset,
                dynamo=exporter == "dynamo", verbose=False, **options,
            )  # fmt: skip
        print(name, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
