#!/usr/bin/env bash
# OpenVINO's CPU plugin reckons int64 in 32 bits, and says so nowhere: a graph that takes and gives int64 answers with
# what is left of numbers beyond 2^31, also where they are only handed on. An identifier of 64 bits, or a time in
# milliseconds, that a graph itself brings into its vocabulary (Mod, then Gather) looks up another row than elsewhere;
# and a row number beyond the table, which ONNX Runtime refuses, reads zeros.
#
# Versions: openvino 2026.4.1, onnxruntime 1.32.0, onnx 1.23.2.
# Seen: of 2^31 + 5, 2^40 + 3 and -2^33 - 1 OpenVINO's Identity gives -2147483643, 3 and -1, still as int64; modulo 1000
#   it gives 256, 3 and 999 for 653, 779 and 407. Row 4 of a table of 4 rows is zeros. ONNX Runtime is right on the
#   first two, and raises for the third.
# Expected: int64, or an error when the model is compiled.
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

WIDE = np.array([2**31 + 5, 2**40 + 3, -(2**33) - 1], dtype=np.int64)
TABLE = np.arange(1, 5, dtype=np.float32)


def both(kind, given, told, **constants):
    """What the two answer; None: an error."""
    names = (["table", "x"] if kind == "Gather" else ["x", *constants])
    graph = helper.make_graph(
        [helper.make_node(kind, names, ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", told, ["N"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    compiled = openvino.Core().compile_model(openvino.Core().read_model(model), "CPU")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    try:
        theirs = session.run(None, {"x": given})[0].tolist()
    except Exception:
        theirs = None
    said = compiled({"x": given})[0]
    return theirs, said.tolist(), str(said.dtype)


handed_on = both("Identity", WIDE, TensorProto.INT64)
modulo = both("Mod", WIDE, TensorProto.INT64, divisor=np.array(1000, dtype=np.int64))
looked_up = both("Gather", np.array([0, 4]), TensorProto.FLOAT, table=TABLE)
for name, found in (("handed on", handed_on), ("modulo 1000", modulo), ("rows 0 and 4 of 0 to 3", looked_up)):
    print(f"{name}: ONNX Runtime {found[0]}, OpenVINO {found[1]} ({found[2]})")
seen = (
    handed_on == (WIDE.tolist(), [-2147483643, 3, -1], "int64")
    and modulo == ([653, 779, 407], [256, 3, 999], "int64")
    and looked_up == (None, [1.0, 0.0], "float32")
)
sys.exit(0 if seen else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
