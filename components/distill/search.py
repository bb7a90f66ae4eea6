"""Which of several objectives a student learns best by: a small search on rows that are kept back from learning.

Successive halving (K. Jamieson & A. Talwalkar, "Non-stochastic best arm identification and hyperparameter
optimization", AISTATS 2016, arXiv 1502.07943): every recipe gets a quarter of the epochs, the better half of them half
of the epochs, the last two all of them. All start from the same weights with the same seed. The rows that judge are
some of those to learn from; the gate's holdout is not looked at, and the winner then learns from all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from components.contracts.errors import ConfigError
from components.contracts.sampling import bucket
from components.contracts.spec.objective import Term
from components.distill.data import NO_TRUTH, TrainingSet
from components.distill.networks.contract import value_and_scale, vector_and_scale
from components.distill.prune import answers
from components.distill.tagging import token_accuracy
from components.distill.work import Work

JUDGING = 0.25
"""Share of the rows that judge: a hash of the content decides, so that equal content is on one side."""

LEAST = 40
"""Rows that must judge: with fewer, chance decides, and the first recipe is taken."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """``recipe``: the one to take; ``scores``: of the last round, by recipe; ``rows``: how many judged.

    A score is the share of answers that are right (the truth where it is known, else the teacher's label), for a
    regression minus the root mean squared error in the student's unit; of tagging it is the share of tokens, of an
    embedding the mean cosine.
    """

    recipe: str
    scores: dict[str, float]
    rows: int

    @property
    def margin(self) -> float | None:
        """What the winner has more than the second; None where nothing was compared."""
        first, *others = sorted(self.scores.values(), reverse=True) or [math.nan]
        return first - others[0] if others else None


def search(
    work: Work,
    recipes: Mapping[str, Sequence[Term]],
    contents: Iterable[str],
    train: Callable[[Work, str], nn.Module],
) -> Choice:
    """Choose a recipe for ``work``, whose rows have these content hashes.

    ``train`` trains a work under a name that is its own, and gives the network.

    Raises:
        ConfigError: there are fewer than two recipes.

    """
    if len(recipes) < 2:
        raise ConfigError("student.search", list(recipes), "names two recipes at least: there is nothing to choose")
    judges = np.fromiter((bucket("", "search", content) < JUDGING for content in contents), dtype=bool)
    if judges.sum() < LEAST or (~judges).sum() < LEAST:
        return Choice(recipe=next(iter(recipes)), scores={}, rows=int(judges.sum()))
    learnt, judging = work.data.take(~judges), work.data.take(judges)
    left = list(recipes)
    scores: dict[str, float] = {}
    for rung, share in enumerate((0.25, 0.5, 1.0)):
        if share < 1.0 and len(left) <= 2:
            continue
        epochs = max(1, round(share * work.epochs))
        scores = {}
        for name in left:
            field = f"student.recipes.{name}"
            arm = replace(work, data=learnt, objective=tuple(recipes[name]), field=field, epochs=epochs)
            net = train(arm, f"search-{name}-{rung}")
            scores[name] = score(net, judging, work.spec.task)
        left = sorted(left, key=lambda name: -scores[name])[: max(2, math.ceil(len(left) / 2))]
    return Choice(recipe=left[0], scores=scores, rows=int(judges.sum()))


def score(net: nn.Module, data: TrainingSet, task: str) -> float:
    """How well a network answers rows: see :class:`Choice`.

    Raises:
        ValueError: the rows have no labels.

    """
    if data.soft is None or data.truth is None:
        raise ValueError("rows without labels judge nothing")
    out = answers(net, data.features)
    if task == "tagging":
        return token_accuracy(out.numpy(), data.soft, data.truth)
    if task == "regression":
        value, _ = value_and_scale(out)
        wanted = np.where(np.isnan(data.truth), data.soft[:, 0], data.truth)
        return -float(np.sqrt(np.mean((value.numpy() - wanted) ** 2)))
    if task == "multilabel":
        unknown = np.isnan(data.truth).any(axis=1, keepdims=True)
        sets = np.where(unknown, data.soft, data.truth) >= 0.5
        return float(((out.numpy() >= 0.0) == sets).all(axis=1).mean())
    if task == "embedding":
        vector, _ = vector_and_scale(out)
        return float((vector.numpy() * data.soft[:, :-1]).sum(axis=1).mean())
    wanted = np.where(data.truth == NO_TRUTH, data.soft.argmax(axis=1), data.truth)
    return float((torch.argmax(out, dim=1).numpy() == wanted).mean())
