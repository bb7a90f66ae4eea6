import pytest
import torch

from components.contracts.errors import ConfigError
from components.distill.networks.bag import BagOfFeatures
from components.student.features import TensorSpec, bag_signature


def net(task="classification"):
    torch.manual_seed(0)
    return BagOfFeatures(task=task, inputs=bag_signature(20), outputs=3, dim=4, hidden=6)


def test_the_first_layer_is_the_weighted_sum_of_embedding_rows():
    model = net("regression")
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


def test_takes_weighted_ids_alone():
    image = {"pixels": TensorSpec(dtype="float32", shape=("batch", 3, 8, 8))}
    with pytest.raises(ConfigError, match=r"student\.network.*weighted ids"):
        BagOfFeatures(task="classification", inputs=image, outputs=3)
