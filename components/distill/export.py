"""From a trained network to the artifact that is evaluated and served: one ONNX file with its card inside.

A network's body, from its inputs to its ``logits``, is written by the network itself where it can, else by PyTorch's
exporter; the head, which makes calibrated answers of logits, is the same for all. What PyTorch exports is proved on
inputs of other sizes than the one that it was exported with: torch 2.13 freezes the length of recurrent layers without
a word.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from components.contracts.errors import ConfigError
from components.contracts.records import CLASSED, SoftLabel
from components.contracts.spec.user_code import folders
from components.distill import prune
from components.distill.data import MIN_SCALE, Unit
from components.distill.networks.contract import (
    FIELD,
    LOG_DISTANCES,
    SHORTEST,
    head_of,
    logits,
    probabilities,
    tensors,
    value_and_scale,
    vector_and_scale,
)
from components.student.card import CARD_KEY, FILES_KEY, StudentCard, pack
from components.student.features import BATCH, TOKENS, Features, Signature, made_up
from components.student.runtime import NOVELTY
from drift.novelty import Nearness

TEMPERATURE = "answer_temperature"
"""The graph's constant that the logits of classes are divided by."""

OPSET = 20
"""The operator set of every export; ONNX Runtime has run it since 1.17."""

IR_VERSION = 9
"""The file format of that operator set's time."""

EXAMPLE = (3, 5)
"""Batch and length of the inputs that a network is traced with."""

PROOFS = ((1, 1), (2, 8), (7, 33))
"""Batches and lengths that an export is compared with its network on."""

CLOSE = 1e-4
"""Largest difference of a logit, as a share of the largest one, between a network and its export."""

CALIBRATION_BATCH = 32
"""Rows at a time of what a static quantisation watches."""

PREPARED = onnx.StringStringEntryProto(key="onnx.quant.pre_process", value="onnxruntime.quant")
"""Tells ONNX Runtime's quantiser that the shapes are known, without which it logs a warning by the root logger."""

RECURRENT = (torch.nn.RNNBase,)
"""Layers whose networks are exported in a process of their own: torch 2.13 exports the first network of a process that
has one rightly, and freezes the length of every further one."""

FROZEN = "an axis is frozen in PyTorch's export; use convolutions or attention, or give the network a graph()"

STATE = "novelty_state"
"""The output of PyTorch's export that novelty is read from: what the head is fed."""

POOLED = "pooled"
"""The state of a network that tags, (B, D), that novelty is read from: one that returns none tells no novelty."""

NOVELTY_PREFIX = "novelty_"
"""Names of the nodes that the score of novelty is reckoned by begin so: no quantisation touches them."""

TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}

NOISE = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "torch.onnx._internal.exporter._registration")
"""Loggers that tell each of an export's passes."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """A network's graph up to its ``logits``, and the files of its featuriser.

    ``state``: the tensor that novelty is read from, an output too. ``operators``: what int8 quantises.
    """

    model: Any
    files: Mapping[str, bytes]
    state: str = "logits"
    operators: tuple[str, ...] | None = None


def body(net: torch.nn.Module, inputs: Signature, files: Mapping[str, bytes] | None = None) -> Body:
    """Export a network, in float32.

    Raises:
        ConfigError: it cannot be exported, or what was exported answers otherwise at other batch sizes or lengths.

    """
    net = net.cpu().eval()
    with torch.no_grad():
        if hasattr(net, "graph"):
            model = _own(net, inputs)
        elif any(isinstance(module, RECURRENT) for module in net.modules()):
            model = _apart(net, inputs)
        else:
            model = traced(net, inputs)
    state = model.graph.output[-1].name
    return Body(model=model, files=files or {}, state=state, operators=getattr(net, "QUANTISED", None))


def _own(net: torch.nn.Module, inputs: Signature) -> Any:
    made = net.graph()
    outputs = dict.fromkeys(("logits", made.state))
    graph = helper.make_graph(
        made.nodes,
        "student",
        [helper.make_tensor_value_info(n, TYPES[t.dtype], list(t.shape)) for n, t in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, None]) for name in outputs],
        [numpy_helper.from_array(np.asarray(v, order="C"), n) for n, v in made.constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _apart(net: torch.nn.Module, inputs: Signature) -> Any:
    """The same in a process of its own (:mod:`components.distill.apart`), the first layer of which is exported rightly.

    Raises:
        ConfigError: as for :func:`traced`, or the network cannot be sent there.

    """
    name = type(net).__name__
    try:
        sent = pickle.dumps(net)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        remedy = "a recurrent network is exported in a process of its own, for which its classes must stand in a file"
        raise ConfigError(FIELD, name, f"{remedy}, at the top: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "asked", Path(folder) / "answer"
        asked.write_bytes(pickle.dumps((folders(), sent, dict(inputs))))
        command = [sys.executable, "-m", "components.distill.apart", str(asked), str(answer)]
        done = subprocess.run(command, capture_output=True, check=False)
        if not answer.is_file():
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise ConfigError(FIELD, name, f"its export ended without one: {lines[-1] if lines else 'no reason given'}")
        if done.returncode:
            raise ConfigError(FIELD, name, answer.read_text())
        return onnx.load_from_string(answer.read_bytes())


def traced(net: torch.nn.Module, inputs: Signature) -> Any:
    """The network by PyTorch's exporter, proved, and without the paths that it writes into every node.

    Raises:
        ConfigError: it cannot be exported, or what was exported answers otherwise at other batch sizes or lengths.

    """
    axes = {a for t in inputs.values() for a in t.shape if isinstance(a, str)}
    dynamic = {axis: torch.export.Dim(axis) for axis in axes}
    shapes = {
        name: {i: dynamic[axis] for i, axis in enumerate(t.shape) if isinstance(axis, str)}
        for name, t in inputs.items()
    }
    name = type(net).__name__
    whole, given = _Answer(net), tensors(made_up(inputs, *EXAMPLE))
    whole.look(given)
    try:
        with _quiet():
            done = torch.onnx.export(
                whole,
                kwargs={"features": given},  # as its last argument it would be taken apart
                dynamo=True,
                dynamic_shapes={"features": shapes},
                input_names=list(inputs),
                output_names=["logits", *([STATE] if whole.head is not None or whole.pooled else [])],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        model = done.model_proto
        onnx.checker.check_model(model)
    except Exception as error:  # torch.onnx's and onnx's errors have no common base of their own
        lines = [line for line in str(error.__cause__ or error).splitlines() if line.strip()]
        why = lines[0] if lines else type(error).__name__
        remedy = "write its forward in tensor operations that do not branch on values"
        raise ConfigError(FIELD, name, f"cannot be exported to ONNX: {remedy}, or give it a graph(): {why}") from error
    for graph in (model.graph, *model.functions):
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.producer_version = ""
    model.ir_version = max(model.ir_version, IR_VERSION)
    _prove(net, model, inputs, name)
    return model


class _Answer(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """A network that takes one dictionary, and gives its logits and, where it can be seen, what its head is fed."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net
        self.head: torch.nn.Module | None = None
        self.pooled = False

    def look(self, features: dict[str, torch.Tensor]) -> None:
        """Find the head, and see whether it is called once, with a vector an input."""
        said = self.net(**features)
        answered = logits(said)
        if answered.dim() == 3:  # of tokens: what the head is fed is no vector of the text
            self.pooled = isinstance(said, dict) and POOLED in said
            return
        self.head = self.net.get_submodule(head_of(self.net, answered.shape[1]))
        fed = self._ask(features)[1]
        if len(fed) != 1 or fed[0].dim() != 2 or len(fed[0]) != len(answered):
            self.head = None

    def _ask(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        fed: list[torch.Tensor] = []
        if self.head is None:
            return logits(self.net(**features)), fed
        hook = self.head.register_forward_pre_hook(lambda _, given: fed.append(given[0]))
        try:
            return logits(self.net(**features)), fed
        finally:
            hook.remove()

    def forward(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        if self.pooled:
            said = self.net(**features)
            return said["logits"], said[POOLED]
        answered, fed = self._ask(features)
        return answered, *fed


def _prove(net: torch.nn.Module, model: Any, inputs: Signature, name: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    taken = [i.name for i in session.get_inputs()]
    for batch, length in PROOFS:
        given = made_up(inputs, batch, length, seed=1)
        expected = logits(net(**tensors(given))).numpy()
        at = f"{batch} inputs of length {length}, while it was traced with {EXAMPLE[0]} of {EXAMPLE[1]}"
        try:
            (found,) = session.run(["logits"], {n: given[n] for n in taken})
        except Exception as error:  # ONNX Runtime's classes have no common base of their own
            raise ConfigError(FIELD, name, f"its export does not run on {at}: {FROZEN}") from error
        if found.shape != expected.shape or np.abs(found - expected).max() > CLOSE * max(1.0, np.abs(expected).max()):
            remedy = "its answer may hang on its inputs alone, and on no number that is one of these sizes"
            raise ConfigError(FIELD, name, f"its export answers otherwise than the network on {at}: {remedy}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's exporter tells its passes, and what it does not use, by loggers and warnings."""
    levels = {name: logging.getLogger(name).level for name in NOISE}
    for name in NOISE:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def answers(net: torch.nn.Module, card: StudentCard, rows: Features, unit: Unit | None = None) -> list[SoftLabel]:
    """What the float export of a network would answer, uncalibrated, by the network itself: an export takes seconds."""
    said = prune.answers(net.cpu().eval(), rows)
    if card.task in CLASSED:
        made = SoftLabel.multilabel if card.task == "multilabel" else SoftLabel.of
        return [made(card.space, card.classes, row) for row in probabilities(said, card.task).double().tolist()]
    if card.task == "embedding":
        vectors, scales = (part.double().tolist() for part in vector_and_scale(said))
        pairs = zip(vectors, scales, strict=True)
        return [SoftLabel(task="embedding", space=card.space, vector=tuple(v), scale=s) for v, s in pairs]
    unit = unit or Unit(mean=0.0, scale=1.0)
    value, scale = value_and_scale(said)
    told = zip((value * unit.scale + unit.mean).tolist(), (scale * unit.scale).tolist(), strict=True)
    return [SoftLabel(task="regression", space=card.space, value=v, scale=s) for v, s in told]


def to_onnx(
    made: Body, card: StudentCard, temperature: float = 1.0, unit: Unit | None = None, known: Nearness | None = None
) -> bytes:
    """The ONNX file, in float32, of a body; of a regression with its ``unit``, which answers are given in.

    ``temperature``: what logits are divided by, or the scale of a number or vector is multiplied by; it is part of the
    graph, so that what is judged and what serves are calibrated alike, and no part of what training goes on from.
    ``known``: where what was learnt from lies; the graph then tells how far from it an input is.
    """
    model = onnx.ModelProto()
    model.CopyFrom(made.model)
    constants: dict[str, Any] = {}
    if card.task == "regression":
        nodes, outputs = _value_and_scale(constants, temperature, unit or Unit(mean=0.0, scale=1.0))
    elif card.task == "embedding":
        nodes, outputs = _vector_and_scale(card, constants, temperature)
    else:
        nodes, outputs = _probabilities(card, constants, temperature)
    if known is not None:
        further, output = novelty_nodes(known, made.state, constants)
        nodes, outputs = nodes + further, [*outputs, output]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v, order="C"), n) for n, v in constants.items())
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    model.graph.name = "student"
    model.producer_name = "cohobate"
    onnx.checker.check_model(model)
    return _sealed(model, card, made.files)


def _probabilities(card: StudentCard, constants: dict[str, Any], temperature: float) -> tuple[list[Any], list[Any]]:
    constants[TEMPERATURE] = np.array(temperature, dtype=np.float32)
    shape = [BATCH, *([TOKENS] if card.task == "tagging" else []), len(card.classes)]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)
    nodes = [
        helper.make_node("Div", ["logits", TEMPERATURE], ["answer_tempered"]),
        helper.make_node("Sigmoid", ["answer_tempered"], ["probabilities"])
        if card.task == "multilabel"
        else helper.make_node("Softmax", ["answer_tempered"], ["probabilities"], axis=-1),
    ]
    return nodes, [output]


def temperature_of(artifact: bytes) -> float | None:
    """What an exported student of classes divides its logits by; None where its graph does not say."""
    found = [c for c in onnx.load_model_from_string(artifact).graph.initializer if c.name == TEMPERATURE]
    return float(numpy_helper.to_array(found[0])) if found else None


def novelty_nodes(known: Nearness, state: str, constants: dict[str, Any]) -> tuple[list[Any], Any]:
    """The nodes that give the score of :meth:`drift.novelty.Nearness.distances`, and the graph's further output.

    With z for a point where the covariance is the identity, and c for a centre: |z|^2 + min_c (|c|^2 - 2 z c), of which
    z and the products come of one multiplication. Few nodes, as each costs a single input more than its arithmetic.
    """
    lengths = (known.centres**2).sum(axis=1)
    dims, classes = len(known.middle), len(known.centres)
    turn = np.concatenate([known.whiten, -2.0 * known.whiten @ known.centres.T], axis=1)
    shift = -known.middle @ turn
    shift[dims:] += lengths
    constants |= {
        "novelty_turn": turn.astype(np.float32),
        "novelty_shift": shift.astype(np.float32),
        "novelty_sizes": np.array([dims, classes]),
        "novelty_axis": np.array([1]),
    }
    steps: list[tuple[str, list[str], list[str], dict[str, int]]] = [
        ("Gemm", [state, "novelty_turn", "novelty_shift"], ["novelty_both"], {}),
        ("Split", ["novelty_both", "novelty_sizes"], ["novelty_z", "novelty_across"], {"axis": 1}),
        ("ReduceSumSquare", ["novelty_z", "novelty_axis"], ["novelty_length"], {"keepdims": 0}),
        ("ReduceMin", ["novelty_across", "novelty_axis"], ["novelty_nearest"], {"keepdims": 0}),
        ("Add", ["novelty_length", "novelty_nearest"], [NOVELTY], {}),
    ]
    nodes = [
        helper.make_node(kind, given, out, name=f"{NOVELTY_PREFIX}{i}", **how)
        for i, (kind, given, out, how) in enumerate(steps)
    ]
    return nodes, helper.make_tensor_value_info(NOVELTY, TensorProto.FLOAT, [BATCH])


def _value_and_scale(constants: dict[str, Any], temperature: float, unit: Unit) -> tuple[list[Any], list[Any]]:
    numbers = {"mean": unit.mean, "unit": unit.scale, "least": MIN_SCALE, "spread": unit.scale * temperature}
    constants |= {f"answer_{name}": np.array(value, dtype=np.float32) for name, value in numbers.items()}
    constants |= {"answer_first": np.array(0), "answer_second": np.array(1)}
    nodes = [
        helper.make_node("Gather", ["logits", "answer_first"], ["answer_value_u"], axis=1),
        helper.make_node("Mul", ["answer_value_u", "answer_unit"], ["answer_value_0"]),
        helper.make_node("Add", ["answer_value_0", "answer_mean"], ["value"]),
        helper.make_node("Gather", ["logits", "answer_second"], ["answer_scale_raw"], axis=1),
        helper.make_node("Softplus", ["answer_scale_raw"], ["answer_scale_positive"]),
        helper.make_node("Add", ["answer_scale_positive", "answer_least"], ["answer_scale_u"]),
        helper.make_node("Mul", ["answer_scale_u", "answer_spread"], ["scale"]),
    ]
    return nodes, [helper.make_tensor_value_info(n, TensorProto.FLOAT, [BATCH]) for n in ("value", "scale")]


def _vector_and_scale(card: StudentCard, constants: dict[str, Any], temperature: float) -> tuple[list[Any], list[Any]]:
    """The nodes of :func:`components.distill.networks.contract.vector_and_scale`, calibrated."""
    low, high = LOG_DISTANCES
    numbers = {"shortest": SHORTEST, "low": low, "high": high, "spread": temperature}
    constants |= {f"answer_{name}": np.array(value, dtype=np.float32) for name, value in numbers.items()}
    constants |= {"answer_sizes": np.array([card.dimension, 1]), "answer_axis": np.array([1])}
    steps: list[tuple[str, list[str], list[str], dict[str, int]]] = [
        ("Split", ["logits", "answer_sizes"], ["answer_raw", "answer_log_1"], {"axis": 1}),
        ("ReduceL2", ["answer_raw", "answer_axis"], ["answer_length_0"], {"keepdims": 1}),
        ("Max", ["answer_length_0", "answer_shortest"], ["answer_length"], {}),
        ("Div", ["answer_raw", "answer_length"], ["vector"], {}),
        ("Squeeze", ["answer_log_1", "answer_axis"], ["answer_log_0"], {}),
        ("Clip", ["answer_log_0", "answer_low", "answer_high"], ["answer_log"], {}),
        ("Exp", ["answer_log"], ["answer_distance"], {}),
        ("Mul", ["answer_distance", "answer_spread"], ["scale"], {}),
    ]
    nodes = [helper.make_node(kind, given, out, **how) for kind, given, out, how in steps]
    shapes = {"vector": [BATCH, card.dimension], "scale": [BATCH]}
    return nodes, [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]


def to_int8(float_model: bytes, made: Body, card: StudentCard, rows: Features | None = None) -> bytes:
    """The same model with weights in 8 bits.

    Convolutions are quantised statically, with their activations' ranges as they are over ``rows`` (features of the
    inputs that calibrate); what has none dynamically, with ranges that are taken anew from each batch. A network
    that names the operators whose weights are to be held in 8 bits has those quantised alone.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    model = onnx.load_from_string(float_model)
    model.metadata_props.append(PREPARED)
    for n, node in enumerate(model.graph.node[: len(made.model.graph.node)]):
        node.name = node.name or f"body_{n}"  # the quantiser takes nodes without a name for one
    convolves = any(node.op_type == "Conv" for node in model.graph.node)
    novelty = [node.name for node in model.graph.node if node.name.startswith(NOVELTY_PREFIX)]
    last = [node.name for node in model.graph.node if any(n.startswith("answer_") for n in node.input)] + novelty
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(source))
        if convolves and made.operators is None and rows is not None:
            quantize_static(
                str(source), str(target), _Rows(rows, [i.name for i in model.graph.input]), per_channel=True,
                weight_type=QuantType.QInt8, nodes_to_exclude=last,
            )  # fmt: skip
        else:
            kinds = list(made.operators or ("Gather", "MatMul", "Gemm"))
            quantize_dynamic(
                str(source), str(target), op_types_to_quantize=kinds, weight_type=QuantType.QInt8,
                nodes_to_exclude=novelty,
            )  # fmt: skip
        return _sealed(onnx.load(str(target)), msgspec.structs.replace(card, precision="int8"), made.files)


class _Rows:
    """Features, a few rows at a time, as ONNX Runtime's calibration reads them."""

    def __init__(self, rows: Features, taken: Sequence[str]) -> None:
        count = len(next(iter(rows.values())))
        self._batches = iter(
            [
                {name: rows[name][first : first + CALIBRATION_BATCH] for name in taken}
                for first in range(0, count, CALIBRATION_BATCH)
            ]
        )

    def get_next(self) -> Features | None:
        return next(self._batches, None)


def resealed(data: bytes, card: StudentCard, files: Mapping[str, bytes]) -> bytes:
    """The same file with another card."""
    return _sealed(onnx.load_from_string(data), card, files)


def _sealed(model: Any, card: StudentCard, files: Mapping[str, bytes]) -> bytes:
    """The model's bytes with ``card`` and ``files`` as its only metadata; equal models give equal bytes."""
    del model.metadata_props[:]
    model.metadata_props.append(onnx.StringStringEntryProto(key=CARD_KEY, value=msgspec.json.encode(card).decode()))
    if files:
        model.metadata_props.append(onnx.StringStringEntryProto(key=FILES_KEY, value=pack(files)))
    data: bytes = model.SerializeToString(deterministic=True)
    return data
