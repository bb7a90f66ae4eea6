import torch

from components.distill.data import MIN_SCALE
from components.distill.model import StudentNet, value_and_scale


def net(normalise=True):
    torch.manual_seed(0)
    return StudentNet(buckets=20, dim=4, hidden=6, outputs=3, normalise=normalise)


def test_the_first_layer_is_the_weighted_sum_of_embedding_rows():
    model = net(normalise=False)
    ids, weights = torch.tensor([[3, 7, 0], [5, 0, 0]]), torch.tensor([[0.5, -2.0, 0.0], [1.0, 0.0, 0.0]])
    rows = model.embedding.weight
    summed = torch.stack([0.5 * rows[3] - 2.0 * rows[7], rows[5]])
    expected = model.head(torch.relu(model.hidden(summed)))
    assert torch.allclose(model(ids, weights), expected, atol=1e-6)


def test_padding_and_an_input_without_features_change_nothing():
    model = net()
    short = model(torch.tensor([[3, 7]]), torch.tensor([[0.5, 0.5]]))
    batch = model(torch.tensor([[0, 0, 0], [3, 7, 0]]), torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))
    assert torch.allclose(short[0], batch[1], atol=1e-6)
    assert torch.isfinite(batch).all()


def test_only_rows_that_were_looked_up_have_gradients():
    model = net()
    model(torch.tensor([[3, 0]]), torch.tensor([[1.0, 0.0]])).sum().backward()
    touched = model.embedding.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert set(touched) <= {3}


def test_a_scale_is_never_below_the_least():
    value, scale = value_and_scale(torch.tensor([[1.5, -100.0], [2.0, 0.0]]))
    assert value.tolist() == [1.5, 2.0]
    assert scale[0] >= MIN_SCALE and scale[1] > 0.6
