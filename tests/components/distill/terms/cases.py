"""Every term, and batches for it: what the conformance suite runs over."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from components.contracts.spec.objective import (
    Attention,
    Bernoulli,
    Contrastive,
    Cosine,
    Distance,
    Dkd,
    Hidden,
    Kl,
    MseLogits,
    Normal,
    Pkt,
    Relation,
    Rkd,
    Spkd,
    Term,
    TokenKl,
    Truth,
)
from components.distill.data import NO_TRUTH
from components.distill.terms import Said, Shapes, Taught, build

torch.set_num_threads(1)

CLASSES, STUDENT_WIDTH, TEACHER_WIDTH = 4, 8, 12
PARTS = ("query", "key", "value")


def classification(rows, _length, generator):
    logits = torch.randn(rows, CLASSES, generator=generator)
    soft = torch.softmax(2 * torch.randn(rows, CLASSES, generator=generator), dim=1)
    truth = torch.randint(0, CLASSES, (rows,), generator=generator)
    truth[1::3] = NO_TRUTH
    return Said(logits=logits), Taught(soft=soft, truth=truth)


def normals(rows, _length, generator):
    values, scales = torch.randn(2, rows, 2, generator=generator).unbind(0)
    said, soft = torch.stack([values, (scales / 3).exp()]).unbind(2)
    truth = torch.randn(rows, generator=generator)
    truth[1::3] = torch.nan
    return Said(logits=torch.stack([said[0], said[1]], 1)), Taught(
        soft=torch.stack([soft[0], soft[1]], 1), truth=truth
    )  # fmt: skip


def sets(rows, _length, generator):
    """Several classes in a row, or none."""
    logits = torch.randn(rows, CLASSES, generator=generator)
    soft = torch.sigmoid(2 * torch.randn(rows, CLASSES, generator=generator))
    truth = torch.randint(0, 2, (rows, CLASSES), generator=generator).float()
    truth[1::3] = torch.nan
    return Said(logits=logits), Taught(soft=soft, truth=truth)


def tokens(rows, length, generator):
    """Texts of 1 to ``length`` tokens; behind them nothing is taught. Of a third of them nothing is true."""
    real = lengths(rows, length, generator)
    logits = torch.randn(rows, length, CLASSES, generator=generator)
    soft = torch.softmax(2 * torch.randn(rows, length, CLASSES, generator=generator), dim=2) * real.unsqueeze(2)
    truth = torch.randint(0, CLASSES, (rows, length), generator=generator).masked_fill(~real, NO_TRUTH)
    truth[1::3] = NO_TRUTH
    return Said(logits=logits), Taught(soft=soft, truth=truth)


def directions(rows, _length, generator):
    said, soft = (functional.normalize(torch.randn(rows, STUDENT_WIDTH, generator=generator), dim=1) for _ in range(2))
    expected, scales = (torch.randn(2, rows, 1, generator=generator) / 3).exp().unbind(0)
    truth = torch.full((rows,), torch.nan)
    return Said(logits=torch.cat([said, expected], 1)), Taught(soft=torch.cat([soft, scales], 1), truth=truth)


def vectors(student=STUDENT_WIDTH, teacher=TEACHER_WIDTH):
    def batch(rows, _length, generator):
        states = [torch.randn(rows, width, generator=generator) for width in (student, teacher)]
        return Said(logits=None, states={"s": states[0]}), Taught(soft=None, states={"t": states[1]})

    return batch


def lengths(rows, length, generator):
    """A mask whose first row is full, so that no position is padded in every row."""
    real = torch.randint(1, length + 1, (rows,), generator=generator)
    real[0] = length
    return torch.arange(length) < real.unsqueeze(1)


def sequences(student=STUDENT_WIDTH, teacher=TEACHER_WIDTH, parts=("",)):
    def batch(rows, length, generator):
        mask = lengths(rows, length, generator)
        said, taught = (
            {
                f"{side}{part}": torch.randn(rows, length, width, generator=generator) * mask.unsqueeze(2)
                for part in parts
            }
            for side, width in (("s", student), ("t", teacher))
        )
        return Said(logits=None, states=said, mask=mask), Taught(soft=None, states=taught, mask=mask)

    return batch


def mixed(rows, length, generator):
    """A student of one vector a row, a teacher of one a position."""
    said, _ = vectors()(rows, length, generator)
    _, taught = sequences()(rows, length, generator)
    return said, taught


def maps(student=2, teacher=2):
    def batch(rows, length, generator):
        mask = lengths(rows, length, generator)
        sides = []
        for heads in (student, teacher):
            scores = torch.randn(rows, heads, length, length, generator=generator)
            scores = scores.masked_fill(~mask[:, None, None, :], -1e9)
            sides.append(torch.softmax(scores, dim=-1))
        return Said(logits=None, states={"s": sides[0]}, mask=mask), Taught(
            soft=None, states={"t": sides[1]}, mask=mask
        )  # fmt: skip

    return batch


@dataclass(frozen=True)
class Case:
    name: str
    section: Term
    draw: Callable
    task: str = "classification"
    positions: bool = False
    """Whether the student's states have positions that can be padded."""

    def batch(self, rows=6, length=5, seed=0, dtype=torch.float32):
        said, taught = self.draw(rows, length, torch.Generator().manual_seed(seed))
        return cast(said, dtype), cast(taught, dtype)

    def shapes(self):
        return Shapes.of(*self.batch())

    def term(self, dtype=torch.float32, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(self.section, self.task, self.shapes()).to(dtype)


def each(side, change):
    """A side with every floating tensor of it changed, the mask and classes as they are."""
    changed = {name: change(state) for name, state in side.states.items()}
    if isinstance(side, Said):
        return replace(side, logits=None if side.logits is None else change(side.logits), states=changed)
    truth = side.truth if side.truth is None or not side.truth.is_floating_point() else change(side.truth)
    return replace(side, soft=None if side.soft is None else change(side.soft), truth=truth, states=changed)


def cast(side, dtype):
    return each(side, lambda tensor: tensor.to(dtype))


def rows_of(side, index):
    """Some rows of a side."""

    def taken(tensor):
        return None if tensor is None else tensor[index]

    states = {name: state[index] for name, state in side.states.items()}
    if isinstance(side, Said):
        return Said(logits=taken(side.logits), states=states, mask=taken(side.mask))
    return Taught(soft=taken(side.soft), truth=taken(side.truth), states=states, mask=taken(side.mask))


def leaves(said):
    """The student's tensors, which gradients flow to."""
    return [t for t in (said.logits, *said.states.values()) if t is not None]


def learning(said):
    """The same student, whose tensors want a gradient."""
    return each(said, lambda tensor: tensor.detach().clone().requires_grad_())


INSIDE = {"student": "s", "teacher": "t"}

CASES = [
    Case("kl", Kl(temperature=2), classification),
    Case("kl-reverse", Kl(temperature=2, direction="reverse"), classification),
    Case("kl-jensen-shannon", Kl(direction="jensen-shannon", beta=0.3), classification),
    Case("kl-standardised", Kl(standardise=True), classification),
    Case("dkd", Dkd(beta=2), classification),
    Case("mse-logits", MseLogits(), classification),
    Case("truth", Truth(), classification),
    Case("truth-smoothed", Truth(smoothing=0.2), classification),
    Case("truth-regression", Truth(), normals, "regression"),
    Case("normal", Normal(), normals, "regression"),
    Case("truth-multilabel", Truth(), sets, "multilabel"),
    Case("bernoulli", Bernoulli(), sets, "multilabel"),
    Case("bernoulli-warm", Bernoulli(temperature=4), sets, "multilabel"),
    Case("token-kl", TokenKl(temperature=2), tokens, "tagging"),
    Case("truth-tagging", Truth(), tokens, "tagging"),
    Case("cosine", Cosine(), directions, "embedding"),
    Case("distance", Distance(), directions, "embedding"),
    Case("hidden-none", Hidden(project="none", **INSIDE), vectors(teacher=STUDENT_WIDTH)),
    Case("hidden-linear", Hidden(**INSIDE), vectors()),
    Case("hidden-mlp-cosine", Hidden(project="mlp", distance="cosine", **INSIDE), sequences(), positions=True),
    Case("hidden-positions", Hidden(**INSIDE), sequences(), positions=True),
    Case("hidden-mixed", Hidden(distance="cosine", **INSIDE), mixed),
    Case("attention", Attention(**INSIDE), maps(), positions=True),
    Case("attention-mse", Attention(distance="mse", **INSIDE), maps(), positions=True),
    Case("attention-other-heads", Attention(**INSIDE), maps(student=2, teacher=3), positions=True),
    Case("relation", Relation(heads=4, **INSIDE), sequences(parts=[f".{p}" for p in PARTS]), positions=True),
    Case("contrastive", Contrastive(**INSIDE), vectors()),
    Case("contrastive-positions", Contrastive(temperature=0.5, **INSIDE), sequences(), positions=True),
    Case("rkd", Rkd(**INSIDE), vectors()),
    Case("rkd-positions", Rkd(**INSIDE), sequences(), positions=True),
    Case("pkt", Pkt(**INSIDE), vectors()),
    Case("pkt-positions", Pkt(**INSIDE), sequences(), positions=True),
    Case("spkd", Spkd(**INSIDE), vectors()),
    Case("spkd-positions", Spkd(**INSIDE), sequences(), positions=True),
]
