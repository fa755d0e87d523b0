"""What it costs to keep maps below 4x4 out of the KPU: ``small_maps: padded`` beside ``kpu``.

Per network and kmodel: the estimated time of the KPU layers, KPU RAM, main memory, bytes of
the file and layers of ``padded``, and in brackets how many times those of ``kpu`` they are.

    python bench/small_maps.py
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from k210tasks.compiler.checking import Report, check  # noqa: E402
from tests.compiler.tflite_builder import Net  # noqa: E402

VWW = HERE.parent / "shared" / "fixtures" / "tflite" / "vww_96_float.tflite"

#: stride and channels at alpha 1.0 of MobileNet v1's depthwise separable blocks
BLOCKS = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5,
          (2, 1024), (1, 1024)]  # fmt: skip


def mobilenet(alpha: float, side: int) -> bytes:
    """MobileNet v1 with random weights and ten classes."""
    net = Net((1, side, side, 3))
    x = net.conv(net.input, int(32 * alpha), stride=(2, 2), act="RELU6")
    for stride, channels in BLOCKS:
        x = net.depthwise(x, stride=(stride, stride), act="RELU6")
        x = net.conv(x, int(channels * alpha), (1, 1), act="RELU6")
    x = net.dense(net.reduce("MEAN", x, [1, 2], False), 10)
    return net.build(net.softmax(x))


def resnet(side: int) -> bytes:
    """Residual blocks that halve the map five times, to 3x3 from 96."""
    net = Net((1, side, side, 3))
    x = net.conv(net.input, 16, stride=(2, 2), act="RELU")
    for channels in (32, 64, 128, 256):
        y = net.conv(x, channels, stride=(2, 2), act="RELU")
        y = net.conv(y, channels)
        x = net.binary("ADD", y, net.conv(x, channels, (1, 1), stride=(2, 2)), act="RELU")
    return net.build(net.dense(net.reduce("MEAN", x, [1, 2], False), 10))


def pooled(side: int) -> bytes:
    """3x3 convolutions with a 2x2 max pool after each, five times."""
    net = Net((1, side, side, 3))
    x = net.input
    for channels in (16, 32, 64, 128, 128):
        x = net.pool(net.conv(x, channels, act="RELU"), "MAX", (2, 2))
    x = net.reshape(x, (1, 128 * (side // 32) ** 2))
    return net.build(net.dense(net.dense(x, 128, act="RELU"), 10))


def figures(report: Report) -> list[float]:
    assert report.supported, report
    values = (report.estimated_kpu_ms, report.kpu_bytes, report.main_bytes, report.model_bytes)
    return [float(v or 0) for v in (*values, report.layers)]


def main() -> None:
    networks = {f"MobileNet v1 {a:g}, 96x96": mobilenet(a, 96) for a in (0.25, 0.5, 1.0)}
    networks |= {"residual blocks, 96x96": resnet(96), "max pools, 96x96": pooled(96)}
    networks |= {"MobileNet v1 0.5, 64x64": mobilenet(0.5, 64)}
    if VWW.exists():
        networks = {"vww_96_float": VWW.read_bytes(), **networks}
    print(f"{'network':26} kmodel  KPU time            KPU RAM           main memory       "
          "file                layers")  # fmt: skip
    for name, tflite in networks.items():
        for version in (3, 4):
            new, old = (figures(check(tflite, version, mode)) for mode in ("padded", "kpu"))
            cells = [
                f"{value:.{digits}f} {unit} ({value / before:.3f})"
                for value, before, digits, unit in zip(
                    new, old, (3, 0, 0, 0, 0), ("ms", "B", "B", "B", ""), strict=True
                )
            ]
            print(f"{name:26} {version:6}  " + "  ".join(f"{cell:18}" for cell in cells))


if __name__ == "__main__":
    main()
