import msgspec
import pytest
import torch

from components.contracts.storage import digest_of
from components.distill.data import Unit
from components.distill.export import answers, body, to_int8, to_onnx
from components.distill.networks.contract import network as network_of
from components.distill.networks.contract import tensors, value_and_scale
from components.distill.prune import BATCH
from components.student.parity import parity
from components.student.runtime import Student
from tests.students import bag


@pytest.fixture(scope="module")
def line_card(card, line_spec):
    return msgspec.structs.replace(
        card, task="regression", classes=(), space="euro", features=line_spec.features, payload=line_spec.payload,
        **bag(2, 8, 16),
    )  # fmt: skip


def network(card):
    torch.manual_seed(0)
    net = network_of(card)
    return net, body(net, card.inputs)


UNIT = Unit(mean=1000.0, scale=10.0)
PAYLOADS = [b"a", b"some longer bytes", bytes(range(256))]


def test_the_graph_answers_what_the_network_does(card):
    net, made = network(card)
    student = Student.load(to_onnx(made, card))
    expected = torch.softmax(net(**tensors(student.featuriser.encode(PAYLOADS))), dim=1).detach().numpy()
    for soft, row in zip(student.predict(PAYLOADS), expected, strict=True):
        assert [soft.distribution[c] for c in "abc"] == pytest.approx(row.tolist(), abs=1e-5)


def test_the_graph_of_a_regression_answers_in_the_target_s_unit(line_card):
    net, made = network(line_card)
    student = Student.load(to_onnx(made, line_card, unit=UNIT))
    payloads = [b"[1.0]", b"[5.5]", b"[-3]"]
    value, scale = value_and_scale(net(**tensors(student.featuriser.encode([[1.0], [5.5], [-3]]))))
    for soft, v, s in zip(student.predict(payloads), value.tolist(), scale.tolist(), strict=True):
        assert soft.value == pytest.approx(1000 + 10 * v, rel=1e-5)
        assert soft.scale == pytest.approx(10 * s, rel=1e-5)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_network_itself_answers_what_its_export_does(task, card, line_card):
    of, unit = (line_card, UNIT) if task == "regression" else (card, None)
    net, made = network(of)
    student, n = Student.load(to_onnx(made, of, unit=unit)), BATCH + 9
    given = [[i / 50] for i in range(n)] if unit else [bytes([i % 256, i // 256]) for i in range(n)]
    said = answers(net, of, student.featuriser.encode(given), unit)
    for ours, its in zip(said, student.predict_decoded(given), strict=True):
        assert ours.distribution == pytest.approx(its.distribution, abs=1e-5)
        assert (ours.value or 0.0, ours.scale or 0.0) == pytest.approx((its.value or 0.0, its.scale or 0.0), rel=1e-4)


def test_the_quantised_model_is_a_quarter_of_the_size_and_close(card):
    _, made = network(card)
    full = to_onnx(made, card)
    small = to_int8(full, made, card)
    assert len(small) < 0.4 * len(full)
    student = Student.load(small)
    assert student.card == msgspec.structs.replace(card, precision="int8")
    assert parity(Student.load(full).predict(PAYLOADS), student.predict(PAYLOADS)).largest < 0.05


def test_a_regression_is_quantised_too(line_card):
    _, made = network(line_card)
    full = to_onnx(made, line_card, unit=UNIT)
    student = Student.load(to_int8(full, made, line_card))
    assert parity(Student.load(full).predict([b"[1]"]), student.predict([b"[1]"])).largest < 0.1


def test_equal_networks_give_equal_files(card):
    _, made = network(card)
    first, second = to_onnx(made, card), to_onnx(made, card)
    assert digest_of(first) == digest_of(second)
    assert digest_of(to_int8(first, made, card)) == digest_of(to_int8(second, made, card))


def test_quantising_says_nothing(card, capfd, caplog):
    _, made = network(card)
    to_int8(to_onnx(made, card), made, card)
    assert not caplog.records and capfd.readouterr() == ("", "")
