import math

import pytest
import torch

from components.distill.data import MIN_SCALE, NO_TRUTH
from components.distill.losses import classification_loss, regression_loss, soften, value_and_scale

SOFT = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
UNKNOWN = torch.tensor([NO_TRUTH, NO_TRUTH])


def loss(logits, truth=UNKNOWN, *, temperature=2.0, truth_weight=0.3):
    return float(classification_loss(logits, SOFT, truth, temperature=temperature, truth_weight=truth_weight))


def test_a_temperature_of_one_changes_nothing_and_a_high_one_flattens():
    assert torch.allclose(soften(SOFT, 1.0), SOFT, atol=1e-5)
    flat = soften(SOFT, 100.0)
    assert flat.max() < 0.4 and torch.allclose(flat.sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_a_student_that_says_what_the_teacher_says_has_no_loss(temperature):
    logits = torch.log(SOFT.clamp_min(1e-6))
    assert loss(logits, temperature=temperature) == pytest.approx(0.0, abs=1e-5)
    assert loss(torch.zeros(2, 3), temperature=temperature) > 0.1


def test_is_the_mixture_of_the_formula():
    logits, truth = torch.tensor([[0.5, -0.2, 0.1], [0.0, 0.3, 0.4]]), torch.tensor([2, NO_TRUTH])
    kl = [
        float((p * (p / q).log()).nan_to_num().sum()) * 4
        for p, q in zip(soften(SOFT, 2.0), torch.softmax(logits / 2, dim=1), strict=True)
    ]
    hard = -float(torch.log_softmax(logits, dim=1)[0, 2])
    assert loss(logits, truth) == pytest.approx((0.7 * kl[0] + 0.3 * hard + kl[1]) / 2, rel=1e-4)


def test_truth_counts_only_where_it_is_known():
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert loss(logits, truth_weight=0.9) == pytest.approx(loss(logits, truth_weight=0.0))
    right, wrong = torch.tensor([0, 1]), torch.tensor([2, 0])
    assert loss(logits, right) < loss(logits, wrong)


def test_gradients_keep_their_size_at_any_temperature():
    sizes = []
    for temperature in (1.0, 20.0):
        logits = torch.tensor([[0.4, 0.2, 0.0], [0.0, 0.4, 0.2]], requires_grad=True)
        soft = torch.softmax(torch.tensor([[0.2, 0.4, 0.0], [0.0, 0.0, 0.4]]), dim=1)
        classification_loss(logits, soft, UNKNOWN, temperature=temperature, truth_weight=0.0).backward()
        sizes.append(float(logits.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def normal_loss(value, scale, truth=math.nan, truth_weight=0.5):
    soft = torch.tensor([[2.0, 0.5]])
    return float(
        regression_loss(
            torch.tensor([value]), torch.tensor([scale]), soft, torch.tensor([truth]), truth_weight=truth_weight
        )
    )


def test_regression_is_the_divergence_of_normals():
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(2.0, 0.5), torch.distributions.Normal(3.0, 2.0)
    )
    assert normal_loss(3.0, 2.0) == pytest.approx(float(expected), rel=1e-5)
    assert normal_loss(2.0, 0.5) == pytest.approx(0.0, abs=1e-6)


def test_regression_takes_truth_where_it_is_known():
    nll = -float(torch.distributions.Normal(3.0, 2.0).log_prob(torch.tensor(5.0))) - math.log(2 * math.pi) / 2
    assert normal_loss(3.0, 2.0, 5.0) == pytest.approx(0.5 * normal_loss(3.0, 2.0) + 0.5 * nll, rel=1e-5)


def test_unknown_truth_leaves_no_nan_in_the_gradients():
    value, scale = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([1.0, 1.0], requires_grad=True)
    soft, truth = torch.tensor([[1.0, 1.0], [2.0, 1.0]]), torch.tensor([math.nan, 3.0])
    regression_loss(value, scale, soft, truth, truth_weight=0.5).backward()
    assert torch.isfinite(value.grad).all() and torch.isfinite(scale.grad).all()


def test_a_scale_is_never_below_the_least():
    value, scale = value_and_scale(torch.tensor([[1.5, -100.0], [2.0, 0.0]]))
    assert value.tolist() == [1.5, 2.0]
    assert scale[0] >= MIN_SCALE and scale[1] > 0.6
