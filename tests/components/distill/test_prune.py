import msgspec
import numpy as np
import pytest
import torch

from components.contracts.storage import digest_of
from components.distill.data import NO_TRUTH, TrainingSet
from components.distill.export import body, to_int8, to_onnx
from components.distill.networks.contract import network as fresh
from components.distill.prune import answers, pruned
from components.student.runtime import Student

ROWS = 60


@pytest.fixture(scope="module")
def data():
    chance = np.random.default_rng(0)
    weights = chance.random((ROWS, 5), dtype=np.float32)
    return TrainingSet(
        features={"ids": chance.integers(0, 1024, (ROWS, 5)), "weights": weights / weights.sum(1, keepdims=True)},
        soft=np.full((ROWS, 3), 1 / 3, dtype=np.float32), truth=np.zeros(ROWS, dtype=np.int64),
    )  # fmt: skip


def network(card):
    torch.manual_seed(0)
    return fresh(card)


def shape(net):
    return net.hidden.in_features, net.hidden.out_features


def test_units_are_gone_from_every_layer_and_from_the_file(card, data):
    net = network(card)
    cut = pruned(net, card, data, 0.5)
    assert shape(cut.net) == (4, 8)
    shapes = {name: tuple(v.shape) for name, v in cut.net.state_dict().items()}
    assert shapes == {
        "embedding.weight": (1024, 4), "norm.weight": (4,), "norm.bias": (4,), "hidden.weight": (8, 4),
        "hidden.bias": (8,), "head.weight": (3, 8), "head.bias": (3,),
    }  # fmt: skip
    graph = body(cut.net, card.inputs)
    whole, small = to_onnx(body(net, card.inputs), card), to_onnx(graph, card)
    assert len(small) < 0.6 * len(whole) and len(to_int8(small, graph, card)) < 0.2 * len(whole)
    soft = Student.load(small).exercise(data.features)
    expected = torch.softmax(answers(cut.net, data.features), dim=1).tolist()
    assert [s.distribution["a"] for s in soft] == pytest.approx([row[0] for row in expected], abs=1e-5)


def test_units_that_do_nothing_go_first_and_take_nothing_with_them(card, data):
    regression = msgspec.structs.replace(card, task="regression", classes=())
    net = network(regression)
    idle, fixed = [1, 4, 7, 11], [0, 3]
    with torch.no_grad():
        net.head.weight[:, idle] = 0.0  # nobody listens to them
        net.hidden.weight[fixed], net.hidden.bias[fixed] = 0.0, 2.0  # they always say the same
        net.hidden.weight[:, [2, 5]] = 0.0
    cut = pruned(net, regression, data, 0.25).net
    assert torch.equal(cut.embedding.weight, net.embedding.weight[:, [0, 1, 3, 4, 6, 7]])
    assert cut.head.weight.shape == (2, 12)
    assert torch.allclose(answers(cut, data.features), answers(net, data.features), atol=1e-5)


def test_what_is_left_learns_the_answers_of_the_whole(card, data):
    net = network(card)
    lesson = pruned(net, card, data, 0.5).lesson
    expected = torch.softmax(answers(net, data.features), dim=1).numpy()
    assert lesson.soft == pytest.approx(expected, abs=1e-6) and set(lesson.truth) == {NO_TRUTH}
    assert lesson.features is data.features


def test_a_regression_s_lesson_has_no_truth_either(card, data):
    regression = msgspec.structs.replace(card, task="regression", classes=())
    lesson = pruned(network(regression), regression, data, 0.5).lesson
    assert lesson.soft.shape == (ROWS, 2) and (lesson.soft[:, 1] > 0).all() and np.isnan(lesson.truth).all()


@pytest.mark.parametrize(("share", "left"), [(0.01, (8, 16)), (0.99, (1, 1))])
def test_at_least_one_unit_stays_and_a_small_share_may_remove_none(card, data, share, left):
    net = network(card)
    cut = pruned(net, card, data, share).net
    assert shape(cut) == left
    if left == (8, 16):
        same = zip(cut.state_dict().values(), net.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in same)


def test_equal_networks_are_pruned_alike(card, data):
    first, second = (pruned(network(card), card, data, 0.5) for _ in range(2))
    files = [to_onnx(body(p.net, card.inputs), card) for p in (first, second)]
    assert digest_of(files[0]) == digest_of(files[1])
