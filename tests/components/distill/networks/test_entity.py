"""Every network that ships, told what is known of an input's entity."""

import numpy as np
import onnxruntime
import pytest
import torch

from components.contracts.errors import ConfigError
from components.contracts.spec import Entity, EntityFeature, Factory, Features
from components.distill.data import TrainingSet
from components.distill.export import body
from components.distill.networks.contract import check_growth, head_of, logits, network, tensors
from components.distill.networks.entity import WithEntity, modules_of
from components.distill.prune import pruned
from components.student.card import StudentCard
from components.student.features import featuriser, made_up
from tests.components.distill.networks.examples import EXAMPLES

ENTITY = Entity(
    features=(
        EntityFeature(name="seen", of="count", seconds=60.0, default=0.0),
        EntityFeature(name="last", of="last_label", type="category", values=("a", "b"), default="a"),
    )
)


@pytest.fixture(params=list(EXAMPLES))
def told(request, tmp_path):
    """A card, and a network of it for which the entity means much."""
    example = EXAMPLES[request.param]
    if example.files:
        example.files(str(tmp_path))
    source = str(tmp_path / "spec.yaml")
    features = Features(factory=example.features.factory, options=example.features.options, entity=ENTITY)
    card = StudentCard(
        workload="w", task="classification", space="s@1", classes=("a", "b", "c"), features=features,
        payload=example.payload, inputs=dict(featuriser(features, source).signature), network=example.network,
        variant="base", snapshots=("s",), teacher="t@1", parent=None, code="0",
    )  # fmt: skip
    torch.manual_seed(0)
    net = network(card, source).eval()
    assert isinstance(net, WithEntity)
    return card, net, source


def loud(net):
    """With weights that let the entity count."""
    for layer in (net.scale, net.shift):
        torch.nn.init.normal_(layer.weight, std=0.5)
        torch.nn.init.normal_(layer.bias, std=0.5)
    return net


def own(features):
    return {name: array for name, array in features.items() if name != "entity"}


def test_it_begins_as_the_network_by_itself_and_is_moved_by_the_entity(told):
    card, net, source = told
    given = made_up(card.inputs, 4, 6)
    other = {**given, "entity": given["entity"] + 3.0}
    with torch.no_grad():
        assert torch.equal(logits(net(**tensors(given))), logits(net.net(**tensors(own(given)))))
        loud(net)
        assert not torch.allclose(logits(net(**tensors(given))), logits(net(**tensors(other))), atol=1e-3)
    check_growth(net, card, source)
    assert head_of(net, 3).startswith("net.") and set(modules_of(net)) == set(dict(net.net.named_modules()))


def test_its_export_answers_as_it_does(told):
    card, net, _ = told
    made = body(loud(net), card.inputs)
    session = onnxruntime.InferenceSession(made.model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = made_up(card.inputs, 5, 9, seed=2)
    given["entity"] = given["entity"] * 20
    (found,) = session.run(["logits"], {i.name: given[i.name] for i in session.get_inputs()})
    with torch.no_grad():
        assert np.abs(found - logits(net(**tensors(given))).numpy()).max() < 1e-4
    assert "entity" in [i.name for i in session.get_inputs()]


def test_what_is_cut_of_the_network_is_cut_of_what_modulates_it(told):
    card, net, _ = told
    loud(net)
    given = made_up(card.inputs, 40, 9, seed=3)
    data = TrainingSet(features=given, soft=np.full((40, 3), 1 / 3, dtype=np.float32), truth=np.full(40, -1))
    small = pruned(net, card, data, 0.4).net
    head = small.get_submodule(head_of(small, 3))
    assert small.scale.out_features == small.shift.out_features == head.in_features
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
    before, after = net.shift.bias.tolist(), small.shift.bias.tolist()
    assert after == [b for b in before if b in set(after)]  # units of before, in their order
    with torch.no_grad():
        assert logits(small(**tensors(given))).shape == (40, 3)


def test_a_head_without_a_bias_is_refused():
    class Bare(torch.nn.Module):
        def __init__(self, *, task, inputs, outputs):
            super().__init__()
            self.head = torch.nn.Linear(1, outputs, bias=False)

        def forward(self, numbers, missing):
            return self.head(numbers)

    from components.distill.networks import contract

    inputs = featuriser(Features(factory="components.student.columns:MixedColumns",
                                 options={"numbers": [{"name": "x"}]}, entity=ENTITY)).signature  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "build", lambda factory, source: Bare(**factory.options))
        patch.setattr(contract, "placed", lambda factory, source: factory)
        with pytest.raises(ConfigError, match="needs a head with a bias"):
            contract.made(Factory(factory="x:Bare"), "classification", inputs, 3)
