#!/usr/bin/env bash
# What is not a number comes out of OpenVINO's ReLU as 0, out of its Exp as infinity and out of its hard sigmoid as 1: a
# network whose weights or inputs have become NaN, which answers NaN in ONNX Runtime, and can be refused, answers an
# ordinary, confident number there. ONNX Runtime is no sure witness either: the largest of a row (ReduceMax) is NaN or
# not by where in the row the NaN stands.
#
# Versions: openvino 2026.4.1, onnxruntime 1.32.0, onnx 1.23.2 (processors with AVX2 or more).
# Seen: of NaN OpenVINO gives Relu 0, Clip(0, 1) 0, Max(0, ·) 0, HardSigmoid 1, Exp infinity; ONNX Runtime NaN for all.
#   A small network, Gemm, Relu, Gemm, Softmax, of whose first weights one is NaN gives probabilities that sum to 1 in
#   OpenVINO, and NaN in ONNX Runtime. ReduceMax of 4 numbers, each in turn NaN: NaN for some places, a number for
#   others, in both.
# Expected: NaN, as ONNX's reference gives it for each of these.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat > "$folder/look.py" <<'PYTHON'
import sys

import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

NUMBERS = {"low": np.float32(0), "high": np.float32(1), "axis": np.array([1])}


def runners(nodes, width, constants):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, None])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    data = model.SerializeToString()
    compiled = openvino.Core().compile_model(openvino.Core().read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    reference = ReferenceEvaluator(model)
    return {
        "openvino": lambda x: compiled(x)[0],
        "onnxruntime": lambda x: session.run(None, {"x": x})[0],
        "reference": lambda x: reference.run(None, {"x": x})[0],
    }


def each(nodes, width, constants, given):
    return {name: np.asarray(run(given)) for name, run in runners(nodes, width, constants).items()}


alone = {}
for kind, further in (("Relu", []), ("Clip", ["low", "high"]), ("Max", ["low"]), ("HardSigmoid", []), ("Exp", [])):
    nodes = [helper.make_node(kind, ["x", *further], ["y"])]
    given = np.full((1, 4), np.nan, np.float32)
    found = each(nodes, 4, {n: NUMBERS[n] for n in further}, given)
    alone[kind] = {name: set(map(str, out.ravel().tolist())) for name, out in found.items()}
print("of NaN:", {kind: {name: "/".join(sorted(said)) for name, said in of.items()} for kind, of in alone.items()})

largest = {}
for place in range(4):
    given = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 4).copy()
    given[0, place] = np.nan
    found = each([helper.make_node("ReduceMax", ["x", "axis"], ["y"])], 4, {"axis": NUMBERS["axis"]}, given)
    for name, out in found.items():
        largest.setdefault(name, []).append(bool(np.isnan(out).all()))
print("whether the largest of four is NaN, by the place of the NaN:", largest)

chance = np.random.default_rng(0)
weights = {"w": chance.normal(size=(3, 4)).astype("f"), "v": chance.normal(size=(4, 2)).astype("f")}
weights["w"][1, 2] = np.nan
nodes = [
    helper.make_node("Gemm", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
    helper.make_node("Gemm", ["b", "v"], ["c"]), helper.make_node("Softmax", ["c"], ["y"], axis=1),
]
network = each(nodes, 3, weights, np.ones((1, 3), np.float32))
print("a network with a weight that is NaN:", {name: out.ravel().round(3).tolist() for name, out in network.items()})
seen = (
    {kind: of["openvino"] for kind, of in alone.items()}
    == {"Relu": {"0.0"}, "Clip": {"0.0"}, "Max": {"0.0"}, "HardSigmoid": {"1.0"}, "Exp": {"inf"}}
    and all(of["onnxruntime"] == of["reference"] == {"nan"} for of in alone.values())
    and all(largest["reference"]) and any(largest["onnxruntime"]) and not all(largest["onnxruntime"])
    and not all(largest["openvino"])
    and abs(network["openvino"].sum() - 1) < 1e-5 and np.isnan(network["onnxruntime"]).all()
)
sys.exit(0 if seen else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
