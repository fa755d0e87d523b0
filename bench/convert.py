"""Converting twenty graphs: what the warm worker saves.

Twenty different ``.pb`` files against one, each ``doit "convert:*"`` in a process of its own,
without ``-n``, toolchain installed, from an empty store. Run by turns in one session;
printed are the medians of wall time and their ratio.

    python bench/convert.py [MODELS [ROUNDS]]
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

DODO = """\
import k210tasks

DOIT_CONFIG = k210tasks.doit_config("models.yaml")
models = k210tasks.tasks_from("models.yaml")
"""

#: Run by TensorFlow's own interpreter: copies of a graph with other weights.
VARY = """\
import sys
import numpy as np
import tensorflow as tf

source, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for i in range(count):
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(open(source, "rb").read())
    for node in graph.node:
        tensor = node.attr["value"].tensor
        if node.op == "Const" and tensor.dtype == tf.float32.as_datatype_enum:
            values = tf.make_ndarray(tensor) * np.float32(1 + i / 1000)
            tensor.CopyFrom(tf.make_tensor_proto(values))
    open(f"{folder}/m{i:02}.pb", "wb").write(graph.SerializeToString())
"""


def main() -> None:
    models = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    from k210tasks import toolchains
    from k210tasks.toolchains.environments import python_of

    tensorflow = toolchains.get("tensorflow")
    tensorflow.install(print)
    with tempfile.TemporaryDirectory() as scratch:
        graphs = Path(scratch, "graphs")
        graphs.mkdir()
        subprocess.run(
            [python_of(tensorflow.folder), "-c", VARY, HERE / "workspace/digits.pb", graphs,
             str(models)],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if len({p.read_bytes() for p in graphs.iterdir()}) != models:
            sys.exit("the graphs do not differ")
        one, many = Path(scratch, "one"), Path(scratch, "many")
        project(one, graphs, 1)
        project(many, graphs, models)
        times: dict[Path, list[float]] = {one: [], many: []}
        for _ in range(rounds):
            for place, taken in times.items():
                taken.append(convert(place))
    single, whole = (statistics.median(taken) for taken in times.values())
    print(f"one graph          {single:.2f} s (median of {rounds})")
    print(f"{models} graphs          {whole:.2f} s")
    print(f"ratio              {whole / single:.2f}   (limit 3)")


def project(place: Path, graphs: Path, models: int) -> None:
    """A project of the first ``models`` graphs."""
    (place / "src").mkdir(parents=True)
    lines = ["defaults: {compiler: nncase-1.9.0, firmware: canmv-kpu5}", "models:"]
    for i in range(models):
        shutil.copy(graphs / f"m{i:02}.pb", place / f"src/m{i:02}.pb")
        lines.append(f"  m{i:02}: {{source: src/m{i:02}.pb, images: images, verify: off}}")
    (place / "models.yaml").write_text("\n".join(lines) + "\n", "utf-8")
    (place / "dodo.py").write_text(DODO, "utf-8")
    shutil.copytree(HERE / "images/digits/calibration", place / "images")


def convert(place: Path) -> float:
    """Seconds of one run from nothing."""
    for name in (".k210", "build", "workspace"):
        shutil.rmtree(place / name, ignore_errors=True)
    for database in place.glob(".doit.db*"):
        database.unlink()
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "doit", "convert:*"],
        cwd=place, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    taken = time.perf_counter() - start
    made = len(list((place / "workspace").glob("*.tflite")))
    wanted = len(list((place / "src").iterdir()))
    if made != wanted:
        sys.exit(f"{made} of {wanted} models were converted")
    return taken


if __name__ == "__main__":
    main()
