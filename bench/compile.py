"""Compile time and memory of the built-in compiler beside nncase 1.9.0.

Whole processes, each from nothing: start, read the pictures, calibrate, compile, write the
kmodel. Rounds alternate so that both see the same machine; printed are medians, their ratios,
that of CPU times (steadier on a busy machine), and the peak memory of our processes. Both end as
the command line does, without the collector's last rounds.
An ONNX model is set beside our own time for the TFLite model of about its size.
A re-emit is what changing only the calibration method costs: a new process that reads the
calibration data from its file and compiles.

    python bench/compile.py [--rounds N] [--models NAME,…]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps
from uv import find_uv_bin

from k210tasks import toolchains
from k210tasks.toolchains.environments import python_of

HERE = Path(__file__).resolve().parent.parent
FIXTURES = HERE.parent / "shared" / "fixtures"

OURS = """
import atexit, gc, sys
from pathlib import Path
from k210tasks import compiler
from k210tasks.compiler import Calibration, Options
from k210tasks.compiler.formats import is_onnx
from k210tasks.reference.float_model import measure_to
from k210tasks.samples.loading import Loader
from k210tasks.samples.preprocess import Preprocess

tflite, images, mean, out, effort, method, shape, work = sys.argv[1:]
data, mean = Path(tflite).read_bytes(), float(mean)
if is_onnx(data):
    from k210tasks.compiler.reader import opened

    data = opened(data)
stored = Path(out + ".npz")
if work == "all":
    size = tuple(int(n) for n in shape.split("x"))
    loader = Loader(size, Preprocess(mean=mean, std=1.0))
    files = sorted(Path(images).iterdir())
    measure_to(stored, data, (loader.tensor(f) for f in files))
calibration = Calibration.from_npz(stored)
atexit.register(gc.freeze)
options = Options(kmodel=4, mean=mean, std=1.0, effort=effort, method=method)
Path(out).write_bytes(compiler.compile(data, calibration, options).kmodel)
"""

THEIRS = """
import atexit, gc, sys
from pathlib import Path
import numpy as np
from PIL import Image
import nncase

atexit.register(gc.freeze)
tflite, images, mean, out, shape = sys.argv[1:]
_, height, width, _ = (int(n) for n in shape.split("x"))
samples = []
for file in sorted(Path(images).iterdir()):
    picture = Image.open(file).convert("RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.BILINEAR)
    samples.append(np.asarray(picture, np.float32) / 255 - float(mean))
samples = np.stack(samples).astype(np.float32)
options = nncase.CompileOptions()
options.target = "k210"
options.input_type = "float32"
options.quant_type = options.w_quant_type = "uint8"
options.dump_dir = str(Path(out).parent)
compiler = nncase.Compiler(options)
compiler.import_tflite(Path(tflite).read_bytes(), nncase.ImportOptions())
calibration = nncase.PTQTensorOptions()
calibration.samples_count = len(samples)
calibration.calibrate_method = "no_clip"
calibration.set_tensor_data(samples.tobytes())
compiler.use_ptq(calibration)
compiler.compile()
Path(out).write_bytes(compiler.gencode_tobytes())
"""


def variants(folder: Path, count: int) -> Path:
    """``count`` different pictures: the faces, then mirrored and in other light."""
    faces = sorted((FIXTURES / "images" / "faces").iterdir())
    folder.mkdir()
    for i in range(count):
        picture = Image.open(faces[i % len(faces)]).convert("RGB")
        turn = i // len(faces)
        if turn % 2:
            picture = ImageOps.mirror(picture)
        if turn:
            picture = ImageEnhance.Brightness(picture).enhance(1 - 0.1 * turn)
        picture.save(folder / f"{i:03}.png")
    return folder


def bytecode_kept(folder: Path) -> dict[str, str]:
    """Both sides start from compiled modules, as installed packages do, whatever is set here."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder)}


def with_pillow(python: str, folder: Path) -> dict[str, str]:
    """What nncase's interpreter needs in its environment to read pictures too."""
    command = [find_uv_bin(), "pip", "install", "-q", "--python", python, "--target", str(folder)]
    subprocess.run([*command, "pillow"], check=True)
    return {"PYTHONPATH": str(folder)}


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """Wall and CPU seconds of a process and its peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    text = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command[:2])} failed:\n{text}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def beside_tflite(rounds: int) -> None:
    """yunet_n_320, an ONNX model, beside ulffd_landmark, which has three quarters of its pixels:
    whole processes, 20 pictures each."""
    files = {
        "yunet_n_320": (FIXTURES / "onnx/yunet_n_320.onnx", "0", "1x320x320x3"),
        "ulffd_landmark": (FIXTURES / "tflite/ulffd_landmark.tflite", "0.5", "1x240x320x3"),
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in files}
    with tempfile.TemporaryDirectory() as scratch:
        images, script = variants(Path(scratch, "faces"), 20), Path(scratch, "ours.py")
        script.write_text(OURS, "utf-8")
        environment = bytecode_kept(Path(scratch, "bytecode"))
        for _ in range(rounds + 1):  # the first only warms the caches
            for name, (model, mean, shape) in files.items():
                made = str(Path(scratch, f"{name}.kmodel"))
                command = [sys.executable, script, model, images, mean, made]
                command += ["normal", "minmax", shape, "all"]
                found[name].append(timed(list(map(str, command)), environment))
    (wall, cpu, peak), (other, other_cpu, _) = (
        [statistics.median(column) for column in zip(*rows[1:], strict=True)]
        for rows in found.values()
    )
    print(
        f"yunet_n_320     20 images, normal all   ours {wall:5.2f} s, ulffd_landmark {other:5.2f} s"
        f", ratio {wall / other:.2f}, a pixel {0.75 * wall / other:.2f} (at most 1.2), of CPU "
        f"time {cpu / other_cpu:.2f}, peak {peak:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default="ulffd_landmark,vww_96_float,yunet_n_320")
    args = parser.parse_args()
    if "yunet_n_320" in args.models.split(","):
        beside_tflite(args.rounds)
    if args.models == "yunet_n_320":
        return
    tools = toolchains.get("nncase-1.9.0")
    tools.install(print)
    theirs = str(python_of(tools.folder))
    with tempfile.TemporaryDirectory() as scratch:
        folders = {n: variants(Path(scratch, f"faces{n}"), n) for n in (20, 60)}
        script, nncase_script = Path(scratch, "ours.py"), Path(scratch, "theirs.py")
        script.write_text(OURS, "utf-8")
        nncase_script.write_text(THEIRS, "utf-8")
        models = {"ulffd_landmark": ("0.5", "1x240x320x3"), "vww_96_float": ("0", "1x96x96x3")}
        # model, images, effort, work, most of nncase's time (of the same images; re-emit: of 20)
        cases = [
            ("ulffd_landmark", 20, "normal", "all", 0.8),
            ("ulffd_landmark", 20, "fast", "all", 0.4),
            ("ulffd_landmark", 20, "normal", "emit", 0.4),
            ("ulffd_landmark", 60, "normal", "all", 0.4),
            ("ulffd_landmark", 60, "fast", "all", 0.25),
            ("vww_96_float", 20, "normal", "all", 1.5),
            ("vww_96_float", 20, "fast", "all", 1.0),
        ]
        environment = bytecode_kept(Path(scratch, "bytecode"))
        reading = {**environment, **with_pillow(theirs, Path(scratch, "pillow"))}
        cases = [case for case in cases if case[0] in args.models.split(",")]
        walls: dict[object, list[float]] = {}
        busy: dict[object, list[float]] = {}
        peaks: dict[object, float] = {}
        for round_ in range(args.rounds + 1):  # the first only warms the caches
            if round_ == 1:
                walls.clear()
                busy.clear()
            for model, count in dict.fromkeys((m, n) for m, n, *_ in cases):
                tflite = str(FIXTURES / "tflite" / f"{model}.tflite")
                mean, shape = models[model]
                images = str(folders[count])
                made = str(Path(scratch, "nncase.kmodel"))
                command = [theirs, str(nncase_script), tflite, images, mean, made, shape]
                wall, cpu, _ = timed(command, reading)
                walls.setdefault((model, count), []).append(wall)
                busy.setdefault((model, count), []).append(cpu)
                for case in cases:
                    if case[:2] != (model, count):
                        continue
                    _, _, effort, work, _ = case
                    method = "mse" if work == "emit" else "minmax"
                    made = str(Path(scratch, f"{model}.kmodel"))
                    command = [sys.executable, str(script), tflite, images, mean, made]
                    command += [effort, method, shape, work]
                    wall, cpu, peak = timed(command, environment)
                    busy.setdefault(case, []).append(cpu)
                    walls.setdefault(case, []).append(wall)
                    peaks[case] = max(peaks.get(case, 0.0), peak)
        for case in cases:
            model, count, effort, work, most = case
            ours, nncase = statistics.median(walls[case]), statistics.median(walls[model, count])
            cpu = statistics.median(busy[case]) / statistics.median(busy[model, count])
            print(
                f"{model:15} {count} images, {effort:6} {work:5} ours {ours:5.2f} s, "
                f"nncase {nncase:5.2f} s, ratio {ours / nncase:.2f} (at most {most}), "
                f"of CPU time {cpu:.2f}, "
                f"peak {peaks[case]:.0f} MB"
            )


if __name__ == "__main__":
    main()
