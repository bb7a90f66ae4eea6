import numpy as np
import pytest
import torch

from components.contracts.errors import ConfigError
from components.distill.networks.text_convolution import TextConvolution
from components.student.features import TensorSpec, bag_signature

IDS = {"ids": TensorSpec(dtype="int64", shape=("batch", "length"), below=30)}


def net(**options):
    torch.manual_seed(0)
    made = TextConvolution(task="classification", inputs=IDS, outputs=3, **{"dim": 8, "filters": 6, **options})
    return made.eval()


def test_it_answers_by_the_strongest_of_each_filter():
    model = net(widths=[2])
    ids = torch.tensor([[3, 7, 5]])
    rows = [*model.embedding.weight[ids[0]], torch.zeros(8)]
    filters = model.convolutions[0]
    said = [filters.bias + (filters.weight * torch.stack(rows[i : i + 2], dim=1)).sum((1, 2)) for i in range(3)]
    expected = torch.relu(torch.stack(said)).amax(dim=0)
    assert torch.allclose(model(ids)["pooled"][0], expected, atol=1e-6)
    assert torch.allclose(model(ids)["logits"][0], model.head(expected), atol=1e-6)


def test_padding_changes_nothing_and_an_input_of_nothing_else_is_answered():
    model = net(widths=[1, 3])
    alone, padded = model(torch.tensor([[3, 7]])), model(torch.tensor([[3, 7, 0, 0, 0], [0, 0, 0, 0, 0]]))
    assert torch.allclose(alone["logits"][0], padded["logits"][0], atol=1e-6)
    assert not padded["pooled"][1].any() and torch.equal(padded["logits"][1], model.head.bias)


def test_a_mask_says_what_padding_is_where_there_is_one():
    model = net()
    ids, mask = torch.tensor([[3, 0, 9]]), torch.tensor([[1, 1, 0]])
    short = model(torch.tensor([[3, 0]]), torch.tensor([[1, 1]]))
    assert torch.allclose(model(ids, mask)["logits"], short["logits"], atol=1e-6)
    assert not torch.allclose(model(ids)["logits"], short["logits"], atol=1e-3)


def test_filters_and_dimensions_that_nobody_listens_to_are_cut_without_a_change():
    model = net(widths=[1, 2])
    features = {"ids": np.random.default_rng(0).integers(1, 30, (40, 7))}
    with torch.no_grad():
        model.head.weight[:, [0, 2, 3, 4, 5, 1]] = 0.0  # all of the first width
        for convolution in model.convolutions:
            convolution.weight[:, [1, 4, 6, 7]] = 0.0
    before = model(torch.tensor(features["ids"]))["logits"]
    cut = model.cut(features, 0.5)
    assert cut.embedding.weight.shape == (30, 4) and [len(c.weight) for c in cut.convolutions] == [6]
    assert torch.allclose(cut(torch.tensor(features["ids"]))["logits"], before, atol=1e-5)


def test_takes_ids_alone():
    with pytest.raises(ConfigError, match=r"student\.network.*takes ids \(int64, 2 axes\)"):
        TextConvolution(task="classification", inputs=bag_signature(64), outputs=3)
