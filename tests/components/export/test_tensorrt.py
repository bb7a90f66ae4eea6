"""What TensorRT's builder is given: graphs in types and operators that it takes, which answer as they were judged."""

import json
import os
import subprocess
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.contracts.errors import ConfigError, ParityError
from components.export.export import export
from components.export.manifest import verify
from components.export.targets.tensorrt import TAKEN, require_taken
from tests.components.export.conftest import exported


@pytest.fixture(scope="module")
def students():
    """A bag of n-grams, a convolution over words, and a tagger."""
    return {name: exported(name) for name in ("TextNgrams", "WordSequence", "TaggedWords")}


@pytest.mark.parametrize("reading", ["TextNgrams", "WordSequence", "TaggedWords"])
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_the_graph_is_in_types_that_are_taken_and_answers_as_it_was_judged(
    students, reading, precision, tmp_path, caplog
):
    version, payloads, _ = students[reading]
    done = export(version, "tensorrt", tmp_path / "b", payloads, limit=0.3, precision=precision)
    assert done.precision == precision and done.parity.gap <= (0.0 if precision == "float16" else 0.3)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    manifest = verify(tmp_path / "b", None)
    assert manifest.model.options["engine"] == "not built" and manifest.runtime.name == "onnxruntime"
    assert "No engine was built" in (tmp_path / "b/README.md").read_text()
    model = onnx.load(tmp_path / "b" / manifest.model.path)
    onnx.checker.check_model(model)
    assert {node.op_type for node in model.graph.node} <= TAKEN and not model.metadata_props
    held = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    if precision == "float16":
        halves = {name for name, array in held.items() if array.dtype == np.float16}
        assert halves and {n for n, a in held.items() if a.dtype == np.float32} <= {"novelty_turn", "novelty_shift"}
        return
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in pairs:
        zero = held[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any()  # symmetric, and of no unsigned type
        if node.input[0] in held:  # a weight
            assert held[node.input[0]].dtype == np.int8 and held[node.input[1]].ndim == 1  # by channel
        else:
            assert held[node.input[1]].ndim == 0  # an activation, by tensor
    assert any(node.input[0] in held for node in pairs) and any(node.input[0] not in held for node in pairs)
    assert all(array.dtype != np.int32 for array in held.values())  # no bias is quantised


@pytest.mark.parametrize(
    ("reading", "lengths"), [("TextNgrams", None), ("WordSequence", (1, 16, 16)), ("TaggedWords", (1, 7, 512))]
)
def test_its_shapes_are_those_that_the_card_and_the_inputs_say(students, reading, lengths, tmp_path):
    version, payloads, _ = students[reading]
    export(version, "tensorrt", tmp_path / "b", payloads, limit=None)
    manifest = verify(tmp_path / "b", None)
    shapes = manifest.model.options["profile"]
    assert shapes.keys() == manifest.model.inputs.keys()
    longest = version.features(payloads)
    for name, at in shapes.items():
        assert [at[n][0] for n in ("min", "opt", "max")] == [1, 8, 256]
        assert all(lo <= usual <= most for lo, usual, most in zip(at["min"], at["opt"], at["max"], strict=True))
        assert longest[name].shape[1] <= at["max"][1]
        assert lengths is None or tuple(at[n][1] for n in ("min", "opt", "max")) == lengths
        if reading == "TextNgrams":
            assert at["max"][1] == 4 * longest[name].shape[1]


def test_the_script_asks_the_builder_for_those_shapes_and_puts_the_engine_elsewhere(students, tmp_path):
    version, payloads, _ = students["TaggedWords"]
    export(version, "tensorrt", tmp_path / "b", payloads, limit=None)
    builder = tmp_path / "trtexec"
    builder.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    builder.chmod(0o755)
    command = ["sh", str(tmp_path / "b/build.sh")]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([*command, "/e/s.engine"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"--onnx={tmp_path}/b/model/model.onnx", "--stronglyTyped", "--minShapes=ids:1x1x10", "--optShapes=ids:8x7x10",
        "--maxShapes=ids:256x512x10", "--saveEngine=/e/s.engine",
    ]  # fmt: skip
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "name the file of the engine" in refused.stderr
    verify(tmp_path / "b", None)  # nothing was written into it


def graph(*nodes, kind=TensorProto.FLOAT):
    given, told = (helper.make_tensor_value_info(n, kind, [None]) for n in "xy")
    return helper.make_model(helper.make_graph(list(nodes), "g", [given], [told]))


def test_what_its_parser_does_not_take_is_named():
    require_taken(graph(helper.make_node("Relu", ["x"], ["y"])))
    bad = [
        helper.make_node("SequenceConstruct", ["x"], ["s"]), helper.make_node("Loop", ["m", "c"], ["y"]),
        helper.make_node("Relu", ["x"], ["z"], domain="com.example"),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"does not take Loop, SequenceConstruct, com\.example:Relu: export it for"):
        require_taken(graph(*bad))
    with pytest.raises(ConfigError, match="does not take texts"):
        require_taken(graph(helper.make_node("Identity", ["x"], ["y"]), kind=TensorProto.STRING))


def test_one_that_answers_otherwise_or_cannot_be_calibrated_is_refused(students, tmp_path):
    version, payloads, _ = students["TextNgrams"]
    with pytest.raises(ParityError, match=r"for tensorrt \(int8\).*max_parity_gap is 0"):
        export(version, "tensorrt", tmp_path / "b", payloads, limit=0.0, precision="int8")
    for precision, why in (("int8", "no inputs to calibrate by"), ("float16", "no inputs whose lengths")):
        with pytest.raises(ConfigError, match=why):
            without = replace(version, calibration=list)
            export(without, "tensorrt", tmp_path / "b", payloads, limit=None, precision=precision)
    with pytest.raises(ConfigError, match="can be had in float16, int8"):
        export(version, "tensorrt", tmp_path / "b", payloads, limit=None, precision="float32")
    assert not (tmp_path / "b").exists()


def test_vectors_are_told_in_halves(vectors, tmp_path):
    version, payloads = vectors
    done = export(version, "tensorrt", tmp_path / "b", payloads, limit=0.05)
    assert json.loads((tmp_path / "b/parity.json").read_bytes())["precision"] == "float16" and done.parity.gap <= 0.05
