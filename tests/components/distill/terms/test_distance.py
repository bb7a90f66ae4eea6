"""The expected distance is learnt beside the vector, and moves it by nothing."""

import torch

from components.contracts.spec import objective as spec
from components.distill.terms import Said, Shapes, Taught, build
from components.distill.terms.distance import DistanceTerm
from tests.components.distill.terms.cases import directions


def batch():
    return directions(6, 5, torch.Generator().manual_seed(3))


def test_no_gradient_goes_to_the_vector():
    said, taught = batch()
    logits = said.logits.clone().requires_grad_()
    DistanceTerm()(Said(logits=logits), taught).sum().backward()
    assert (logits.grad[:, :-1] == 0).all() and (logits.grad[:, -1] != 0).all()


def test_a_relational_term_of_vectors_takes_the_answers_of_both_sides():
    said, taught = batch()
    states = [side[:, :-1] for side in (said.logits, taught.soft)]
    said = Said(logits=said.logits, states={"vector": states[0]})
    taught = Taught(soft=taught.soft, states={"vector": states[1]})
    term = build(spec.Spkd(student="vector", teacher="vector"), "embedding", Shapes.of(said, taught))
    assert float(term(said, taught).mean()) > 0.0
    assert float(term(said, Taught(soft=taught.soft, states={"vector": states[0]})).mean()) == 0.0
