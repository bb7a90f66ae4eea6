"""What TensorRT's builder is given: graphs in types and operators that it takes, which answer as they were judged."""

import json
import os
import subprocess
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

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
    limit = 0.05 if precision == "float16" else None  # what int8 comes to hangs on the processor's products
    done = export(version, "tensorrt", tmp_path / "b", payloads, limit=limit, precision=precision)
    assert done.precision == precision and done.parity.rows == len(payloads)
    assert [c.rows for c in done.parity.halves] == ([min(64, len(payloads))] * 2 if precision == "float16" else [])
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
        whole = {name for name, array in held.items() if array.dtype == np.float32}
        assert halves and all(name.startswith(("answer_", "novelty_")) for name in whole)
        answering = {o for n in model.graph.node if {*n.input} & whole for o in n.output}
        casts = [n for n in model.graph.node if n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT16]
        assert answering and not any(n.input[0] in answering for n in casts)  # nor are they halved in between
        assert "reckons halves in halves" in (tmp_path / "b/README.md").read_text()
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


def scaled(version, **by):
    """The version with constants of its graph multiplied by a number, or with one added."""
    model = onnx.load_from_string(version.full())
    for held in model.graph.initializer:
        if held.name in by:
            scale, more = by.pop(held.name)
            held.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(held) * np.float32(scale) + np.float32(more), held.name)
            )
    assert not by
    data = model.SerializeToString()
    return replace(version, artefact=data, full=lambda: data)


def in_halves(version, folder, payloads):
    """What the graph of a bundle gives in the types that it has."""
    graph = ReferenceEvaluator(str(folder / "model/model.onnx"))
    features = version.features(payloads)
    return graph.run(list(version.outputs), {name: features[name] for name in graph.input_names})


def test_long_vectors_and_large_values_are_told_by_halves(vectors, tmp_path):
    version, payloads = vectors
    long = scaled(version, head_weight=(500, 0), head_bias=(500, 0))
    done = export(long, "tensorrt", tmp_path / "a", payloads, limit=0.0)
    assert {c.gap for c in done.parity.halves} == {0.0}
    for vector, soft in zip(
        in_halves(long, tmp_path / "a", payloads[:9])[0], long.student.predict(payloads[:9]), strict=True
    ):
        assert vector.tolist() == pytest.approx(soft.vector, abs=5e-3)
    version, payloads, _ = exported("TextNgrams", task="regression")
    large = scaled(version, answer_unit=(9e4, 0), answer_mean=(0, 2.5e5), answer_spread=(9e4, 0))
    export(large, "tensorrt", tmp_path / "b", payloads, limit=0.0)
    value, scale, _ = in_halves(large, tmp_path / "b", payloads[:9])
    judged = large.student.predict(payloads[:9])
    assert min(value) > 65_504 and value.tolist() == pytest.approx([s.value for s in judged], rel=1e-3)
    assert scale.tolist() == pytest.approx([s.scale for s in judged], rel=1e-3)


def test_what_halves_cannot_hold_is_refused_whatever_float32_makes_of_it(students, vectors, tmp_path):
    version, payloads = vectors
    with pytest.raises(
        ParityError, match=r"reckoned in halves, which end at 65504, it does not answer .*: export it in"
    ):
        export(scaled(version, head_weight=(1e6, 0)), "tensorrt", tmp_path / "b", payloads, limit=None)
    version, payloads, _ = students["TextNgrams"]
    with pytest.raises(ParityError, match=r"in batches of 1, reckoned in halves.*max_parity_gap is 0\.1") as refused:
        export(scaled(version, head_bias=(1, 8192)), "tensorrt", tmp_path / "b", payloads, limit=0.1)
    assert refused.value.gap > 0.1 and not (tmp_path / "b").exists()


def test_activations_have_the_ranges_of_the_inputs_that_it_learnt_from(students, tmp_path):
    version, payloads, _ = students["WordSequence"]
    export(version, "tensorrt", tmp_path / "b", payloads, limit=None, precision="int8")
    made, full = onnx.load(tmp_path / "b/model/model.onnx"), onnx.load_from_string(version.full())
    held = {i.name: numpy_helper.to_array(i) for i in made.graph.initializer}
    scales = {
        n.input[0]: float(held[n.input[1]])
        for n in made.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0] not in held
    }
    full.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in scales)
    features = version.features(payloads)
    graph = ReferenceEvaluator(full)
    found = graph.run(list(scales), {name: features[name] for name in graph.input_names})
    assert len(scales) > 1
    for scale, values in zip(scales.values(), found, strict=True):
        assert scale == pytest.approx(np.abs(values).max() / 127, rel=0.01)


def test_one_that_answers_otherwise_or_cannot_be_calibrated_is_refused(students, tmp_path):
    version, payloads, _ = students["TextNgrams"]
    other = replace(version, full=exported("TextNgrams", temperature=-0.05)[0].full)  # the least likely class
    for precision in ("int8", "float16"):
        with pytest.raises(ParityError, match=rf"for tensorrt \({precision}\).*max_parity_gap is 0\.3"):
            export(other, "tensorrt", tmp_path / "b", payloads, limit=0.3, precision=precision)
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
