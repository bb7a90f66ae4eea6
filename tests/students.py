"""Small students for tests: a bag of features by its shape, as a card names it and as a file holds it."""

from components.contracts.spec import Factory
from components.distill.export import body, to_onnx
from components.distill.networks.contract import load, network
from components.student.card import BAG
from components.student.features import bag_signature


def bag(buckets, dim, hidden):
    """The fields of a card that say what the network is."""
    network = Factory(factory=BAG, options={"dim": dim, "hidden": hidden})
    return {"inputs": bag_signature(buckets), "network": network}


def exported(card, state=None, unit=None, source=""):
    """The ONNX file of a card's network with these weights, or with those that it is made with."""
    net = network(card, source)
    return to_onnx(body(load(net, state) if state else net, card.inputs), card, unit=unit)
