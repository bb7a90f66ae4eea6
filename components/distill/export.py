"""From a trained network to the artifact that is evaluated and served: one ONNX file with its card inside.

The graph is small and written node by node: exact, and without the seconds that tracing a network takes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from components.distill.data import MIN_SCALE
from components.distill.grow import Arrays
from components.student.card import CARD_KEY, StudentCard

OPSET = 17
"""The first operator set with LayerNormalization; ONNX Runtime has run it since 1.12."""

IR_VERSION = 8
"""The file format of that operator set's time."""

NORM_EPSILON = 1e-5
"""PyTorch's default for LayerNorm."""

PREPARED = onnx.StringStringEntryProto(key="onnx.quant.pre_process", value="onnxruntime.quant")
"""Tells ONNX Runtime's quantiser that the shapes are known, without which it logs a warning by the root logger."""


def to_onnx(state: Arrays, card: StudentCard, temperature: float = 1.0) -> bytes:
    """The ONNX file, in float32, of a network's ``state`` (for regression with its ``unit``, mean and scale).

    ``temperature``: what logits are divided by, or a regression's scale is multiplied by; it is part of the graph, so
    that what is judged and what serves are calibrated alike, and no part of the ``state`` that training goes on from.
    """
    constants = {"embedding": state["embedding.weight"], "axis_1": np.array([1])}
    nodes = [
        helper.make_node("Gather", ["embedding", "ids"], ["rows"]),
        helper.make_node("Unsqueeze", ["weights", "axis_1"], ["weights_1"]),
        helper.make_node("MatMul", ["weights_1", "rows"], ["summed_1"]),
        helper.make_node("Squeeze", ["summed_1", "axis_1"], ["summed"]),
    ]
    last = "summed"
    if "norm.weight" in state:
        constants |= {"norm_weight": state["norm.weight"], "norm_bias": state["norm.bias"]}
        inputs = ["summed", "norm_weight", "norm_bias"]
        nodes.append(helper.make_node("LayerNormalization", inputs, ["normed"], axis=-1, epsilon=NORM_EPSILON))
        last = "normed"
    nodes += [
        *_linear("hidden", last, "before", state, constants),
        helper.make_node("Relu", ["before"], ["after"]),
        *_linear("head", "after", "logits", state, constants),
    ]
    if card.task == "regression":
        head, outputs = _value_and_scale(state, constants, temperature)
    else:
        head, outputs = _probabilities(card, constants, temperature)
    graph = helper.make_graph(
        [*nodes, *head],
        "student",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["batch", "length"]),
        ],
        outputs,
        [numpy_helper.from_array(np.asarray(v, order="C"), n) for n, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "cohobate"
    onnx.checker.check_model(model)
    return _sealed(model, card)


def _linear(name: str, source: str, out: str, state: Arrays, constants: dict[str, Any]) -> list[Any]:
    constants[f"{name}_weight"], constants[f"{name}_bias"] = state[f"{name}.weight"].T, state[f"{name}.bias"]
    return [
        helper.make_node("MatMul", [source, f"{name}_weight"], [f"{name}_product"]),
        helper.make_node("Add", [f"{name}_product", f"{name}_bias"], [out]),
    ]


def _probabilities(card: StudentCard, constants: dict[str, Any], temperature: float) -> tuple[list[Any], list[Any]]:
    constants["temperature"] = np.array(temperature, dtype=np.float32)
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(card.classes)])
    nodes = [
        helper.make_node("Div", ["logits", "temperature"], ["tempered"]),
        helper.make_node("Softmax", ["tempered"], ["probabilities"], axis=1),
    ]
    return nodes, [output]


def _value_and_scale(state: Arrays, constants: dict[str, Any], temperature: float) -> tuple[list[Any], list[Any]]:
    mean, scale = np.asarray(state["unit"], dtype=np.float32)
    constants |= {"first": np.array(0), "second": np.array(1), "least": np.array(MIN_SCALE, dtype=np.float32)}
    constants |= {"unit_mean": np.array(mean), "unit_scale": np.array(scale)}
    constants["spread"] = np.array(scale * temperature, dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["logits", "first"], ["value_u"], axis=1),
        helper.make_node("Mul", ["value_u", "unit_scale"], ["value_0"]),
        helper.make_node("Add", ["value_0", "unit_mean"], ["value"]),
        helper.make_node("Gather", ["logits", "second"], ["scale_raw"], axis=1),
        helper.make_node("Softplus", ["scale_raw"], ["scale_positive"]),
        helper.make_node("Add", ["scale_positive", "least"], ["scale_u"]),
        helper.make_node("Mul", ["scale_u", "spread"], ["scale"]),
    ]
    return nodes, [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch"]) for n in ("value", "scale")]


def to_int8(float_model: bytes, card: StudentCard) -> bytes:
    """The same model with its embedding table, all but a few thousand of its numbers, quantised to 8 bits.

    The matrices stay as they are: quantising them too spares 1 % of the bytes and doubles the error.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load_from_string(float_model)
    model.metadata_props.append(PREPARED)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(source))
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=["Gather"],
            weight_type=QuantType.QInt8,
        )
        return _sealed(onnx.load(str(target)), msgspec.structs.replace(card, precision="int8"))


def _sealed(model: Any, card: StudentCard) -> bytes:
    """The model's bytes with ``card`` as its only metadata; equal models give equal bytes."""
    del model.metadata_props[:]
    model.metadata_props.append(onnx.StringStringEntryProto(key=CARD_KEY, value=msgspec.json.encode(card).decode()))
    data: bytes = model.SerializeToString(deterministic=True)
    return data
