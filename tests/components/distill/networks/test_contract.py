import torch

from components.distill.data import MIN_SCALE
from components.distill.networks.contract import value_and_scale


def test_a_scale_is_never_below_the_least():
    value, scale = value_and_scale(torch.tensor([[1.5, -100.0], [2.0, 0.0]]))
    assert value.tolist() == [1.5, 2.0]
    assert scale[0] >= MIN_SCALE and scale[1] > 0.6
