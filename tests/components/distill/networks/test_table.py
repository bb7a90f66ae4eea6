import numpy as np
import pytest
import torch

from components.contracts.errors import ConfigError
from components.distill.networks.table import TableNetwork
from components.student.columns import MixedColumns
from components.student.features import bag_signature

FEATURES = MixedColumns(
    numbers=[{"name": "x"}, {"name": "y"}],
    categories=[{"name": "c", "values": ["a", "b"]}, {"name": "d", "values": "e"}],
)


def net(signature=FEATURES.signature, **options):
    torch.manual_seed(0)
    return TableNetwork(task="classification", inputs=signature, outputs=3, **{"dim": 4, "hidden": [6, 5], **options})


def given(rows):
    return {name: torch.tensor(array) for name, array in FEATURES.encode(rows).items()}


def test_a_value_that_was_never_learnt_from_says_nothing():
    model = net()
    with torch.no_grad():
        model.embedding.weight[[2, 3, 6]] = torch.randn(3, 4)  # what an update teaches: a, b and e
    rows = [{"c": "a"}, {"c": "z"}, {}, {"c": "q"}]
    said = model(**given(rows))["logits"]
    assert torch.equal(said[1], said[3]) and torch.equal(said[1], said[2]) and not torch.equal(said[0], said[1])


def test_numbers_alone_or_categories_alone_do():
    for features in (MixedColumns(numbers=[{"name": "x"}]), MixedColumns(categories=[{"name": "c", "values": ["a"]}])):
        model = net(features.signature)
        array = {name: torch.tensor(a) for name, a in features.encode([{"x": 1, "c": "a"}]).items()}
        assert model(**array)["logits"].shape == (1, 3)
    assert net(hidden=[])(**given([{}]))["logits"].shape == (1, 3)


def test_units_that_nobody_listens_to_are_cut_without_a_change():
    model = net()
    chance = np.random.default_rng(0)
    features = FEATURES.encode(
        [{"x": float(x), "y": float(y), "c": "ab"[int(x > 0)]} for x, y in chance.normal(size=(40, 2))]
    )
    arrays = {name: torch.tensor(a) for name, a in features.items()}
    with torch.no_grad():
        model.layers[1].weight[:, [0, 2, 5]] = 0.0
        model.head.weight[:, [1, 4]] = 0.0
    before = model(**arrays)["logits"]
    cut = model.cut(features, 0.4)
    assert [tuple(layer.weight.shape) for layer in cut.layers] == [(4, 12), (3, 4)]
    assert torch.allclose(cut(**arrays)["logits"], before, atol=1e-5)


def test_takes_columns_alone():
    with pytest.raises(ConfigError, match=r"takes numbers \(float32, 2 axes\), missing"):
        net(bag_signature(64))
