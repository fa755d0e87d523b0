"""Turns TensorFlow and Keras models into float TFLite files with a batch of 1.

TensorFlow takes seconds to import and a conversion takes fractions of one, which is why
this process is kept for all models of a run.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from typing import Any

import tensorflow as tf
from frozen import load_graph, prepare
from serve import Refused, Say
from signatures import (
    Port,
    fixed_shapes,
    pick_outputs,
    plain,
)
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)


def hello(say: Say) -> object:
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
) -> object:
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


def _frozen(
    source: str, kind: str, inputs: dict[str, list[int]] | None, outputs: list[str] | None
) -> tuple[Any, dict[str, list[int]], list[str]]:
    graph, used_inputs, used_outputs = prepare(load_graph(source, kind), inputs, outputs)
    return _converter(graph, used_inputs, used_outputs), used_inputs, used_outputs


def _converter(graph: Any, inputs: dict[str, list[int]], outputs: list[str]) -> Any:
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "graph.pb")
        with open(path, "wb") as file:
            file.write(graph.SerializeToString(deterministic=True))
        return tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
            path, list(inputs), outputs, inputs
        )


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
    made = sorted(function.structured_outputs.items())  # a dictionary of no fixed order
    wanted = pick_outputs([Port.of(k, t.shape, t.dtype) for k, t in made], outputs)
    return _freeze(lambda named: function(**named), ports, shapes, wanted)


def _keras(
    source: str, kind: str, inputs: dict[str, list[int]] | None, outputs: list[str] | None
) -> tuple[Any, dict[str, list[int]], list[str]]:
    model = _load_keras(source, kind)
    if not model.inputs:
        raise Refused("the Keras model was never built: it has no input; save it after a call")
    names = [plain(t.name) for t in model.inputs]
    ports = [Port.of(n, t.shape, tf.as_dtype(t.dtype)) for n, t in zip(names, model.inputs)]
    shapes = fixed_shapes(ports, inputs)
    made = _output_names(model)
    outs = [Port.of(n, t.shape, tf.as_dtype(t.dtype)) for n, t in zip(made, model.outputs)]
    wanted = pick_outputs(outs, outputs)

    def call(named: dict[str, Any]) -> object:
        fed = [named[n] for n in names]
        got = model(fed if len(fed) > 1 else fed[0], training=False)
        return dict(zip(made, tf.nest.flatten(got)))

    return _freeze(call, ports, shapes, wanted)


def _output_names(model: Any) -> list[str]:
    """The names of the layers that make the outputs, as in the file; unlike the tensors'
    own, they do not depend on what this process loaded before."""
    names: list[str] = []
    for tensor in model.outputs:
        history = tensor._keras_history
        name = getattr(history, "operation", None) or history.layer
        base, number = str(name.name), 1
        while (base if number == 1 else base + "_%d" % number) in names:
            number += 1
        names.append(base if number == 1 else base + "_%d" % number)
    return names


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

        keras.backend.clear_session()  # layers are numbered anew, so names are the same again
    else:
        import keras

        keras.utils.clear_session()
    try:
        return keras.models.load_model(source, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
        raise Refused("Keras %s cannot load the model: %s" % (keras.__version__, first)) from error


def _freeze(
    call: Any, ports: list[Any], shapes: dict[str, list[int]], wanted: list[str]
) -> tuple[Any, dict[str, list[int]], list[str]]:
    """A converter of ``call`` at fixed shapes, giving the ``wanted`` outputs in that order.

    By way of a frozen graph: converted directly, a Keras 3 model keeps its weights as
    variables of the TFLite file, which nothing on a K210 has.
    """
    specs = [tf.TensorSpec(shapes[p.name], p.dtype, name=p.name) for p in ports]

    @tf.function(input_signature=specs, autograph=False)
    def fixed(*tensors: Any) -> list[Any]:
        got = call({p.name: t for p, t in zip(ports, tensors)})
        return [got[name] for name in wanted]

    frozen = convert_variables_to_constants_v2(
        fixed.get_concrete_function(), lower_control_flow=False
    )
    graph = frozen.graph.as_graph_def()
    taken = {n.name for n in graph.node}
    ends = []
    for name, tensor in zip(wanted, frozen.outputs):
        ends.append(tensor.name)
        if name not in taken and re.match(r"[A-Za-z0-9.][\w.\-/]*$", name):  # by its own name
            node = graph.node.add()
            node.name, node.op = name, "Identity"
            node.attr["T"].type = tensor.dtype.as_datatype_enum
            node.input.append(tensor.name)
            ends[-1] = name
    fed = {plain(t.name): shapes[p.name] for p, t in zip(ports, frozen.inputs)}
    return _converter(graph, fed, [plain(e) for e in ends]), shapes, wanted


def _check(tflite: bytes) -> None:
    """Every input and output of the result is float and has a fixed shape with a batch of 1."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(tflite, 0)
    kinds = {model.OperatorCodes(i).BuiltinCode() for i in range(model.OperatorCodesLength())}
    if schema.BuiltinOperator.VAR_HANDLE in kinds:
        raise Refused(
            "the model changes its own variables when it runs, which no K210 runtime does"
        )
    graph = model.Subgraphs(0)
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


OPERATIONS = {"hello": hello, "convert": convert}
