#!/usr/bin/env bash
# ONNX's own reference evaluator leaves out what a recurrent node says of itself: the lengths of the rows
# (`sequence_lens`), `clip` and other activations than the usual ones of LSTM and GRU are read past without a word, and
# the answer is that of a plain layer. Whoever compares a runtime with "the reference" finds the wrong one guilty.
#
# Versions: onnx 1.23.2, onnxruntime 1.32.0.
# Seen: plain LSTM, GRU and RNN agree with ONNX Runtime to 1e-5. With sequence_lens [5, 2, 3], with clip 0.3, and (LSTM,
#   GRU) with activations of Relu, the reference gives to the last bit what it gives without them, and ONNX Runtime gives
#   something else, which for the lengths is that of each row alone. For an RNN's Relu it raises.
# Expected: the operator's definition, or an error as for the RNN.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$folder/look.py" <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

STEPS, ROWS, WIDTH, UNITS = 5, 3, 2, 4
LENGTHS = np.array([5, 2, 3], dtype=np.int32)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OTHER = {"LSTM": ["Sigmoid", "Relu", "Relu"], "GRU": ["Sigmoid", "Relu"], "RNN": ["Relu"]}


def ask(kind, given, lengths=None, **options):
    """The last states by ONNX Runtime and by the reference; None: an error."""
    chance, gates = np.random.default_rng(0), GATES[kind]
    shapes = {"W": (1, gates * UNITS, WIDTH), "R": (1, gates * UNITS, UNITS), "B": (1, 2 * gates * UNITS)}
    constants = {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    if lengths is not None:
        constants["lengths"] = lengths
    node = helper.make_node(kind, ["x", *constants], ["", "last"], hidden_size=UNITS, **options)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None, WIDTH])],
        [helper.make_tensor_value_info("last", TensorProto.FLOAT, [1, None, UNITS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    try:
        reference = ReferenceEvaluator(model).run(["last"], {"x": given})[0]
    except RuntimeError:
        reference = None
    return session.run(["last"], {"x": given})[0], reference


x = np.random.default_rng(1).normal(size=(STEPS, ROWS, WIDTH)).astype(np.float32)
seen = True
for kind in GATES:
    plain, reference = ask(kind, x)
    seen &= bool(np.abs(plain - reference).max() < 1e-5)
    alone = np.concatenate([ask(kind, x[: LENGTHS[i], i : i + 1])[0] for i in range(ROWS)], axis=1)
    of_lengths, same = ask(kind, x, LENGTHS)
    seen &= bool(np.abs(of_lengths - alone).max() < 1e-5) and np.array_equal(same, reference)
    clipped, unclipped = ask(kind, x, clip=0.3)
    seen &= bool(np.abs(clipped - plain).max() > 0.01) and np.array_equal(unclipped, reference)
    rectified, usual = ask(kind, x, activations=OTHER[kind])
    seen &= bool(np.abs(rectified - plain).max() > 0.01)
    seen &= usual is None if kind == "RNN" else np.array_equal(usual, reference)
    told = {"lengths": same, "clip": unclipped, "activations": usual}
    print(kind, {name: "an error" if out is None else "left out" if np.array_equal(out, reference) else "heeded"
                 for name, out in told.items()})
sys.exit(0 if seen else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
