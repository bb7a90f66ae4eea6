"""Each term's values against its formula, written out in NumPy row by row."""

import numpy as np
import pytest
import torch

from components.contracts.spec import objective as spec
from tests.components.distill.terms.cases import CASES

FLOOR = 1e-6


def softmax(logits):
    powers = np.exp(logits - np.max(logits))
    return powers / powers.sum()


def kl(p, q):
    return sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def at_temperature(soft, temperature):
    powers = np.maximum(soft, FLOOR) ** (1 / temperature)
    return powers / powers.sum()


def z_scores(logits):
    return (logits - logits.mean()) / np.sqrt(logits.var() + 1e-6)


def divergence(section, logits, soft, _truth):
    t = section.temperature
    if section.standardise:
        p, q = softmax(z_scores(np.log(np.maximum(soft, FLOOR))) / t), softmax(z_scores(logits) / t)
    else:
        p, q = at_temperature(soft, t), softmax(logits / t)
    if section.direction == "forward":
        return t**2 * kl(p, q)
    if section.direction == "reverse":
        return t**2 * kl(q, p)
    mixture = section.beta * p + (1 - section.beta) * q
    return t**2 * (section.beta * kl(p, mixture) + (1 - section.beta) * kl(q, mixture))


def decoupled(section, logits, soft, truth):
    t = section.temperature
    p, q = at_temperature(soft, t), softmax(logits / t)
    target = int(truth) if truth >= 0 else int(np.argmax(soft))
    ours, theirs = np.delete(q, target), np.delete(p, target)
    of_target = kl([p[target], 1 - p[target]], [q[target], 1 - q[target]])
    of_others = kl(theirs / theirs.sum(), ours / ours.sum())
    return t**2 * (section.alpha * of_target + section.beta * of_others)


def squared_logits(_section, logits, soft, _truth):
    teacher = np.log(np.maximum(soft, FLOOR))
    return np.mean(((logits - logits.mean()) - (teacher - teacher.mean())) ** 2)


def truth_of_class(section, logits, _soft, truth):
    if truth < 0:
        return 0.0
    target = np.full(len(logits), section.smoothing / len(logits))
    target[int(truth)] += 1 - section.smoothing
    return -np.sum(target * np.log(softmax(logits)))


def truth_of_value(_section, output, _soft, truth):
    value, scale = output
    return 0.0 if np.isnan(truth) else np.log(scale) + (truth - value) ** 2 / (2 * scale**2)


def normals(_section, output, soft, _truth):
    (value, scale), (mean, deviation) = output, soft
    return np.log(scale / deviation) + (deviation**2 + (mean - value) ** 2) / (2 * scale**2) - 0.5


def chances(section, logits, soft, _truth):
    t = section.temperature
    kept = np.clip(soft, FLOOR, 1 - FLOOR)
    p = 1 / (1 + np.exp(-np.log(kept / (1 - kept)) / t))
    q = 1 / (1 + np.exp(-logits / t))
    return t**2 * sum(kl([a, 1 - a], [b, 1 - b]) for a, b in zip(p, q, strict=True))


def truth_of_set(_section, logits, _soft, truth):
    if np.isnan(truth).any():
        return 0.0
    q = 1 / (1 + np.exp(-logits))
    return -sum(np.log(b if y else 1 - b) for y, b in zip(truth, q, strict=True))


def cosines(_section, output, soft, _truth):
    return 1 - cosine(output[:-1], soft[:-1])


def distances(_section, output, soft, _truth):
    return np.log(output[-1]) + (1 - cosine(output[:-1], soft[:-1])) / output[-1]


def of_tokens(section, logits, soft, _truth):
    there = [
        divergence(spec.Kl(temperature=section.temperature), z, p, None)
        for z, p in zip(logits, soft, strict=True)
        if p.sum() > 0
    ]
    return sum(there) / len(there)


def truth_of_tokens(section, logits, _soft, truth):
    known = [truth_of_class(section, z, None, t) for z, t in zip(logits, truth, strict=True) if t >= 0]
    return sum(known) / max(1, len(known))


OUTPUTS = {
    spec.Kl: divergence, spec.Dkd: decoupled, spec.MseLogits: squared_logits, spec.Normal: normals,
    spec.Bernoulli: chances,
    spec.Cosine: cosines, spec.Distance: distances,
    spec.TokenKl: of_tokens,
}  # fmt: skip


def project(term, vector):
    """The projection of one vector, with the module's weights and none of its code."""
    weights = [p.detach().numpy() for p in getattr(term, "projection", torch.nn.Identity()).parameters()]
    if len(weights) == 4:  # the hidden layer's activation: x times the normal's distribution function
        inner = weights[0] @ vector + weights[1]
        vector, weights = inner * torch.special.ndtr(torch.from_numpy(inner)).numpy(), weights[2:]
    return weights[0] @ vector + weights[1] if weights else vector


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def real_of(state, mask, row):
    """A row's vectors at its real positions."""
    return (
        state[row][None]
        if state.ndim == 2
        else state[row][np.ones(state.shape[1], bool) if mask is None else mask[row]]
    )


def means(state, mask):
    return [real_of(state, mask, row).mean(axis=0) for row in range(len(state))]


def hidden(term, said, taught):
    section, losses = term.term, []
    for row in range(len(said["s"])):
        ours, theirs = real_of(said["s"], said["mask"], row), real_of(taught["t"], taught["mask"], row)
        if len(ours) != len(theirs):
            ours, theirs = [ours.mean(axis=0)], [theirs.mean(axis=0)]
        pairs = [(project(term, a), b) for a, b in zip(ours, theirs, strict=True)]
        mse = section.distance == "mse"
        losses.append(np.mean([np.mean((a - b) ** 2) if mse else 1 - cosine(a, b) for a, b in pairs]))
    return losses


def attention(term, said, taught):
    losses = []
    for row, mask in enumerate(said["mask"]):
        sides = [side[row][:, mask][:, :, mask] for side in (taught["t"], said["s"])]
        if len(sides[0]) != len(sides[1]):
            sides = [side.mean(axis=0, keepdims=True) for side in sides]
        if term.term.distance == "mse":
            losses.append(np.mean((sides[0] - sides[1]) ** 2))
        else:
            heads, length, _ = sides[0].shape
            losses.append(np.mean([kl(sides[0][h, i], sides[1][h, i]) for h in range(heads) for i in range(length)]))
    return losses


def relation(term, said, taught):
    losses = []
    for row, mask in enumerate(said["mask"]):
        found = []
        for part in term.term.of:
            teacher, student = taught[f"t.{part}"][row][mask], said[f"s.{part}"][row][mask]
            for head in range(term.term.heads):
                tables = []
                for state in (teacher, student):
                    width = state.shape[1] // term.term.heads
                    own = state[:, head * width : (head + 1) * width]
                    tables.append([softmax(own @ x / np.sqrt(width)) for x in own])
                found += [kl(p, q) for p, q in zip(*tables, strict=True)]
        losses.append(np.mean(found))
    return losses


def contrastive(term, said, taught):
    ours = [project(term, x) for x in means(said["s"], said["mask"])]
    theirs = means(taught["t"], taught["mask"])
    near = [[cosine(a, b) / term.term.temperature for b in theirs] for a in ours]
    return [-np.log(softmax(np.array(row))[i]) for i, row in enumerate(near)]


def huber(error):
    return 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5


def rkd(term, said, taught):
    ours, theirs = means(said["s"], said["mask"]), means(taught["t"], taught["mask"])
    count, losses = len(ours), []

    def relative(states):
        table = np.array([[np.linalg.norm(a - b) for b in states] for a in states])
        return table / table[table > 0].mean()

    def angle(states, i, j, k):
        return 0.0 if i in (j, k) else cosine(states[j] - states[i], states[k] - states[i])

    d_ours, d_theirs = relative(ours), relative(theirs)
    for i in range(count):
        distances = np.mean([huber(d_ours[i, j] - d_theirs[i, j]) for j in range(count)])
        angles = np.mean(
            [huber(angle(ours, i, j, k) - angle(theirs, i, j, k)) for j in range(count) for k in range(count)]
        )
        losses.append(term.term.distances * distances + term.term.angles * angles)
    return losses


def pkt(_term, said, taught):
    def near(states):
        table = np.array([[(1 + cosine(a, b)) / 2 for b in states] for a in states])
        return table / table.sum(axis=1, keepdims=True)

    ours, theirs = near(means(said["s"], said["mask"])), near(means(taught["t"], taught["mask"]))
    return [kl(p, q) for p, q in zip(theirs, ours, strict=True)]


def spkd(_term, said, taught):
    def products(states):
        table = np.array([[a @ b for b in states] for a in states])
        return table / np.linalg.norm(table, axis=1, keepdims=True)

    ours, theirs = products(means(said["s"], said["mask"])), products(means(taught["t"], taught["mask"]))
    return np.mean((ours - theirs) ** 2, axis=1)


INSIDE = {
    spec.Hidden: hidden, spec.Attention: attention, spec.Relation: relation, spec.Contrastive: contrastive,
    spec.Rkd: rkd, spec.Pkt: pkt, spec.Spkd: spkd,
}  # fmt: skip


def arrays(side):
    return {name: state.numpy() for name, state in side.states.items()} | {
        "mask": None if side.mask is None else side.mask.numpy()
    }


def expected(case, term, said, taught):
    if type(case.section) in INSIDE:
        return INSIDE[type(case.section)](term, arrays(said), arrays(taught))
    truths = {"regression": truth_of_value, "multilabel": truth_of_set, "tagging": truth_of_tokens}
    formula = OUTPUTS.get(type(case.section)) or truths.get(case.task, truth_of_class)
    columns = (said.logits.numpy(), taught.soft.numpy(), taught.truth.numpy())
    return [formula(case.section, *row) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_term_is_its_formula(case, seed):
    said, taught = case.batch(rows=5, length=4, seed=seed, dtype=torch.float64)
    term = case.term(torch.float64, seed)
    found_B = term(said, taught).detach().numpy()
    # The floors under attention and lengths, which the formulas do not have, are less than this.
    assert found_B == pytest.approx(np.array(expected(case, term, said, taught)), rel=1e-5, abs=1e-7)
