"""Rivals of the platform on a stream, made of the platform's own parts: all answer, ask, and learn within one budget.

All start from the same student, learnt from the same history, and whatever of theirs calls the teacher about an input
answers that input with it. What is trained serves :data:`LATENCY` inputs after it was decided, as the platform's does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.stats import chisquare, ks_2samp
from torch import Tensor, nn

from components.contracts.payload import decoder
from components.contracts.records import Input, Label, SoftLabel, label_key
from components.contracts.spec import Policy, Spec, build
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.intent import ModelRef
from components.control.tables import WindowRow
from components.distill.networks.bag import BagOfFeatures
from components.distill.train import distill
from components.query.policies import decide
from components.snapshot.table import parquet_bytes, snapshot_table
from components.student.features import bag_signature
from components.student.runtime import Student
from components.teachers.contract import reference
from drift.confidence_sequence import upper_of_counts
from drift.deferral import deferral_limit
from pipelines.trigger import TriggerState
from pipelines.trigger import decide as pays
from tests.bench._platform import MAX_DISAGREEMENT, PER_SECOND, UPDATE_SECONDS, Given
from tests.bench._streams import Stream

LATENCY = round(UPDATE_SECONDS * PER_SECOND)
"""Inputs that pass while a student is trained."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where all begin: the first student, the window that it learnt from, and what they may spend."""

    stream: Stream
    spec: Spec
    first: ModelRef
    window: WindowRow
    artifacts: str
    calls: int
    seed: int


class Contender(Protocol):
    """One of those that are compared. ``calls``: of the teacher, the history's apart."""

    name: str
    calls: int

    def answer(self, rows: Sequence[int]) -> list[Given]:
        """Answer inputs that come together, and learn."""

    def agreement(self, rows: Sequence[int]) -> float | None:
        """How often what answers alone would say what the teacher says; None where it says nothing alone."""


class Learner:
    """A student that is updated by the platform's distillation. There is no gate: what is trained serves."""

    name = ""

    def __init__(self, start: Start) -> None:
        self.start, self.stream, self.spec = start, start.stream, start.spec
        self.calls, self.seen = 0, 0
        self.ref, self.student = start.first, self._load(start.first)
        self.limit = 1.01 if start.first.defer_below is None else start.first.defer_below
        self.windows, self.new = [start.window], []
        self.coming: tuple[int, ModelRef] | None = None
        self._teacher = start.stream.teacher
        self.chance = np.random.default_rng(start.seed)

    def _load(self, ref: ModelRef) -> Student:
        return Student.load(get_bytes(ref.uri, ref.digest))

    @property
    def left(self) -> int:
        """Calls that are left."""
        return self.start.calls - self.calls

    @property
    def pace(self) -> float:
        """The share of the inputs that may be asked about if what is left is spread evenly."""
        return min(1.0, self.left / max(1, len(self.stream.rows) - self.seen))

    def payloads(self, rows: Sequence[int]) -> list[bytes]:
        return [self.stream.pool.payloads[r] for r in rows]

    def answer(self, rows: Sequence[int]) -> list[Given]:
        if self.coming is not None and self.seen >= self.coming[0]:
            self.swap(self.coming[1])
            self.coming = None
        said = self.student.predict(self.payloads(rows))
        wanted = np.array(self.wanted(rows, said), dtype=bool)
        wanted &= np.cumsum(wanted) <= self.left
        self.seen += len(rows)
        self.take([r for r, w in zip(rows, wanted, strict=True) if w])
        given = [
            Given(label=self.stream.pool.soft[r].label if w else s.label, asked=bool(w))
            for r, s, w in zip(rows, said, wanted, strict=True)
        ]
        self.learn()
        return given

    def take(self, rows: Sequence[int]) -> None:
        """Have the teacher's answers to these."""
        self.calls += len(rows)
        self.new += rows

    def wanted(self, rows: Sequence[int], said: Sequence[SoftLabel]) -> Sequence[bool]:
        """Which of the inputs the teacher is to be asked about."""
        raise NotImplementedError

    def learn(self) -> None:
        """Begin an update if it is time."""

    def swap(self, ref: ModelRef) -> None:
        """Let another student serve."""
        self.ref, self.student = ref, self._load(ref)

    def update(self) -> None:
        """Learn from what is new, and serve in :data:`LATENCY` inputs."""
        labels, who = [], reference(self._teacher)
        for n, row in enumerate(self.new):
            at = 1.7e9 + 10_000.0 * len(self.windows) + n
            entry = Input(workload=self.spec.name, id=f"{n}-{row}", key="k", time=at, payload=self.payloads([row])[0])
            soft = self.stream.pool.soft[row]
            labels.append(
                Label(key=label_key(entry, who, soft.space), teacher=who, soft=soft, input=entry, labelled_at=at)
            )
        data = parquet_bytes(snapshot_table(labels, {}, 0.0))
        uri = f"{self.start.artifacts}/{digest_of(data)}.parquet"
        put_bytes(uri, data)
        self.windows.append(
            WindowRow(
                digest=digest_of(data), workload=self.spec.name, number=len(self.windows) + 1, uri=uri,
                rows=len(labels), created_at=0.0, manifest={"teacher": who, "space": self._teacher.space},
            )
        )  # fmt: skip
        done = distill(
            self.spec, self.windows, variant=self.spec.student.variants[0], parent=self.ref,
            artifacts=self.start.artifacts, seed=self.start.seed,
        )  # fmt: skip
        self.new = []
        ref = ModelRef(
            version=str(len(self.windows)), uri=done.uri, digest=done.digest, snapshot=self.windows[-1].digest,
            teacher=done.card.teacher,
        )  # fmt: skip
        self.coming = self.seen + LATENCY, ref

    def agreement(self, rows: Sequence[int]) -> float | None:
        said = self.student.predict(self.payloads(rows))
        return float(np.mean([s.label == self.stream.pool.soft[r].label for s, r in zip(said, rows, strict=True)]))


class Static(Learner):
    """The first student for good; what is below its certified limit is asked about, as long as the budget reaches."""

    name = "static"

    def wanted(self, rows, said):
        return [s.confidence < self.limit for s in said]


class Scheduled(Learner):
    """Labels at random, evenly over the stream; an update every :attr:`EVERY` inputs."""

    name = "schedule"
    EVERY = 300

    def wanted(self, rows, said):
        return self.chance.random(len(rows)) < self.pace

    def learn(self):
        if self.new and self.coming is None and self.seen % self.EVERY == 0:
            self.update()


class Policied(Learner):
    """Labels by one of the platform's policies, evenly over the stream; an update when ``trigger.min_labels`` came."""

    def __init__(self, start: Start, kind: str) -> None:
        super().__init__(start)
        self.name, self._kind = kind, kind

    def wanted(self, rows, said):
        if not self.left:
            return [False] * len(rows)
        policy = Policy(kind=self._kind, share=max(self.pace, 1e-6))
        ids = [f"{self.seen + n}" for n in range(len(rows))]
        return [d.label for d in decide(policy, ids, [said], float(self.left), self.start.seed)]

    def learn(self):
        state = TriggerState(
            labels=len(self.new), alarms=(), since_alarm=0, running=self.coming is not None, rolling=False,
            last_end=None, has_champion=True,
        )  # fmt: skip
        if pays(state, 0.0, self.spec.trigger).start:
            self.update()


class DriftToAct(Learner):
    """A Drift2Act controller (Lamaakal et al. 2026, arXiv 2603.08578), as far as its abstract and introduction say.

    A sensing layer maps signals without labels to a belief over kinds of drift; an active certificate queries a few
    labels of a recent window for an anytime-valid upper bound U of the present risk; while U is at most tau a cheap
    action is taken, else the controller abstains, hands over, and escalates to rollback or retraining under cooldowns.

    Assumptions, where they say no more. Risk: the disagreement of what is not deferred, tau as promised here. Belief:
    two signals, the confidences (Kolmogorov-Smirnov) and the mix of answers (chi squared) of the last window against
    the first after a change of students, each by the least Bayes factor that its p-value allows (Sellke, Bayarri and
    Berger 2001) against even odds. Queries: of the last :attr:`WINDOW` inputs, per second :attr:`FEW` or, where drift
    is the likelier, :attr:`MANY`. Cheap action: the limit of confidence is certified anew from the queried labels.
    Rollback: where the student before is right more often on the queried labels, by a tenth. Retraining:
    :attr:`LEAST` new labels, and :attr:`COOLDOWN` inputs after the last. The first student's certificate is its
    evaluation's; each student's own begins when it serves.
    """

    name = "drift2act"
    WINDOW, FEW, MANY, LEAST, COOLDOWN = 100, 1, 3, 60, 100

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self.recent: list[tuple[int, SoftLabel, bool]] = []
        self.reference: list[SoftLabel] = []
        self.audited: list[tuple[float, bool]] = []
        self.known: list[int] = []
        self.abstains = False
        self.before: ModelRef | None = None
        self.trained = -self.COOLDOWN

    def wanted(self, rows, said):
        asked = [self.abstains or s.confidence < self.limit for s in said]
        for row, s, a in zip(rows, said, asked, strict=True):
            self.recent.append((row, s, a))
            if a and self.left:
                self._know(row, s)
        if len(self.reference) < self.WINDOW:
            self.reference += said
        self.recent = self.recent[-self.WINDOW :]
        return asked

    def _know(self, row: int, said: SoftLabel) -> None:
        self.audited.append((said.confidence, said.label != self.stream.pool.soft[row].label))
        self.known.append(row)
        self.audited, self.known = self.audited[-2 * self.WINDOW :], self.known[-self.WINDOW :]

    def belief(self) -> float:
        """The chance of drift of any kind."""
        if len(self.reference) < self.WINDOW or len(self.recent) < self.WINDOW:
            return 0.5
        now = [s for _, s, _ in self.recent]
        confidence = ks_2samp([s.confidence for s in self.reference], [s.confidence for s in now]).pvalue
        labels = sorted({s.label for s in self.reference} | {s.label for s in now})
        before, after = (np.array([sum(s.label == c for s in x) for c in labels]) for x in (self.reference, now))
        mix = chisquare(after, (before + 1.0) / (before + 1.0).sum() * after.sum()).pvalue
        factors = [-math.e * p * math.log(p) if 0.0 < p < 1.0 / math.e else float(p > 0.0) for p in (confidence, mix)]
        return 1.0 - 1.0 / (1.0 + sum(1.0 / max(f, 1e-9) for f in factors) / 2.0)

    def learn(self):
        free = [(row, s) for row, s, asked in self.recent if not asked and row not in set(self.known)]
        wanted = min(self.left, len(free), self.MANY if self.belief() > 0.5 else self.FEW)
        for i in self.chance.permutation(len(free))[:wanted].tolist():
            self._know(*free[i])
            self.take([free[i][0]])
        given = [wrong for confidence, wrong in self.audited if confidence >= self.limit]
        upper = upper_of_counts(sum(given), len(given), 0.95) if len(given) >= 20 else 0.0
        if upper <= MAX_DISAGREEMENT or sum(given) <= MAX_DISAGREEMENT * len(given) / 2:
            self.abstains = False
            return
        found = deferral_limit(*zip(*self.audited, strict=True), MAX_DISAGREEMENT)
        if found is not None:
            self.limit, self.abstains = found.limit, False
        else:
            self.abstains = True
            self._escalate()

    def _escalate(self) -> None:
        if self.coming is not None:
            return
        if self.before is not None and len(self.known) >= 20:
            told = [self.stream.pool.soft[r].label for r in self.known]
            mine, other = (
                np.mean([a.label == b for a, b in zip(s.predict(self.payloads(self.known)), told, strict=True)])
                for s in (self.student, self._load(self.before))
            )
            if other > mine + 0.1:
                self.swap(self.before)
                return
        if len(self.new) >= self.LEAST and self.seen - self.trained >= self.COOLDOWN:
            self.trained = self.seen
            self.update()

    def swap(self, ref):
        self.before = self.ref
        super().swap(ref)
        self.audited, self.known, self.reference, self.limit = [], [], [], 0.0
        self.abstains = False
        rows = [r for r, _, _ in self.recent]
        if rows:  # what it says of the labels of the last window that it has not learnt from
            for row, said in zip(rows, self.student.predict(self.payloads(rows)), strict=True):
                if row in self.new:
                    self._know(row, said)


class Cascade:
    """Online cascade learning (Nie et al. 2024, arXiv 2402.04513), with two models below the teacher.

    As published: every model has a deferral function, a small network of its class probabilities, which learns to say
    whether it is wrong and what that costs; a model answers where its function does not defer, but with a chance that
    decays by its updates it passes on all the same; the teacher's answers are kept, and all learn from them, online.

    Assumptions: the models are softmax regression and the student's own network, both of the student's features, in
    place of logistic regression and BERT; they learn from every :attr:`CACHE` answers and three times as many kept
    ones; the chance to pass on falls by :attr:`DECAY` an update; the history is learnt from first, as answers. The
    published cost of a call is a number to choose: here the threshold of deferring follows the budget, so that it is
    spent evenly (the threshold moves by what was asked too much or too little).
    """

    name = "cascade"
    CACHE, DECAY, RATE = 8, 0.95, 0.02

    def __init__(self, start: Start) -> None:
        self.start, self.stream = start, start.stream
        self.calls, self.seen, self.updates = 0, 0, 0
        torch.manual_seed(start.seed)
        self.chance = np.random.default_rng(start.seed)
        featuriser = build(start.spec.features, "")
        self._decode, self._featuriser = decoder(start.spec.payload, ""), featuriser
        classes = start.stream.teacher.classes
        self._place = {c: i for i, c in enumerate(classes)}
        self._classes = classes
        variant = start.spec.student.variants[0]
        inputs = bag_signature(featuriser.buckets)
        shape = {"task": "classification", "inputs": inputs, "outputs": len(classes)}
        self.models = [
            Softmax(featuriser.buckets, len(classes)),
            BagOfFeatures(**shape, dim=variant.dim, hidden=variant.hidden),
        ]
        self.defers = [nn.Sequential(nn.Linear(len(classes), 32), nn.ReLU(), nn.Linear(32, 1)) for _ in self.models]
        self._optimisers = [
            torch.optim.Adam(m.parameters(), lr=r, fused=True) for m, r in zip(self.models, (0.05, 0.005), strict=True)
        ]
        self._of_defers = [torch.optim.Adam(d.parameters(), lr=0.005) for d in self.defers]
        self.kept: list[int] = []
        self.cache: list[int] = []
        self.threshold = 0.5
        for row in self.chance.permutation(start.stream.history).tolist():
            self._keep(row)

    def _arrays(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids, weights = self._featuriser.encode([self._decode(self.stream.pool.payloads[r]) for r in rows])
        return torch.from_numpy(ids), torch.from_numpy(weights)

    def _targets(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor([self._place[self.stream.pool.soft[r].label] for r in rows])

    def _keep(self, row: int) -> None:
        self.cache.append(row)
        if len(self.cache) < self.CACHE:
            return
        old = (
            self.chance.choice(self.kept, min(len(self.kept), 3 * self.CACHE), replace=False).tolist()
            if self.kept
            else []
        )
        rows = [*self.cache, *old]
        arrays, targets = self._arrays(rows), self._targets(rows)
        fresh = slice(0, len(self.cache))
        for model, defer, of_model, of_defer in zip(
            self.models, self.defers, self._optimisers, self._of_defers, strict=True
        ):
            with torch.no_grad():  # before it has learnt them
                shares = torch.softmax(model(*arrays)[fresh], dim=1)
            wrong = (shares.argmax(1) != targets[fresh]).float()
            loss = nn.functional.mse_loss(torch.sigmoid(defer(shares)).squeeze(1), wrong)
            of_defer.zero_grad()
            loss.backward()
            of_defer.step()
            for _ in range(2):
                of_model.zero_grad()
                nn.functional.cross_entropy(model(*arrays), targets).backward()
                of_model.step()
        self.kept += self.cache
        self.cache = []
        self.updates += 1

    def _said(self, rows: Sequence[int]) -> list[list[tuple[str, float]]]:
        """What each model says of each input, and how sure its function is that it is wrong."""
        arrays, found = self._arrays(rows), []
        with torch.no_grad():
            for model, defer in zip(self.models, self.defers, strict=True):
                shares = torch.softmax(model(*arrays), dim=1)
                doubts = torch.sigmoid(defer(shares)).squeeze(1).tolist()
                found.append([(self._classes[i], d) for i, d in zip(shares.argmax(1).tolist(), doubts, strict=True)])
        return found

    def answer(self, rows: Sequence[int]) -> list[Given]:
        said, given, asked = self._said(rows), [], 0
        passes = self.DECAY**self.updates
        before = min(1.0, (self.start.calls - self.calls) / max(1, len(self.stream.rows) - self.seen))
        for n, row in enumerate(rows):
            own = next(
                (model[n][0] for model in said if model[n][1] <= self.threshold and self.chance.random() >= passes),
                None,
            )
            if own is None and self.calls < self.start.calls:
                asked += 1
                self.calls += 1
                given.append(Given(label=self.stream.pool.soft[row].label, asked=True))
                self._keep(row)
            else:
                given.append(Given(label=own if own is not None else said[-1][n][0], asked=False))
        self.seen += len(rows)
        self.threshold = min(1.0, max(0.0, self.threshold + self.RATE * (asked / len(rows) - before)))
        return given

    def agreement(self, rows: Sequence[int]) -> float | None:
        """Of the last model."""
        said = self._said(rows)[-1]
        return float(np.mean([s == self.stream.pool.soft[r].label for (s, _), r in zip(said, rows, strict=True)]))


class Softmax(nn.Module):
    """Softmax regression on weighted bucket ids."""

    def __init__(self, buckets: int, classes: int) -> None:
        super().__init__()
        self.table, self.bias = nn.Embedding(buckets, classes), nn.Parameter(torch.zeros(classes))
        nn.init.zeros_(self.table.weight)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        summed = nn.functional.embedding_bag(ids, self.table.weight, per_sample_weights=weights, mode="sum")
        return summed * 30.0 + self.bias  # weights sum to one over hundreds of ids
