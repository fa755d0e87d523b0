"""Turns TensorFlow and Keras models into float TFLite files with a batch of 1.

TensorFlow takes seconds to import and a conversion takes fractions of one, which is why
this process is kept for all models of a run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

import tensorflow as tf
from frozen import load_graph, prepare
from serve import Refused, Say, serve
from signatures import (
    Port,
    fixed_shapes,
    pick_outputs,
)


def hello(say: Say) -> dict[str, Any]:
    """Proof that both packages load."""
    import tf_keras

    return {
        "version": tf.__version__,
        "tf_keras": tf_keras.__version__,
        "python": sys.version.split()[0],
    }


def convert(
    say: Say,
    source: str,
    kind: str,
    inputs: dict[str, list[int]] | None,
    outputs: list[str] | None,
    out: str,
) -> dict[str, Any]:
    """Write the float ``.tflite`` of ``source`` to ``out``; see ``k210tasks.toolchains``."""
    readers = {
        "pb": _frozen,
        "pbtxt": _frozen,
        "savedmodel": _saved_model,
        "keras": _keras,
        "h5": _keras,
    }
    say(0, 2, "reading")
    converter, used_inputs, used_outputs = readers[kind](source, kind, inputs, outputs)
    say(1, 2, "converting")
    tflite = converter.convert()
    _check(tflite)
    with open(out, "wb") as file:
        file.write(tflite)
    say(2, 2, "converted")
    return {"inputs": used_inputs, "outputs": used_outputs, "bytes": len(tflite)}


Read = "tuple[Any, dict[str, list[int]], list[str]]"


def _frozen(
    source: str, kind: str, inputs: dict[str, list[int]] | None, outputs: list[str] | None
) -> tuple[Any, dict[str, list[int]], list[str]]:
    graph, used_inputs, used_outputs = prepare(load_graph(source, kind), inputs, outputs)
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "graph.pb")
        with open(path, "wb") as file:
            file.write(graph.SerializeToString(deterministic=True))
        converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
            path, list(used_inputs), used_outputs, used_inputs
        )
    return converter, used_inputs, used_outputs


def _saved_model(
    source: str, kind: str, inputs: dict[str, list[int]] | None, outputs: list[str] | None
) -> tuple[Any, dict[str, list[int]], list[str]]:
    try:
        loaded = tf.saved_model.load(source)
    except (OSError, ValueError, KeyError) as error:
        raise Refused("it cannot be read as a SavedModel: %s" % error) from error
    signatures = dict(loaded.signatures)
    name = "serving_default" if "serving_default" in signatures else None
    if name is None:
        if len(signatures) != 1:
            listed = ", ".join(sorted(signatures)) or "none"
            raise Refused(
                "the SavedModel has no signature serving_default (it has: %s); "
                "save it with exactly one signature" % listed
            )
        name = next(iter(signatures))
    function = signatures[name]
    specs = function.structured_input_signature[1]
    ports = [Port.of(key, spec.shape, spec.dtype) for key, spec in sorted(specs.items())]
    shapes = fixed_shapes(ports, inputs)
    made = {k: Port.of(k, s.shape, s.dtype) for k, s in function.structured_outputs.items()}
    wanted = pick_outputs(list(made.values()), outputs)
    return _concrete(lambda named: function(**named), ports, shapes, wanted, loaded)


def _keras(
    source: str, kind: str, inputs: dict[str, list[int]] | None, outputs: list[str] | None
) -> tuple[Any, dict[str, list[int]], list[str]]:
    model = _load_keras(source, kind)
    if not model.inputs:
        raise Refused("the Keras model was never built: it has no input; save it after a call")
    names = [_plain(t.name) for t in model.inputs]
    ports = [Port.of(n, t.shape, tf.as_dtype(t.dtype)) for n, t in zip(names, model.inputs)]
    shapes = fixed_shapes(ports, inputs)
    made = list(getattr(model, "output_names", None) or [_plain(t.name) for t in model.outputs])
    outs = [Port.of(n, t.shape, tf.as_dtype(t.dtype)) for n, t in zip(made, model.outputs)]
    wanted = pick_outputs(outs, outputs)

    def call(named: dict[str, Any]) -> dict[str, Any]:
        fed = [named[n] for n in names]
        got = model(fed if len(fed) > 1 else fed[0], training=False)
        return dict(zip(made, tf.nest.flatten(got)))

    return _concrete(call, ports, shapes, wanted, model)


def _plain(name: str) -> str:
    """A Keras tensor's name without the ``:0`` that tf_keras gives it."""
    return name.split(":")[0]


def _load_keras(source: str, kind: str) -> Any:
    """With the Keras that wrote the file: version 3 for new files, tf_keras for older ones."""
    legacy = False
    if kind == "h5":
        import h5py

        try:
            with h5py.File(source, "r") as file:
                if "model_config" not in file.attrs:
                    raise Refused(
                        "the .h5 file holds weights only; save the whole model with model.save(...)"
                    )
                version = file.attrs.get("keras_version", "2")
        except OSError as error:
            raise Refused("it cannot be read as an HDF5 file: %s" % error) from error
        version = version.decode() if isinstance(version, bytes) else str(version)
        legacy = not version.startswith("3")
    if legacy:
        import tf_keras as keras
    else:
        import keras
    try:
        return keras.models.load_model(source, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise Refused("Keras %s cannot load the model: %s" % (keras.__version__, first)) from error


def _concrete(
    call: Any, ports: list[Any], shapes: dict[str, list[int]], wanted: list[str], owner: Any
) -> tuple[Any, dict[str, list[int]], list[str]]:
    """A converter of ``call`` at fixed shapes, giving the ``wanted`` outputs in that order."""
    specs = [tf.TensorSpec(shapes[p.name], p.dtype, name=p.name) for p in ports]

    @tf.function(input_signature=specs, autograph=False)
    def fixed(*tensors: Any) -> list[Any]:
        got = call({p.name: t for p, t in zip(ports, tensors)})
        return [tf.identity(got[name], name=name) for name in wanted]

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [fixed.get_concrete_function()], owner
    )
    return converter, shapes, wanted


def _check(tflite: bytes) -> None:
    """Every input and output of the result is float and has a fixed shape with a batch of 1."""
    from tensorflow.lite.python import schema_py_generated as schema

    graph = schema.Model.GetRootAsModel(tflite, 0).Subgraphs(0)
    ends = [graph.Inputs(i) for i in range(graph.InputsLength())]
    ends += [graph.Outputs(i) for i in range(graph.OutputsLength())]
    for index in ends:
        tensor = graph.Tensors(index)
        signature = [tensor.ShapeSignature(i) for i in range(tensor.ShapeSignatureLength())]
        if -1 in signature:
            name = tensor.Name().decode()
            shown = ", ".join("?" if n < 0 else str(n) for n in signature)
            raise Refused(
                "the converted model's tensor %s still has an open shape [%s]; "
                "give the shape of every input under inputs:" % (name, shown)
            )


if __name__ == "__main__":
    serve({"hello": hello, "convert": convert})
