import math
from dataclasses import replace

import pytest
import torch

from components.contracts.errors import ConfigError
from components.contracts.spec import objective as spec
from components.distill.data import NO_TRUTH
from components.distill.terms import Objective, Said, Shapes, Taught, build, scheduled
from components.distill.terms.kl import KlTerm
from tests.components.distill.terms.before import classification_loss, regression_loss
from tests.components.distill.terms.cases import classification, learning, normals, sequences, vectors

GENERATOR = 7
INSIDE = {"student": "s", "teacher": "t"}


def drawn(draw, rows=40):
    return draw(rows, 5, torch.Generator().manual_seed(GENERATOR))


def mixture(weight, temperature=2.0):
    return [spec.Kl(weight=1 - weight, temperature=temperature), spec.Truth(weight=weight)]


@pytest.mark.parametrize("weight", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_a_divergence_and_truth_are_the_loss_there_was(weight, temperature):
    said, taught = drawn(classification)
    said = learning(said)
    total, _ = Objective(mixture(weight, temperature), "classification")(said, taught, 0.5)
    old = classification_loss(
        said.logits, taught.soft, taught.truth, temperature=temperature, truth_weight=weight
    )  # fmt: skip
    assert float(total.detach()) == pytest.approx(float(old.detach()), abs=1e-6)
    ours, theirs = (torch.autograd.grad(loss, said.logits)[0] for loss in (total, old))
    assert torch.allclose(ours, theirs, atol=1e-7)


@pytest.mark.parametrize("weight", [0.05, 0.3, 0.9])
def test_a_normal_and_truth_are_the_loss_there_was(weight):
    said, taught = drawn(normals)
    said = learning(said)
    terms = [spec.Normal(weight=1 - weight), spec.Truth(weight=weight)]
    total, _ = Objective(terms, "regression")(said, taught, 0.5)
    old = regression_loss(*said.logits.unbind(1), taught.soft, taught.truth, truth_weight=weight)
    assert float(total.detach()) == pytest.approx(float(old.detach()), rel=1e-6)
    ours, theirs = (torch.autograd.grad(loss, said.logits)[0] for loss in (total, old))
    assert torch.allclose(ours, theirs, rtol=1e-5)


def test_a_weight_that_cannot_be_used_goes_to_the_outputs_in_proportion():
    _, taught = drawn(classification, rows=3)
    said_states, taught_states = drawn(vectors(), rows=3)
    terms = [
        spec.Kl(weight=0.6), spec.MseLogits(weight=0.2), spec.Truth(weight=0.4), spec.Pkt(weight=5, **INSIDE)
    ]  # fmt: skip
    objective = Objective(terms, "classification", Shapes.of(said_states, taught_states))
    known = Taught(soft=taught.soft, truth=torch.tensor([0, NO_TRUTH, 1]), states=taught_states.states)
    weights = objective.weights(known, 0.0)
    assert torch.allclose(weights[:, 0], torch.tensor([0.6, 0.2, 0.4, 5.0]))
    assert torch.allclose(weights[:, 1], torch.tensor([0.9, 0.3, 0.0, 5.0]))
    assert torch.equal(weights[:, 0], weights[:, 2])


def test_a_weight_that_nobody_can_take_is_lost():
    said, taught = drawn(classification)
    objective = Objective([spec.Truth(weight=100)], "classification")
    unknown = Taught(soft=taught.soft, truth=torch.full((40,), NO_TRUTH))
    total, parts = objective(said, unknown, 0.0)
    assert total == parts["truth"] == 0
    assert (objective.weights(unknown, 0.0) == 0).all()
    assert (objective.weights(Taught(soft=taught.soft), 0.0) == 0).all()


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear-warmup", [0, 0.25, 0.5, 0.75, 1]),
        ("linear-decay", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine-warmup", [0, (1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1]),
        ("cosine-decay", [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
    ],
)
def test_a_schedule_has_the_values_that_it_says(schedule, values):
    points = (0.0, 0.25, 0.5, 0.75, 1.0)
    assert [scheduled(schedule, at) for at in points] == pytest.approx(values, abs=1e-12)
    said, taught = drawn(classification)
    kl = KlTerm(spec.Kl())(said, taught).mean()
    objective = Objective([spec.Kl(weight=3, schedule=schedule)], "classification")
    for at, value in zip(points, values, strict=True):
        total, parts = objective(said, taught, at)
        assert float(total) == pytest.approx(3 * value * float(kl), abs=1e-6)
        assert parts["kl"] == total


def test_every_schedule_is_named():
    assert set(spec.Schedule.__args__) == {
        "constant", "linear-warmup", "linear-decay", "cosine-warmup", "cosine-decay"
    }  # fmt: skip


def test_what_truth_cannot_use_is_not_lost_where_the_others_have_not_begun():
    _, taught = drawn(classification)
    terms = [
        spec.Kl(weight=0.3, schedule="linear-warmup"),
        spec.MseLogits(weight=0.1, schedule="linear-warmup"),
        spec.Truth(weight=0.4),
    ]
    weights = Objective(terms, "classification").weights(taught, 0.0)
    without = taught.truth == NO_TRUTH
    assert torch.allclose(weights[:, without], torch.tensor([[0.3], [0.1], [0.0]]))
    assert torch.allclose(weights[:, ~without], torch.tensor([[0.0], [0.0], [0.4]]))


def test_says_each_term_s_part_and_they_add_up():
    said, taught = drawn(classification)
    total, parts = Objective(mixture(0.3), "classification")(learning(said), taught, 0.5)
    assert list(parts) == ["kl", "truth"] and not any(part.requires_grad for part in parts.values())
    assert all(part > 0 for part in parts.values())
    assert float(sum(parts.values())) == pytest.approx(float(total.detach()))


def test_says_the_loss_of_each_row():
    said, taught = drawn(classification)
    objective = Objective(mixture(0.3), "classification")
    total, _ = objective(said, taught, 0.5)
    assert float(objective.losses(said, taught, 0.5).sum(dim=0).mean()) == pytest.approx(float(total))
    assert objective.per_row
    assert not Objective([spec.Pkt(**INSIDE)], "classification", Shapes(student={"s": 2}, teacher={"t": 3})).per_row


MIXTURES = {
    "kl and truth": (mixture(0.3), classification, "classification"),
    "standardised, backwards": (
        [spec.Kl(weight=0.5, standardise=True, direction="reverse"), spec.Kl(weight=0.5, temperature=3.0)],
        classification,
        "classification",
    ),
    "changing": ([spec.Kl(schedule="cosine-decay"), spec.Truth()], classification, "classification"),
    "normal": ([spec.Normal(weight=0.6), spec.Truth(weight=0.4)], normals, "regression"),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_what_was_prepared_of_rows_changes_no_batch_s_loss_parts_or_gradient(name):
    terms, draw, task = MIXTURES[name]
    objective = Objective(terms, task)
    said, taught = draw(40, 5, torch.Generator().manual_seed(GENERATOR))
    ready = objective.prepared(taught)
    rows = torch.tensor([3, 1, 7, 20, 39])
    few = learning(Said(logits=said.logits[rows]))
    batch = Taught(soft=taught.soft[rows], truth=taught.truth[rows])
    prepared = replace(batch, ready={name: tensor[rows] for name, tensor in ready.items()})
    (plain, parts), (quick, quick_parts) = objective(few, batch, 0.3), objective(few, prepared, 0.3)
    assert float(quick.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    assert {n: pytest.approx(float(p), rel=1e-6) for n, p in parts.items()} == {
        n: float(p) for n, p in quick_parts.items()
    }
    ours, theirs = (torch.autograd.grad(loss, few.logits)[0] for loss in (quick, plain))
    assert torch.allclose(ours, theirs, atol=1e-7)


def test_a_term_that_counts_nothing_of_any_row_is_not_computed(monkeypatch):
    """As truth is where none is known: it took a tenth of a small student's step."""
    objective = Objective(mixture(0.3), "classification")
    said, taught = drawn(classification)
    unknown = replace(taught, truth=torch.full((40,), NO_TRUTH))
    ready = replace(unknown, ready=objective.prepared(unknown))
    plain, _ = objective(said, unknown, 0.0)
    monkeypatch.setattr(objective.terms[1], "forward", lambda *_: pytest.fail("truth was computed"))
    total, parts = objective(said, ready, 0.0)
    assert float(total) == pytest.approx(float(plain), rel=1e-6) and float(parts["truth"]) == 0.0


def test_projections_are_the_seed_s_and_leave_torch_s_generator_alone():
    shapes, terms = Shapes(student={"s": 3}, teacher={"t": 5}), [spec.Kl(), spec.Hidden(project="mlp", **INSIDE)]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (Objective(terms, "classification", shapes, seed=seed).state_dict() for seed in (4, 4, 5))
    assert torch.equal(before, torch.get_rng_state())
    assert first.keys() == {f"terms.1.projection.{name}" for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_projections_are_learnt():
    said, taught = drawn(vectors())
    objective = Objective([spec.Hidden(**INSIDE)], "classification", Shapes.of(said, taught))
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        total, _ = objective(said, taught, 0.0)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.9 * losses[0]


def refused(terms, shapes=None):
    with pytest.raises(ConfigError) as caught:
        Objective(terms, "classification", shapes)
    return str(caught.value)


def test_a_state_that_is_not_there_is_named_with_those_that_are():
    terms = [spec.Kl(), spec.Pkt(student="pooled", teacher="embedding")]
    shapes = Shapes(student={"pooled": 4}, teacher={"layer.1": 4, "layer.2": 4})
    assert refused(terms, shapes) == (
        "student.objective[1].teacher is 'embedding': is no state of the teacher, which has layer.1, layer.2"
    )
    assert refused(terms) == (
        "student.objective[1].student is 'pooled': is no state of the student, which gives no states: "
        "leave the term out"
    )  # fmt: skip


def test_widths_that_do_not_fit_name_the_remedy():
    shapes = Shapes(student={"s": 8}, teacher={"t": 12})
    assert "student.objective[0].project is 'none'" in refused([spec.Hidden(project="none", **INSIDE)], shapes)
    parts = {f"{part}": 8 for part in ("s.query", "s.key", "s.value")}
    shapes = Shapes(student=parts, teacher={"t" + name[1:]: 12 for name in parts})
    message = refused([spec.Kl(), spec.Relation(heads=8, **INSIDE)], shapes)
    assert message == (
        "student.objective[1].heads is 8: must divide the width of t.query, 12: one of 1, 2, 3, 4, 6, 12"
    )  # fmt: skip


def test_a_state_that_is_missing_in_a_batch_is_named():
    said, taught = drawn(vectors())
    objective = Objective([spec.Pkt(**INSIDE)], "classification", Shapes.of(said, taught))
    with pytest.raises(ConfigError, match="teacher state is 't': the teacher gives u"):
        objective(said, Taught(soft=None, states={"u": taught.states["t"]}), 0.0)
    with pytest.raises(ConfigError, match="needs rows that the teacher labelled"):
        Objective([spec.Kl()], "classification")(said, taught, 0.0)


def test_sequences_that_are_cut_otherwise_are_not_compared_position_by_position():
    said, taught = drawn(sequences())
    term = build(spec.Hidden(**INSIDE), "classification", Shapes.of(said, taught))
    moved = Taught(soft=None, states=taught.states, mask=taught.mask.flip(1))
    with pytest.raises(ConfigError, match="real at other places"):
        term(said, moved)
    with pytest.raises(ConfigError, match="real at other places"):
        term(Said(logits=None, states=said.states), taught)  # no mask: all are real
    with pytest.raises(ConfigError, match="real at other places"):
        term(Said(logits=None, states={"s": said.states["s"][:, :3]}, mask=said.mask[:, :3]), taught)


@pytest.mark.parametrize(
    ("section", "student", "message"),
    [
        (spec.Attention(**INSIDE), (4, 5, 8), "no attention map"),
        (spec.Attention(**INSIDE), (4, 2, 5, 8), "no attention map"),
        (spec.Hidden(**INSIDE), (4, 2, 5, 8), "must be"),
        (spec.Relation(of=("query",), heads=4, **INSIDE), (4, 8), "has no positions"),
    ],
)
def test_a_state_of_another_shape_is_refused(section, student, message):
    said = Said(logits=None, states=dict.fromkeys(section.student_states, torch.zeros(student)))
    taught = Taught(soft=None, states=dict.fromkeys(section.teacher_states, torch.zeros(4, 8)))
    with pytest.raises(ConfigError, match=message):
        build(section, "classification", Shapes.of(said, taught))(said, taught)


def test_one_side_s_gradient_is_not_the_other_s():
    """The teacher's tensors are data: what is learnt is the student alone."""
    said, taught = drawn(sequences())
    student = learning(said)
    objective = Objective([spec.Rkd(**INSIDE)], "classification", Shapes.of(said, taught))
    objective(student, taught, 0.0)[0].backward()
    assert student.states["s"].grad.abs().sum() > 0 and taught.states["t"].grad is None


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_mixture_is_that_of_the_formula(weight):
    """``(1 - w) T² KL + w CE`` where the truth is known, ``T² KL`` where it is not, from the definitions."""
    soft, truth = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]]), torch.tensor([2, NO_TRUTH])
    logits = torch.tensor([[0.5, -0.2, 0.1], [0.0, 0.3, 0.4]])
    kl = []
    for p, q in zip(soft.clamp_min(1e-6).sqrt(), torch.softmax(logits / 2, dim=1), strict=True):
        p = p / p.sum()
        kl.append(4 * float((p * (p / q).log()).sum()))
    hard = -float(torch.log_softmax(logits, dim=1)[0, 2])
    terms = [spec.Kl(weight=1 - weight), *([spec.Truth(weight=weight)] if weight else [])]
    total, parts = Objective(terms, "classification")(Said(logits=logits), Taught(soft=soft, truth=truth), 0.0)
    assert float(total) == pytest.approx(((1 - weight) * kl[0] + weight * hard + kl[1]) / 2, rel=1e-5)
    assert float(parts["kl"]) == pytest.approx(((1 - weight) * kl[0] + kl[1]) / 2, rel=1e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse", "jensen-shannon"])
def test_gradients_keep_their_size_at_any_temperature(direction):
    sizes = []
    for temperature in (1.0, 20.0):
        said = learning(Said(logits=torch.tensor([[0.4, 0.2, 0.0], [0.0, 0.4, 0.2]])))
        soft = torch.softmax(torch.tensor([[0.2, 0.4, 0.0], [0.0, 0.0, 0.4]]), dim=1)
        KlTerm(spec.Kl(temperature=temperature, direction=direction))(said, Taught(soft=soft)).sum().backward()
        sizes.append(float(said.logits.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
