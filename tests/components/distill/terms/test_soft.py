import torch

from components.distill.terms.soft import logits_of

SOFT = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])


def at(temperature):
    return torch.softmax(logits_of(SOFT) / temperature, dim=1)


def test_a_temperature_of_one_changes_nothing_and_a_high_one_flattens():
    assert torch.allclose(at(1.0), SOFT, atol=1e-5)
    assert at(100.0).max() < 0.4 and torch.allclose(at(100.0).sum(dim=1), torch.ones(2))


def test_a_class_that_is_left_out_has_a_logit():
    assert torch.isfinite(logits_of(SOFT)).all()
