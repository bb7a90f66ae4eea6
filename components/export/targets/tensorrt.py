"""TensorRT: an ONNX graph as its builder takes it, strongly typed, with what builds an engine of it.

``float16``: weights and arithmetic in halves, but for what makes answers of logits, and the score of novelty: halves
end at 65504, and hold no squares and no small numbers. On a CPU ONNX Runtime reckons halves in float32, so that ONNX's
reference evaluator, which does not, is asked beside it.
``int8``: pairs of QuantizeLinear and DequantizeLinear around convolutions and products, calibrated over inputs that
the student learnt from: activations by tensor, weights by channel, all of them symmetric, since TensorRT takes no other
zero point than zero; biases stay in float. The bundle's package runs that very graph by ONNX Runtime, in which its
parity is measured. An engine holds for one kind of GPU and one version of TensorRT, and is built where both are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

from components.contracts.errors import ConfigError
from components.export.manifest import Manifest, Model, Precision
from components.export.parity import OPENED, Ask, in_a_process
from components.export.targets.contract import IN_PYTHON, MODEL, Built, Target, Version, write
from components.export.targets.openvino import batches
from components.student.features import BATCH
from components.student.runtime import CHUNK, NOVELTY

_PARSED = """
Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
ConvTranspose Cos CumSum DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor Gather
GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GRU HardSigmoid HardSwish
Identity InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LSTM MatMul Max MaxPool
Mean Min Mul Neg Not Or Pad Pow PRelu QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round ScatterElements ScatterND Selu
Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Trilu
Unsqueeze Where Xor
"""

TAKEN = frozenset(_PARSED.split())
"""Operators of ONNX that its parser takes (https://github.com/onnx/onnx-tensorrt, docs/operators.md), without those
that branch and loop."""

OPTIMAL = 8
"""Inputs at a time that an engine is tuned for; it takes 1 to :data:`components.student.runtime.CHUNK`."""

LOOKED_AT = 64
"""Inputs whose lengths say what an engine is tuned for."""

ROOM = 4
"""How many times the longest of them an input may have, where the featuriser has no limit of its own."""

OPENED_IN_HALVES = f"""
import cohobate_student.engine_onnx
from onnx.reference import ReferenceEvaluator
class Engine:
    def __init__(self, path, manifest, threads):
        self._graph = ReferenceEvaluator(str(path))
    def run(self, features, outputs):
        return self._graph.run(list(outputs), {{n: features[n] for n in self._graph.input_names}})
cohobate_student.engine_onnx.Engine = Engine
{OPENED}"""
"""Opens a bundle whose graph is run by ONNX's reference evaluator, in the types that it has, by NumPy."""

BUILD = """#!/bin/sh
# Builds an engine for the GPU of this machine with TensorRT 10: sh build.sh /elsewhere/student.engine
# It does not belong in this folder, whose files the manifest names one by one.
set -eu
engine=${{1:?name the file of the engine}}
here=$(cd "$(dirname "$0")" && pwd)
exec "${{TRTEXEC:-trtexec}}" --onnx="$here/{path}" --stronglyTyped \\
  --minShapes={min} --optShapes={opt} --maxShapes={max} \\
  --saveEngine="$engine"
"""


class TensorRt(Target):
    """``--to tensorrt``."""

    name = "tensorrt"
    precisions = ("float16", "int8")

    def build(self, version: Version, folder: Path, precision: Precision) -> Built:
        """Write the graph, made of the float model."""
        import onnx

        model = onnx.load_from_string(version.full())
        require_taken(model)
        del model.metadata_props[:]
        for n, node in enumerate(model.graph.node):
            node.name = node.name or f"node_{n}"
        made = _halves(model) if precision == "float16" else _quantised(model, version)
        require_taken(made)
        write(folder, MODEL, made.SerializeToString(deterministic=True))
        inputs = {i.name: version.card.inputs[i.name] for i in made.graph.input}
        described = Model(
            path=MODEL,
            format="onnx",
            precision=precision,
            inputs=inputs,
            outputs=version.outputs,
            options={"engine": "not built", "profile": profile(version, list(inputs))},
        )
        return Built(model=described, runtime="onnxruntime", modules=("engine_onnx",))

    def finish(self, manifest: Manifest, folder: Path, output: Path) -> None:
        """Write what builds the engine."""
        shapes = {
            at: ",".join(
                f"{name}:{'x'.join(map(str, of[at]))}" for name, of in manifest.model.options["profile"].items()
            )
            for at in ("min", "opt", "max")
        }
        write(folder, "build.sh", BUILD.format(path=manifest.model.path, **shapes))

    def ask_in_halves(self, folder: Path) -> Ask:
        """By the bundle's package, on ONNX's reference evaluator."""
        return in_a_process(folder, OPENED_IN_HALVES)

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        halves = ", and under `halves` in ONNX's reference evaluator, which reckons halves in halves"
        measured = halves if manifest.model.precision == "float16" else ""
        return f"""{IN_PYTHON}\
That runs the graph by ONNX Runtime. On a machine with a GPU and TensorRT 10 (`trtexec`)

```
sh build.sh /elsewhere/student.engine
```

makes an engine of `{manifest.model.path}`, in the types that it has, for the shapes in `manifest.json`
(`model.options.profile`). **No engine was built when this was exported, and none was judged**: `parity.json` is of the
graph in ONNX Runtime on a CPU{measured}. TensorRT may round otherwise. Its
inputs are the arrays that the package makes of an input.
"""


def require_taken(model: Any) -> None:
    """Raise ConfigError where a graph has what TensorRT does not take, which is named."""
    import onnx

    other = {
        f"{node.domain}:{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for node in model.graph.node
        if node.op_type not in TAKEN or node.domain not in ("", "ai.onnx")
    }
    tensors = [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.value_info)]
    texts = onnx.TensorProto.STRING in (*tensors, *(i.data_type for i in model.graph.initializer))
    if other or texts:
        what = ", ".join([*sorted(other), *(["texts"] if texts else [])])
        raise ConfigError("--to", "tensorrt", f"TensorRT does not take {what}: export it for another target")


def profile(version: Version, names: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """The least, usual and largest shape of each input of the graph."""
    payloads = version.calibration()[:LOOKED_AT]
    if not payloads:
        raise ConfigError("--to", "tensorrt", "there are no inputs whose lengths an engine could be tuned for")
    own = getattr(version.student.featuriser, "length", None)
    lengths: dict[str, list[int]] = {}
    for features in (version.features([p]) for p in payloads):
        for name in names:
            for size, axis in zip(features[name].shape, version.card.inputs[name].shape, strict=True):
                if isinstance(axis, str):
                    lengths.setdefault(axis, []).append(size)
    sizes = {
        axis: (1, median_low(found), own if isinstance(own, int) else ROOM * max(found))
        for axis, found in lengths.items()
    } | {BATCH: (1, OPTIMAL, CHUNK)}
    return {
        name: {
            at: [axis if isinstance(axis, int) else sizes[axis][n] for axis in version.card.inputs[name].shape]
            for n, at in enumerate(("min", "opt", "max"))
        }
        for name in names
    }


def _answering(model: Any) -> list[str]:
    """The nodes that make an answer of logits, or a score of novelty of a state: they stay in float."""
    return [
        node.name
        for node in model.graph.node
        if node.name.startswith(NOVELTY) or any(name.startswith("answer_") for name in node.input)
    ]


def _halves(model: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    made = OnnxModel(convert_float_to_float16(model, keep_io_types=True, node_block_list=_answering(model)))
    made.topological_sort()
    _in_float(made.model.graph)
    return made.model


def _in_float(graph: Any) -> None:
    """Remove the casts to halves and back that the converter puts between nodes which both stay in float."""
    from onnx import TensorProto

    casts = [n for n in graph.node if n.op_type == "Cast"]
    halved = {n.output[0]: n.input[0] for n in casts if n.name.endswith("_cast_to_fp16_node")}
    back = {
        n.output[0]: halved[n.input[0]] for n in casts if n.input[0] in halved and n.attribute[0].i == TensorProto.FLOAT
    }
    told = {back[o.name]: o.name for o in graph.output if o.name in back}
    names = {again: told.get(whole, whole) for again, whole in back.items()} | told
    used = {name for node in graph.node if node.output[0] not in back for name in node.input}
    kept = [n for n in graph.node if n.output[0] not in back and (n.output[0] not in halved or n.output[0] in used)]
    for node in kept:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)


def _quantised(model: Any, version: Version) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    from components.distill.export import PREPARED

    payloads = version.calibration()
    if not payloads:
        raise ConfigError("--precision", "int8", "there are no inputs to calibrate by: export it in float16")
    told = batches(version.features(payloads), [i.name for i in model.graph.input], len(payloads))

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
        def get_next(self) -> Any:
            return next(told, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        model.metadata_props.append(PREPARED)
        onnx.save(model, str(source))
        quantize_static(
            str(source), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"], nodes_to_exclude=_answering(model),
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )  # fmt: skip
        made = onnx.load(str(target))
    del made.metadata_props[:]
    return made
