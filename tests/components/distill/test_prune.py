import msgspec
import numpy as np
import pytest
import torch

from components.contracts.storage import digest_of
from components.distill.data import NO_TRUTH, TrainingSet
from components.distill.export import to_int8, to_onnx
from components.distill.model import StudentNet
from components.distill.prune import pruned
from components.student.runtime import Student

ROWS = 60


@pytest.fixture(scope="module")
def data():
    chance = np.random.default_rng(0)
    weights = chance.random((ROWS, 5), dtype=np.float32)
    return TrainingSet(
        ids=chance.integers(0, 1024, (ROWS, 5)), weights=weights / weights.sum(1, keepdims=True),
        soft=np.full((ROWS, 3), 1 / 3, dtype=np.float32), truth=np.zeros(ROWS, dtype=np.int64),
    )  # fmt: skip


def network(card):
    torch.manual_seed(0)
    return {k: v.numpy() for k, v in StudentNet.of(card).state_dict().items()}


def answers(state, card, data):
    net = StudentNet.of(card)
    net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()})
    with torch.no_grad():
        return net(torch.from_numpy(data.ids), torch.from_numpy(data.weights)).numpy()


def test_units_are_gone_from_every_layer_and_from_the_file(card, data):
    state = network(card)
    cut = pruned(state, card, data, 0.5)
    assert (cut.card.dim, cut.card.hidden) == (4, 8)
    shapes = {name: tuple(v.shape) for name, v in cut.state.items()}
    assert shapes == {
        "embedding.weight": (1024, 4), "norm.weight": (4,), "norm.bias": (4,), "hidden.weight": (8, 4),
        "hidden.bias": (8,), "head.weight": (3, 8), "head.bias": (3,),
    }  # fmt: skip
    whole, small = to_onnx(state, card), to_onnx(cut.state, cut.card)
    assert len(small) < 0.6 * len(whole) and len(to_int8(small, cut.card)) < 0.2 * len(whole)
    soft = Student.load(small).exercise(data.ids, data.weights)
    expected = torch.softmax(torch.from_numpy(answers(cut.state, cut.card, data)), dim=1).tolist()
    assert [s.distribution["a"] for s in soft] == pytest.approx([row[0] for row in expected], abs=1e-5)


def test_units_that_do_nothing_go_first_and_take_nothing_with_them(card, data):
    regression = msgspec.structs.replace(card, task="regression", classes=())
    state = {k: v.copy() for k, v in network(regression).items()}
    idle, fixed = [1, 4, 7, 11], [0, 3]
    state["head.weight"][:, idle] = 0.0  # nobody listens to them
    state["hidden.weight"][fixed], state["hidden.bias"][fixed] = 0.0, 2.0  # they always say the same
    state["hidden.weight"][:, [2, 5]] = 0.0
    cut = pruned(state, regression, data, 0.25)
    assert cut.state["embedding.weight"].tolist() == state["embedding.weight"][:, [0, 1, 3, 4, 6, 7]].tolist()
    assert cut.state["head.weight"].shape == (2, 12)
    assert answers(cut.state, cut.card, data) == pytest.approx(answers(state, regression, data), abs=1e-5)


def test_what_is_left_learns_the_answers_of_the_whole(card, data):
    state = network(card)
    lesson = pruned(state, card, data, 0.5).lesson
    expected = torch.softmax(torch.from_numpy(answers(state, card, data)), dim=1).numpy()
    assert lesson.soft == pytest.approx(expected, abs=1e-6) and set(lesson.truth) == {NO_TRUTH}
    assert lesson.ids is data.ids


def test_a_regression_s_lesson_has_no_truth_either(card, data):
    regression = msgspec.structs.replace(card, task="regression", classes=())
    lesson = pruned(network(regression), regression, data, 0.5).lesson
    assert lesson.soft.shape == (ROWS, 2) and (lesson.soft[:, 1] > 0).all() and np.isnan(lesson.truth).all()


@pytest.mark.parametrize(("share", "left"), [(0.01, (8, 16)), (0.99, (1, 1))])
def test_at_least_one_unit_stays_and_a_small_share_may_remove_none(card, data, share, left):
    state = network(card)
    cut = pruned(state, card, data, share)
    assert (cut.card.dim, cut.card.hidden) == left
    if left == (8, 16):
        assert all(np.array_equal(cut.state[k], v) for k, v in state.items())


def test_equal_networks_are_pruned_alike(card, data):
    first, second = (pruned(network(card), card, data, 0.5) for _ in range(2))
    assert digest_of(to_onnx(first.state, first.card)) == digest_of(to_onnx(second.state, second.card))
