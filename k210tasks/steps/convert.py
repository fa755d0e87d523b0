"""``convert``: a TensorFlow or Keras model to a float ``.tflite`` with a batch of 1.

The work is done by TensorFlow in its own environment; this step checks what came of it.
The worker is kept for all models of a run, since importing TensorFlow takes seconds and a
conversion fractions of one.
"""

from __future__ import annotations

from k210tasks.engine.job import Job
from k210tasks.steps.settings import ConvertSettings
from k210tasks.steps.signature import Signature, read_model, require_float
from k210tasks.steps.tools import toolchain


def run(job: Job) -> None:
    """Inputs: source. Settings: ConvertSettings. Outputs: tflite.

    Raises:
        ToolchainError: TensorFlow refuses the model; names and shapes that do not fit it
            are answered with the graph's own candidates.
        UnusableModel: the result has several inputs, an open shape or is not float.
    """
    from k210tasks.toolchains import tensorflow

    asked = job.told(ConvertSettings)
    source, out = job.file("source"), job.outputs["tflite"]
    used = tensorflow.convert(
        toolchain(job, "tensorflow"),
        source=source,
        kind=asked.kind,
        inputs=asked.inputs,
        outputs=asked.outputs,
        out=out,
        log=job.log,
        progress=job.progress,
    )
    shown = f"{source.as_posix()}, converted"
    _, signature = read_model(out, shown)
    require_float(signature, shown, "the compiler")
    job.log.write(f"inputs {used['inputs']}, outputs {used['outputs']}\n{described(signature)}")


def described(signature: Signature) -> str:
    """One line a port, for logs and listings."""
    ports = [("input", signature.input), *(("output", p) for p in signature.outputs)]
    return "".join(
        f"{what} {p.name}: {p.dtype} {'x'.join(map(str, p.shape))}\n" for what, p in ports
    )
