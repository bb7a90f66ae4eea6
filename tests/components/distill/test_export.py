import msgspec
import numpy as np
import pytest
import torch

from components.contracts.storage import digest_of
from components.distill.export import to_int8, to_onnx
from components.distill.model import StudentNet, value_and_scale
from components.student.parity import parity
from components.student.runtime import Student


@pytest.fixture(scope="module")
def line_card(card, line_spec):
    return msgspec.structs.replace(
        card, task="regression", classes=(), space="euro", features=line_spec.features, payload=line_spec.payload,
        buckets=2,
    )  # fmt: skip


def network(card):
    torch.manual_seed(0)
    net = StudentNet.of(card)
    return net, {k: v.numpy() for k, v in net.state_dict().items()}


PAYLOADS = [b"a", b"some longer bytes", bytes(range(256))]


def test_the_graph_answers_what_the_network_does(card):
    net, state = network(card)
    student = Student.load(to_onnx(state, card))
    ids, weights = student.featuriser.encode(PAYLOADS)
    expected = torch.softmax(net(torch.from_numpy(ids), torch.from_numpy(weights)), dim=1).detach().numpy()
    for soft, row in zip(student.predict(PAYLOADS), expected, strict=True):
        assert [soft.distribution[c] for c in "abc"] == pytest.approx(row.tolist(), abs=1e-5)


def test_the_graph_of_a_regression_answers_in_the_target_s_unit(line_card):
    net, state = network(line_card)
    student = Student.load(to_onnx({**state, "unit": np.array([1000.0, 10.0])}, line_card))
    payloads = [b"[1.0]", b"[5.5]", b"[-3]"]
    value, scale = value_and_scale(net(*map(torch.from_numpy, student.featuriser.encode([[1.0], [5.5], [-3]]))))
    for soft, v, s in zip(student.predict(payloads), value.tolist(), scale.tolist(), strict=True):
        assert soft.value == pytest.approx(1000 + 10 * v, rel=1e-5)
        assert soft.scale == pytest.approx(10 * s, rel=1e-5)


def test_the_quantised_model_is_a_quarter_of_the_size_and_close(card):
    _, state = network(card)
    full = to_onnx(state, card)
    small = to_int8(full, card)
    assert len(small) < 0.4 * len(full)
    student = Student.load(small)
    assert student.card == msgspec.structs.replace(card, precision="int8")
    assert parity(Student.load(full).predict(PAYLOADS), student.predict(PAYLOADS)).largest < 0.05


def test_a_regression_is_quantised_too(line_card):
    _, state = network(line_card)
    full = to_onnx({**state, "unit": np.array([1000.0, 10.0])}, line_card)
    student = Student.load(to_int8(full, line_card))
    assert parity(Student.load(full).predict([b"[1]"]), student.predict([b"[1]"])).largest < 0.1


def test_equal_networks_give_equal_files(card):
    _, state = network(card)
    first, second = to_onnx(state, card), to_onnx(state, card)
    assert digest_of(first) == digest_of(second)
    assert digest_of(to_int8(first, card)) == digest_of(to_int8(second, card))


def test_quantising_says_nothing(card, capfd, caplog):
    to_int8(to_onnx(network(card)[1], card), card)
    assert not caplog.records and capfd.readouterr() == ("", "")
