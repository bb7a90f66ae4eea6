#!/usr/bin/env bash
# ONNX Runtime's quantiser tells nodes by their names, and in ONNX a name is optional: leaving out one node that has none
# leaves out every node that has none, so that nothing is quantised, and the "int8" file, as large as it was, is written
# without a word.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2.
# Seen: of a convolution, a product and a softmax that onnx.helper.make_node made, as it makes them by default, the last
#   is to stay in float (nodes_to_exclude of its name, ""). The file that quantize_static writes then has none of its
#   weights in 8 bits; where the nodes have names, both the convolution's and the product's.
# Expected: the node that was meant, or an error that it cannot be told from others.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat > "$folder/look.py" <<'PYTHON'
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_static

chance = np.random.default_rng(0)
KINDS = ("Conv", "ReduceMean", "MatMul", "Softmax")


def graph(named):
    name = {kind: kind if named else "" for kind in KINDS}
    nodes = [
        helper.make_node("Conv", ["x", "filters"], ["found"], name["Conv"], kernel_shape=[3]),
        helper.make_node("ReduceMean", ["found", "axis"], ["pooled"], name["ReduceMean"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["logits"], name["MatMul"]),
        helper.make_node("Softmax", ["logits"], ["y"], name["Softmax"], axis=1),
    ]
    constants = {"filters": chance.normal(size=(64, 3, 3)).astype("f"), "head": chance.normal(size=(64, 2)).astype("f")}
    constants["axis"] = np.array([2])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, 9])
    told = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 2])
    held = [numpy_helper.from_array(value, n) for n, value in constants.items()]
    made = helper.make_graph(nodes, "g", [given], [told], held)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), name["Softmax"]


class Rows:
    def __init__(self):
        self._left = iter([{"x": chance.normal(size=(4, 3, 9)).astype("f")} for _ in range(3)])

    def get_next(self):
        return next(self._left, None)


def in_8_bits(named):
    model, last = graph(named)
    onnx.save(model, "float.onnx")
    quantize_static("float.onnx", "int8.onnx", Rows(), weight_type=QuantType.QInt8, nodes_to_exclude=[last])
    made = onnx.load("int8.onnx")
    return sorted(i.name for i in made.graph.initializer if i.data_type == TensorProto.INT8 and "zero" not in i.name)


named, nameless = in_8_bits(True), in_8_bits(False)
print("weights in 8 bits, of nodes with names:", named, "without:", nameless)
sys.exit(0 if (len(named), nameless) == (2, []) else 1)
PYTHON
cd "$folder"
"$folder/venv/bin/python" "$folder/look.py" 2>"$folder/log"
