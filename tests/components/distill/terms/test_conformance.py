"""What every term has to keep, whatever it measures."""

from dataclasses import replace
from typing import get_args

import msgspec
import pytest
import torch
from torch.nn import functional

from components.contracts.spec import objective as spec
from components.distill.data import MIN_SCALE, NO_TRUTH
from components.distill.terms import Objective, Said, Shapes, Taught, build
from tests.components.distill.terms.cases import CASES, cast, classification, each, learning, leaves, rows_of

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
padded = pytest.mark.parametrize("case", [c for c in CASES if c.positions], ids=lambda case: case.name)


def test_no_term_is_left_out():
    assert {type(case.section) for case in CASES} == set(get_args(spec.Term))


def huge(case):
    """Outputs and states of 1e4 either way, a teacher that is sure, attention on one position alone."""
    said, taught = case.batch()
    if case.task == "regression":
        values = torch.tensor([1e4, -1e4] * 3)
        scales = torch.tensor([MIN_SCALE, 1e4, MIN_SCALE] * 2)
        known = torch.tensor([-1e4, torch.nan] * 3)
        return Said(logits=torch.stack([values, scales], 1)), Taught(
            soft=torch.stack([-values, scales.flip(0)], 1), truth=known
        )  # fmt: skip
    if case.task == "multilabel":
        sure = (taught.soft > 0.5).float()
        return replace(said, logits=said.logits.sign() * 1e4), replace(taught, soft=sure)
    if case.task == "embedding":
        scales = torch.tensor([1e-4, 2.0] * 3).unsqueeze(1)
        return Said(logits=torch.cat([said.logits[:, :-1], scales], 1)), replace(
            taught, soft=torch.cat([-said.logits[:, :-1], scales.flip(0)], 1)
        )  # fmt: skip
    if said.logits is not None:
        one_hot = torch.nn.functional.one_hot(taught.soft.argmax(dim=-1), taught.soft.shape[-1]).float()
        there = taught.soft.sum(dim=-1, keepdim=True) > 0
        return replace(said, logits=said.logits.sign() * 1e4), replace(taught, soft=one_hot * there)
    if case.name.startswith("attention"):
        one_hot = {side: torch.zeros_like(s.states[side]) for side, s in (("s", said), ("t", taught))}
        one_hot["s"][..., 0], one_hot["t"][..., -1] = 1.0, 1.0
        return replace(said, states={"s": one_hot["s"]}), replace(taught, states={"t": one_hot["t"]})
    return each(said, lambda s: s.sign() * 1e4), each(taught, lambda t: t.sign() * 1e4)


def blank(case):
    """A student that says the same of everything: zeros."""
    said, taught = case.batch()
    if case.task == "regression":
        return Said(logits=torch.tensor([[0.0, 1.0]] * 6)), taught
    if case.task == "embedding":
        return Said(logits=torch.cat([torch.zeros(6, said.logits.shape[1] - 1), torch.ones(6, 1)], 1)), taught
    return each(said, torch.zeros_like), taught


def alike(case):
    """Rows that are all equal, on both sides."""
    return tuple(rows_of(side, [0] * 4) for side in case.batch())


def opposite(case):
    """Rows whose states, those of attention maps apart, are each the negative of the next."""
    said, taught = alike(case)
    if said.logits is not None or case.name.startswith("attention"):
        return said, taught
    signs = torch.tensor([1.0, -1.0] * 2)
    return tuple(each(side, lambda s: s * signs.view(-1, *[1] * (s.dim() - 1))) for side in (said, taught))


def alone(case):
    return case.batch(rows=1)


def all_padded(case):
    """Rows of which no position is real, beside one that is whole."""
    said, taught = case.batch()
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[0] = True
    return replace(said, mask=mask), replace(taught, mask=mask)


@every
@pytest.mark.parametrize(
    "extreme", [huge, blank, alike, opposite, alone, all_padded], ids=lambda extreme: extreme.__name__
)
def test_loss_and_gradients_are_finite(case, extreme):
    said, taught = extreme(case)
    said, term = learning(said), case.term()
    loss_B = term(said, taught)
    assert loss_B.shape == (len(taught.sample),) and torch.isfinite(loss_B).all()
    loss_B.sum().backward()
    for tensor in (*leaves(said), *term.parameters()):
        assert torch.isfinite(tensor.grad).all()


@padded
def test_a_row_without_a_real_position_has_nothing_to_learn(case):
    said, taught = all_padded(case)
    if case.name.startswith(("contrastive", "rkd", "pkt", "spkd")):  # its place among the others is a loss still
        said = learning(said)
        case.term()(said, taught).sum().backward()
        assert (said.states["s"].grad[1:] == 0).all()
    else:
        assert (case.term()(said, taught)[1:] == 0).all()


def agreeing(case, term):
    """A student that agrees with what it is taught, and the loss that it has then."""
    said, taught = case.batch(dtype=torch.float64)
    if isinstance(case.section, spec.Truth) and case.task == "regression":
        known = ~torch.isnan(taught.truth)
        at_truth = torch.where(known, taught.truth, said.logits[:, 0])
        scale = said.logits[:, 1]
        return Said(logits=torch.stack([at_truth, scale], 1)), taught, scale.log() * known
    if case.task == "multilabel":
        truth = isinstance(case.section, spec.Truth)
        wanted = torch.nan_to_num(taught.truth) if truth else taught.soft
        return Said(logits=torch.logit(wanted, eps=1e-9)), taught, torch.zeros(6)
    if isinstance(case.section, spec.Truth) and case.task == "tagging":
        target = torch.nn.functional.one_hot(taught.truth.clamp_min(0), 4)
        return Said(logits=target.double().clamp_min(1e-30).log()), taught, torch.zeros(6)
    if isinstance(case.section, spec.Truth):
        smoothing, known = case.section.smoothing, taught.truth != NO_TRUTH
        target = torch.nn.functional.one_hot(taught.truth.clamp_min(0), 4) * (1 - smoothing) + smoothing / 4
        entropy = -torch.special.xlogy(target, target).sum(dim=1)
        return Said(logits=target.double().clamp_min(1e-30).log()), taught, entropy * known
    if isinstance(case.section, spec.Normal | spec.Cosine):
        return Said(logits=taught.soft), taught, torch.zeros(6)
    if isinstance(case.section, spec.Distance):  # its vectors stay as they are: it teaches what they are expected to be
        apart = 1 - (said.logits[:, :-1] * taught.soft[:, :-1]).sum(dim=1, keepdim=True)
        return Said(logits=torch.cat([said.logits[:, :-1], apart], 1)), taught, apart.squeeze(1).log() + 1
    if said.logits is not None:
        return Said(logits=taught.soft.clamp_min(1e-30).log() + 3), taught, torch.zeros(6)  # a constant says nothing
    if isinstance(case.section, spec.Hidden):
        with torch.no_grad():
            state = said.states["s"]
            if case.name == "hidden-mixed":
                return said, replace(taught, states={"t": term.projection(state)}, mask=None), torch.zeros(6)
            return said, replace(taught, states={"t": term.projection(state)}), torch.zeros(6)
    states = {"t" + name[1:]: state for name, state in said.states.items()}
    return said, replace(taught, states=states), torch.zeros(6)


def allowed(case, moved, said):
    """What a student may say instead: vectors have length 1, and those of ``distance`` are not its to move."""
    if case.task != "embedding":
        return moved
    vectors, expected = moved.logits[:, :-1], moved.logits[:, -1:]
    own = said.logits[:, :-1] if isinstance(case.section, spec.Distance) else functional.normalize(vectors, dim=1)
    return Said(logits=torch.cat([own, expected], 1))


@pytest.mark.parametrize("case", [c for c in CASES if "contrastive" not in c.name], ids=lambda case: case.name)
def test_is_least_where_the_student_agrees(case):
    term = case.term(torch.float64)
    said, taught, least_B = agreeing(case, term)
    assert term(said, taught).detach().numpy() == pytest.approx(least_B.numpy(), abs=1e-6)
    generator = torch.Generator().manual_seed(1)
    for size in (0.01, 0.1, 0.4):
        moved = each(said, lambda s, size=size: s + size * torch.rand(s.shape, generator=generator).to(s))
        moved = allowed(case, moved, said)
        assert (term(moved, taught) >= least_B - 1e-6).all()
    other = replace(case.batch(seed=1, dtype=torch.float64)[0], mask=said.mask)
    if case.name == "truth-regression":  # of all students with the same scale, it is least for the one that is right
        other = Said(logits=torch.stack([other.logits[:, 0], said.logits[:, 1]], 1))
    assert term(other, taught).mean() > least_B.mean() + 1e-3


@pytest.mark.parametrize("case", [c for c in CASES if "contrastive" in c.name], ids=lambda case: case.name)
def test_a_contrast_is_less_for_the_row_s_own_state(case):
    term = case.term(torch.float64)
    said, taught = case.batch(dtype=torch.float64)
    with torch.no_grad():
        own = replace(taught, states={"t": term.projection(said.states["s"])})
        other = rows_of(own, [1, 2, 3, 4, 5, 0])
        assert (term(said, own) < term(said, other)).all()


@every
def test_the_gradient_is_the_numerical_one(case):
    said, taught = case.batch(rows=3, length=3, dtype=torch.float64)
    said, term = learning(said), case.term(torch.float64)
    names, parameters = list(said.states), list(term.parameters())
    fixed = None if said.logits is None else said.logits[:, :-1].detach().clone()

    def loss(*tensors):
        rest = list(tensors[: len(leaves(said))])
        logits = None if said.logits is None else rest.pop(0)
        if isinstance(case.section, spec.Distance):  # its vectors are taken as they are
            logits = torch.cat([fixed, logits[:, -1:]], 1)
        return term(Said(logits=logits, states=dict(zip(names, rest, strict=True)), mask=said.mask), taught)

    assert torch.autograd.gradcheck(loss, (*leaves(said), *parameters))


def lengthened(side):
    """Three more positions, which hold no numbers and are not real."""

    def longer(state):
        grown = (2, 3) if state.dim() == 4 else (1,)
        more = [size + 3 * (i in grown) for i, size in enumerate(state.shape)]
        room = torch.full(more, torch.nan, dtype=state.dtype)
        room[tuple(slice(size) for size in state.shape)] = state
        return room

    states = {name: longer(state) for name, state in side.states.items()}
    mask = torch.nn.functional.pad(side.mask, (0, 3), value=False)
    return replace(side, states=states, mask=mask)


@padded
@pytest.mark.parametrize("sides", ["both", "student", "teacher"])
def test_more_padding_changes_nothing(case, sides):
    said, taught = case.batch(dtype=torch.float64)
    term = case.term(torch.float64)
    plain = learning(said)
    longer = learning(lengthened(said) if sides != "teacher" else said)
    further = lengthened(taught) if sides != "student" else taught
    before_B, after_B = term(plain, taught), term(longer, further)
    assert torch.allclose(before_B, after_B, atol=1e-12)
    before_B.sum().backward()
    after_B.sum().backward()
    for short, long in zip(leaves(plain), leaves(longer), strict=True):
        inner = tuple(slice(size) for size in short.shape)
        assert torch.allclose(short.grad, long.grad[inner], atol=1e-12)
        outer = long.grad.clone()
        outer[inner] = 0
        assert (outer == 0).all()


@padded
def test_no_mask_is_a_mask_that_is_all_real(case):
    said, taught = case.batch(rows=3)
    whole = torch.ones(3, 5, dtype=torch.bool)
    term = case.term()
    none = term(replace(said, mask=None), replace(taught, mask=None))
    assert torch.allclose(none, term(replace(said, mask=whole), replace(taught, mask=whole)), atol=1e-6)


@padded
def test_the_mask_is_looked_at(case):
    said, taught = case.batch()
    fewer = said.mask.clone()
    fewer[0, -2:] = False
    term = case.term()
    cut = term(replace(said, mask=fewer), replace(taught, mask=fewer))
    assert not torch.allclose(term(said, taught)[0], cut[0], atol=1e-4)


@every
def test_the_order_of_the_batch_is_of_no_account(case):
    said, taught = case.batch(dtype=torch.float64)
    term, order = case.term(torch.float64), [3, 0, 5, 1, 4, 2]
    moved_B = term(rows_of(said, order), rows_of(taught, order))
    assert torch.allclose(moved_B, term(said, taught)[order], atol=1e-12)
    assert torch.equal(term.applies(rows_of(taught, order)), term.applies(taught)[order])


@every
def test_says_whether_a_row_s_loss_depends_on_the_others(case):
    said, taught = case.batch(dtype=torch.float64)
    term, some = case.term(torch.float64), [0, 2, 3]
    apart_B = term(rows_of(said, some), rows_of(taught, some))
    assert torch.allclose(apart_B, term(said, taught)[some], atol=1e-12) == term.per_row


@every
def test_its_weight_is_the_gradient_s_size(case):
    said, taught = case.batch()
    sizes = []
    for weight in (1.0, 2.0):
        student = learning(said)
        section = msgspec.structs.replace(case.section, weight=weight)
        total, parts = Objective([section], case.task, case.shapes())(student, taught, 0.5)
        assert parts[section.name] == pytest.approx(float(total.detach()))
        total.backward()
        sizes.append(torch.cat([leaf.grad.flatten() for leaf in leaves(student)]))
    assert sizes[0].abs().max() > 1e-4
    assert torch.allclose(2 * sizes[0], sizes[1])


@pytest.mark.parametrize("case", [c for c in CASES if not c.section.outputs], ids=lambda case: case.name)
def test_it_adds_to_a_divergence_of_outputs(case):
    """Beside another term, too: the gradient at what it reads is its own."""
    said, taught = case.batch()
    outputs, labels = classification(6, 0, torch.Generator().manual_seed(0))
    student = learning(replace(said, logits=outputs.logits))
    objective = Objective([spec.Kl(weight=0.7), case.section], "classification", case.shapes())
    total, parts = objective(student, replace(taught, soft=labels.soft), 0.0)
    total.backward()
    assert all(leaf.grad.abs().max() > 1e-4 for leaf in leaves(student))
    assert float(sum(parts.values())) == pytest.approx(float(total.detach())) and len(parts) == 2


@every
def test_half_precision_is_compared_in_full(case):
    said, taught = case.batch()
    loss_B = case.term()(cast(said, torch.bfloat16), cast(taught, torch.float16))
    assert loss_B.dtype == torch.float32
    near = cast(cast(said, torch.bfloat16), torch.float32), cast(cast(taught, torch.float16), torch.float32)
    assert torch.allclose(loss_B, case.term()(*near), atol=1e-5)


@pytest.mark.parametrize("case", [c for c in CASES if c.task == "tagging"], ids=lambda case: case.name)
def test_tokens_behind_a_text_change_nothing_and_long_texts_count_like_short_ones(case):
    said, taught = case.batch(rows=2, length=4)
    term = case.term()
    pad = torch.nn.functional.pad
    longer = Said(logits=pad(said.logits, (0, 0, 0, 3), value=7.0))
    further = replace(taught, soft=pad(taught.soft, (0, 0, 0, 3)), truth=pad(taught.truth, (0, 3), value=NO_TRUTH))
    assert torch.allclose(term(longer, further), term(said, taught), atol=1e-6)
    twice = [torch.cat([t, t], dim=1) for t in (said.logits[:1], taught.soft[:1], taught.truth[:1])]
    doubled = term(Said(logits=twice[0]), replace(taught, soft=twice[1], truth=twice[2]))
    assert torch.allclose(doubled, term(said, taught)[:1], atol=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES if c.task == "tagging"], ids=lambda case: case.name)
def test_a_text_without_a_token_has_nothing_to_learn(case):
    said, taught = case.batch(rows=2)
    none = replace(taught, soft=taught.soft * 0, truth=torch.full_like(taught.truth, NO_TRUTH))
    student = learning(said)
    loss = case.term()(student, none)
    assert (loss == 0).all()
    loss.sum().backward()
    assert (student.logits.grad == 0).all()


def test_the_loss_of_tokens_is_the_mean_of_that_of_classes():
    said, taught = next(c for c in CASES if c.name == "token-kl").batch(rows=1, length=3, dtype=torch.float64)
    taught = replace(taught, soft=torch.softmax(said.logits.flip(2), dim=2))
    by_token = build(spec.Kl(temperature=2), "classification", Shapes())(
        Said(logits=said.logits[0]), Taught(soft=taught.soft[0])
    )
    found = build(spec.TokenKl(temperature=2), "tagging", Shapes())(said, taught)
    assert torch.allclose(found, by_token.mean().unsqueeze(0), atol=1e-9)
