"""Networks of the user's own: what is refused, before anything is trained, and by which words."""

import pickle
import re

import msgspec
import onnx
import pytest
import torch

from components.contracts.errors import ConfigError
from components.contracts.spec import Export, Factory, Pruning, Variant
from components.contracts.storage import local_path
from components.distill import apart
from components.distill.export import body, to_int8, to_onnx
from components.distill.networks.contract import check_growth, load, network
from components.distill.prune import check_pruning
from components.distill.train import distill
from components.student.card import StudentCard
from components.student.features import TensorSpec, made_up

FILE = """
import numpy as np
import torch
from onnx import helper
from torch import nn

from components.distill.graph import Body, linear


class Base(nn.Module):
    def __init__(self, *, task, inputs, outputs, dim=4):
        super().__init__()
        self.embedding = nn.Embedding(inputs["ids"].below, dim)
        self.body = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, outputs)

    def pool(self, ids):
        return (self.embedding(ids) * ids.ne(0).unsqueeze(2)).sum(1)

    def forward(self, ids):
        return self.head(self.body(self.pool(ids)))


class WrongShape(Base):
    def forward(self, ids):
        return self.head(self.embedding(ids))


class OtherArrays(Base):
    def forward(self, pixels):
        return pixels


class ByItsValues(Base):
    def forward(self, ids):
        found = self.head(self.pool(ids))
        return found if float(found.sum()) > 0 else -found


class Forgetful(Base):
    def forward(self, ids):
        self.calls = getattr(self, "calls", 0) + 1
        return self.head(self.pool(ids)) + self.calls


class Recurrent(Base):
    def __init__(self, **kept):
        super().__init__(**kept)
        self.rnn = nn.LSTM(4, 4, batch_first=True)

    def forward(self, ids):
        return self.head(self.rnn(self.embedding(ids))[0][:, -1])


class Elman(Recurrent):
    def __init__(self, **kept):
        super().__init__(**kept)
        self.rnn = nn.RNN(4, 4, batch_first=True)


class Normed(Base):
    def __init__(self, *, outputs, **kept):
        super().__init__(outputs=outputs, **kept)
        self.last = nn.LayerNorm(outputs)

    def forward(self, ids):
        return self.last(super().forward(ids))


class Encoder(Base):
    def __init__(self, **kept):
        super().__init__(**kept)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), 1)

    def forward(self, ids):
        return self.head(self.encoder(self.embedding(ids), src_key_padding_mask=ids.eq(0)).mean(1))


class Tied(Base):
    def __init__(self, **kept):
        super().__init__(**kept)
        self.back = nn.Linear(4, self.embedding.num_embeddings, bias=False)
        self.back.weight = self.embedding.weight
        self.again = nn.Linear(self.embedding.num_embeddings, 4)

    def forward(self, ids):
        return self.head(self.again(self.back(self.pool(ids))))


class Filters(Base):
    def __init__(self, **kept):
        super().__init__(**kept)
        self.filters = nn.Conv1d(4, 4, 3, padding=1, bias=False)

    def forward(self, ids):
        return self.head(torch.relu(self.filters(self.embedding(ids).transpose(1, 2))).mean(2))

    def graph(self):
        constants = {
            "table": self.embedding.weight.detach().numpy(), "filters": self.filters.weight.detach().numpy(),
            "places": np.array([2]),
        }
        nodes = [
            helper.make_node("Gather", ["table", "ids"], ["embedded"]),
            helper.make_node("Transpose", ["embedded"], ["turned"], perm=[0, 2, 1]),
            helper.make_node("Conv", ["turned", "filters"], ["filtered"], kernel_shape=[3], pads=[1, 1]),
            helper.make_node("Relu", ["filtered"], ["found"]),
            helper.make_node("ReduceMean", ["found", "places"], ["pooled"], keepdims=0),
        ]
        nodes += linear("head", "pooled", "logits", self.head, constants)
        return Body(nodes=nodes, constants=constants, state="pooled")


class Headless(nn.Module):
    def __init__(self, *, task, inputs, outputs):
        super().__init__()
        self.rows = nn.Embedding(inputs["ids"].below, outputs)

    def forward(self, ids):
        return self.rows(ids).sum(1)


def not_a_module(**kept):
    return kept
"""


IDS = {"ids": TensorSpec(dtype="int64", shape=("batch", "length"), below=50)}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "nets.py").write_text(FILE)
    return str(folder / "spec.yaml")


def card_of(name, letter_spec, **options):
    return StudentCard(
        workload="letters", task="classification", space="letters@1", classes=("a", "b", "c"),
        features=letter_spec.features, payload=letter_spec.payload, inputs=IDS,
        network=Factory(factory=f"nets.py:{name}", options=options), variant="base", snapshots=("0" * 64,),
        teacher="t@1", parent=None, code="0",
    )  # fmt: skip


def test_a_plain_module_will_do(letter_spec, source):
    card = card_of("Base", letter_spec, dim=6)
    net = network(card, source)
    check_growth(net, card, source)
    assert body(net, card.inputs).model.graph.output[0].name == "logits"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("WrongShape", r"must give 3 numbers an input, shape \(3, 3\) of 3 inputs, not \(3, 5, 3\)"),
        ("OtherArrays", r"cannot be called with ids \['batch', 'length'\]: .*unexpected keyword argument 'ids'"),
        ("Headless", r"needs a Linear layer with 3 rows as its head, at head; it has none"),
        ("not_a_module", r"must make a torch.nn.Module, not a dict"),
        ("Absent", r"has no 'Absent'"),
    ],
)
def test_one_that_breaks_the_contract_is_refused(name, said, letter_spec, source):
    with pytest.raises(ConfigError, match=said):
        network(card_of(name, letter_spec), source)


def test_options_that_it_does_not_take_are_named(letter_spec, source):
    with pytest.raises(ConfigError, match=r"nets\.py:Base does not take them: .*'depth'"):
        network(card_of("Base", letter_spec, depth=3), source)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ByItsValues", "cannot be exported to ONNX: write"),
        ("Forgetful", "its export answers otherwise than the network on"),
    ],
)
def test_one_whose_export_is_none_or_another_is_refused(name, said, letter_spec, source):
    card = card_of(name, letter_spec)
    with pytest.raises(ConfigError, match=rf"student\.network is '{name}': .*{said}"):
        body(network(card, source), card.inputs)


def test_a_recurrent_network_is_exported_in_a_process_of_its_own(letter_spec, source):
    card = card_of("Recurrent", letter_spec)
    model = body(network(card, source), card.inputs).model
    assert "LSTM" in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("script", "said"),
    [('echo no such thing > "$4"; exit 1', "no such thing"), ("exit 9", "its export ended without one")],
)
def test_what_that_process_says_is_passed_on(script, said, letter_spec, source, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    card = card_of("Recurrent", letter_spec)
    with pytest.raises(ConfigError, match=rf"student\.network is 'Recurrent': {said}"):
        body(network(card, source), card.inputs)


def test_an_axis_that_is_frozen_in_an_export_is_found_in_that_process_too(letter_spec, source, tmp_path):
    card = card_of("Elman", letter_spec)
    asked, answer = tmp_path / "asked", tmp_path / "answer"
    asked.write_bytes(pickle.dumps(({}, pickle.dumps(network(card, source)), dict(card.inputs))))
    assert apart.main(str(asked), str(answer)) == 1
    assert re.match(r"its export does not run on 1 inputs of length 1, .*: an axis is frozen", answer.read_text())


def test_a_recurrent_network_whose_class_stands_in_a_function_is_refused():
    class Inner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.LSTM(4, 3)

    with pytest.raises(ConfigError, match="its classes must stand in a file, at the top"):
        body(Inner(), IDS)


def test_one_of_which_more_than_the_head_hangs_on_the_classes_is_refused(letter_spec, source):
    card = card_of("Normed", letter_spec)
    with pytest.raises(
        ConfigError, match=r"nets\.py:Normed'.*with one more output last\.bias, last\.weight change too"
    ):
        check_growth(network(card, source), card, source)


def test_weights_of_another_network_are_refused(letter_spec, source):
    net = network(card_of("Base", letter_spec), source)
    with pytest.raises(ConfigError, match="does not take the weights that it once gave"):
        load(net, {"head.weight": [[1.0]]})


HALF = Export(also=("pruned",), pruning=Pruning(share=0.5))


@pytest.mark.parametrize(
    ("name", "export", "field"),
    [
        ("ByItsValues", Export(), "network"),
        ("Normed", Export(), "network"),
        (
            "Tied",
            HALF,
            r"export\.pruning is 'Tied': .*cut embedding\.weight and back\.weight, which are the same weights",
        ),
    ],
)
def test_nothing_is_trained_or_written_for_one_that_cannot_serve(
    name, export, field, letter_spec, letters, freeze_rows, source, tmp_path, monkeypatch
):
    student = msgspec.structs.replace(
        letter_spec.student, network=Factory(factory=f"nets.py:{name}"), variants=(Variant(name="base"),), export=export
    )
    words = Factory(factory="components.student.words:WordSequence", options={"buckets": 256})
    spec = msgspec.structs.replace(
        letter_spec, student=student, source=source, features=words,
        payload=msgspec.structs.replace(letter_spec.payload, decoder="text"),
    )  # fmt: skip
    artifacts = f"file://{tmp_path}"
    window = freeze_rows(spec, letters("ab", 20), artifacts, 1)
    monkeypatch.setattr("components.distill.fit.fit", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(ConfigError, match=rf"student\.{field}"):
        distill(spec, [window], variant=Variant(name="base"), parent=None, artifacts=artifacts, seed=0)
    assert [p.name for p in local_path(f"{artifacts}/letters").iterdir()] == ["snapshots"]


def test_an_encoder_of_pytorch_s_answers_as_it_learns_whether_or_not_gradients_are_kept(letter_spec, source):
    net = network(card_of("Encoder", letter_spec), source)
    ids = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [0, 0, 0, 0, 0]])
    learning = net.train()(ids).detach()
    with torch.no_grad():
        assert torch.allclose(net.eval()(ids), learning, atol=1e-6)


def test_a_graph_of_its_own_whose_nodes_have_no_names_is_quantised(letter_spec, source):
    card = card_of("Filters", letter_spec)
    made = body(network(card, source), card.inputs)
    small = onnx.load_from_string(to_int8(to_onnx(made, card), made, card, made_up(card.inputs, 8, 6)))
    held = {i.name for i in small.graph.initializer if i.data_type == onnx.TensorProto.INT8}
    assert {"filters_quantized", "head_weight_quantized"} <= held


def test_weights_that_two_layers_share_are_pruned_by_the_network_s_own_cut_alone(letter_spec, source):
    tied = network(card_of("Tied", letter_spec), source)
    with pytest.raises(ConfigError, match="the same weights, apart"):
        check_pruning(tied)
    check_pruning(network(card_of("Base", letter_spec), source))
    tied.cut = lambda features, share: tied
    check_pruning(tied)
