"""A network and what it learns by, as one module."""

import pytest
import torch
from torch import nn

from components.contracts.errors import ConfigError
from components.contracts.spec.objective import Hidden, Kl
from components.distill.lesson import Lesson


class Net(nn.Module):
    """Its last layer is called logits; ``named``: its answer is told by that name too."""

    def __init__(self, *, named):
        super().__init__()
        self.norm, self.drop, self.logits = nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2)
        self._named = named

    def forward(self, x):
        inner = self.drop(self.norm(x))
        answer = self.logits(inner)
        return {"logits": answer - answer.mean(), "inner": inner} if self._named else answer


def sample(rows):
    torch.manual_seed(0)
    return {
        "feature.x": torch.randn(rows, 3) + 5, "soft": torch.full((rows, 2), 0.5), "state.t": torch.randn(rows, 2),
    }  # fmt: skip


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_network_is_made_a_lesson_without_learning_from_the_sample(named, rows):
    batch, net = sample(rows), Net(named=named)
    before, drawn = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    Lesson(net, (Kl(),), "classification", batch, seed=0)
    assert net.training and torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("named", [False, True])
def test_a_module_that_is_called_logits_is_a_state_like_any_other(named):
    batch, net = sample(2), Net(named=named)
    lesson = Lesson(
        net.eval(),
        (Hidden(student="logits", teacher="t", distance="mse", project="none"),),
        "classification",
        batch,
        seed=0,
    )
    with torch.no_grad():
        said = net.logits(net.norm(batch["feature.x"]))
        found, _ = lesson(batch, 0.0)
    assert float(found) == pytest.approx(float(((said - batch["state.t"]) ** 2).mean()), rel=1e-5)


class Pair(Net):
    """Its inner module gives two tensors."""

    def __init__(self):
        super().__init__(named=False)
        self.lstm = nn.LSTM(3, 3)

    def forward(self, x):
        return self.logits(self.lstm(x)[0])


def test_a_module_that_gives_no_tensor_is_refused_where_the_term_stands():
    terms, where = (Kl(), Hidden(student="lstm", teacher="t")), "student.stages[0].objective"
    with pytest.raises(ConfigError, match="gives no tensor") as refused:
        Lesson(Pair(), terms, "classification", sample(2), seed=0, field=where)
    assert refused.value.field == f"{where}[1].student"


def test_what_is_no_state_is_refused_with_what_there_is():
    with pytest.raises(ConfigError, match="has drop, inner, logits, norm"):
        Lesson(Net(named=True), (Hidden(student="gone", teacher="t"),), "classification", sample(2), seed=0)
