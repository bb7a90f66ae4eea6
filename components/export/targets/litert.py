"""LiteRT (TensorFlow Lite): one flatbuffer, in float32, or in float16 (weights are kept in halves).

It is made of the version's float model by onnx2tf, whose graphs keep their dynamic axes. That converter brings
TensorFlow with it (1.5 GB), which nothing here imports: it runs in a process of its own, by the Python that
``COHOBATE_LITERT_PYTHON`` names. What it makes of a graph shows in the parity alone (onnx2tf 1.28.8,
TensorFlow 2.21): of the networks that ship the bag, the text and image convolutions and the table's answered within
1e-6 of ONNX Runtime, a transformer within 0.004, and the audio convolution's graph did not run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.export.manifest import Manifest, Model, Precision
from components.export.targets.contract import IN_PYTHON, Built, Target, Version, write

PATH = "model/model.tflite"

SECONDS = 900.0
"""How long a conversion may take: a few seconds of work, and TensorFlow's import on a busy machine."""

NEEDED = ("onnx2tf", "onnx_graphsurgeon", "sne4onnx", "sng4onnx", "tensorflow", "tf_keras")
"""What the converter imports; it declares none of it."""

CONVERT = f"""
import importlib.util, sys
missing = [name for name in {NEEDED!r} if importlib.util.find_spec(name) is None]
if missing:
    sys.exit("it lacks " + ", ".join(missing))
import onnx, onnx2tf
names = [i.name for i in onnx.load(sys.argv[1]).graph.input]
onnx2tf.convert(input_onnx_file_path=sys.argv[1], output_folder_path=sys.argv[2], not_use_onnxsim=True,
                non_verbose=True, keep_shape_absolutely_input_names=names)  # or images change to channels last
"""


class LiteRt(Target):
    """``--to litert``."""

    name = "litert"
    precisions = ("float32", "float16")
    extra = (("ai_edge_litert", "litert"),)

    def build(self, version: Version, folder: Path, precision: Precision) -> Built:
        """Convert the float model."""
        from ai_edge_litert.interpreter import Interpreter

        write(folder, PATH, converted(with_roots(version.full()), precision))
        model = Interpreter(model_path=str(folder / PATH))
        taken = {i["name"]: [int(n) for n in i["shape_signature"]] for i in model.get_input_details()}
        given, outputs = version.card.inputs, version.outputs
        fixed = {
            name: shape
            for name, shape in taken.items()
            if name not in given or shape != [n if isinstance(n, int) else -1 for n in given[name].shape]
        }
        if fixed or len(model.get_output_details()) != len(outputs):
            why = f"made a graph of it that takes {taken} and gives {len(model.get_output_details())} arrays"
            raise ConfigError("--to", self.name, f"{why}: export it for another target")
        described = Model(
            path=PATH,
            format="litert",
            precision=precision,
            inputs={name: given[name] for name in taken},
            outputs=outputs,
        )
        return Built(model=described, runtime="ai-edge-litert", modules=("engine_litert",))

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        return f"""{IN_PYTHON}\
The model is `{manifest.model.path}`. Whoever runs it otherwise than the package does resizes its inputs to the batch,
and takes its outputs by their order: {", ".join(manifest.model.outputs)}.
"""


def with_roots(graph: bytes) -> bytes:
    """A graph whose lengths of vectors are roots of sums of squares: of ``ReduceL2`` the converter makes nothing."""
    import onnx

    model = onnx.load_from_string(graph)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "ReduceL2":
            (length,), squares = list(node.output), f"{node.output[0]}_squares"
            node.op_type, node.output[0] = "ReduceSumSquare", squares
            nodes += [node, onnx.helper.make_node("Sqrt", [squares], [length])]
        else:
            nodes.append(node)
    if len(nodes) > len(model.graph.node):
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        graph = model.SerializeToString()
    return graph


def converted(graph: bytes, precision: Precision) -> bytes:
    """The flatbuffer of an ONNX graph.

    Raises:
        ConfigError: the Python that converts lacks what it needs, or the converter does not take the graph.

    """
    python = Settings().litert_python or sys.executable
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "model.onnx").write_bytes(graph)
        try:
            done = subprocess.run(
                [python, "-I", "-c", CONVERT, str(place / "model.onnx"), str(place / "made")],
                capture_output=True,
                text=True,
                errors="replace",
                cwd=place,
                timeout=SECONDS,
                check=False,
            )
            failed, said = done.returncode != 0, (done.stderr or done.stdout).strip().rpartition("\n")[2]
        except (OSError, subprocess.TimeoutExpired) as error:
            failed, said = True, str(error)
        made = place / f"made/model_{precision}.tflite"
        if failed or not made.is_file():
            missing = said.startswith("it lacks") or not Path(python).exists()
            names = "COHOBATE_LITERT_PYTHON names a Python with pip install 'cohobate[litert]'"
            remedy = names if missing else "export it for another target"
            raise ConfigError("--to", "litert", f"{python} did not convert it ({said or 'it wrote nothing'}): {remedy}")
        return made.read_bytes()
