"""Small students for tests: a bag of features by its shape, as a card names it and as a file holds it.

What makes a file of them imports PyTorch, which takes seconds: only where one is made.
"""

from components.contracts.payload import decoder
from components.contracts.spec import Factory, Features, Payload
from components.student.card import BAG, StudentCard
from components.student.features import bag_signature, featuriser
from drift.novelty import Nearness


def bag(buckets, dim, hidden):
    """The fields of a card that say what the network is."""
    network = Factory(factory=BAG, options={"dim": dim, "hidden": hidden})
    return {"inputs": bag_signature(buckets), "network": network}


def exported(card, state=None, unit=None, source="", temperature=1.0):
    """The ONNX file of a card's network with these weights, or with those that it is made with."""
    from components.distill.export import body, to_onnx
    from components.distill.networks.contract import load, network

    net = network(card, source)
    return to_onnx(body(load(net, state) if state else net, card.inputs), card, temperature, unit)


def telling(spec, card, state, payloads, truths):
    """As :func:`exported`, of a student that tells how unlike these inputs, of these classes, another one is."""
    from components.distill.export import body, to_onnx
    from components.distill.networks.contract import load, network
    from components.distill.novelty import calibrated, states

    made, decode = body(load(network(card, spec.source), state), card.inputs), decoder(spec.payload, spec.source)
    features = featuriser(card.features, spec.source).encode([decode(p) for p in payloads])
    known = Nearness.fit(states(made, features), [card.classes.index(t) for t in truths])
    return calibrated(spec, to_onnx(made, card, known=known), [payloads], {})


def encoder(dimension=4, seed=0, workload="notes", space="notes@1", **more):
    """The card of a student of texts' vectors, and its file with weights that a seed draws."""
    import torch

    features = Factory(factory="components.student.text:TextNgrams", options={"buckets": 1024})
    card = StudentCard(
        workload=workload, task="embedding", space=space, classes=(), dimension=dimension,
        features=Features.of(features), payload=Payload(decoder="text", max_bytes=1_000), **bag(1024, 8, 16),
        variant="base", snapshots=("s" * 64,), teacher="t@1", parent=None, code="1", **more,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return card, exported(card)
