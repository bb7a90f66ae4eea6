"""A search by the teacher's answers: inputs are changed, one place at a time, while a class becomes more likely.

A stochastic hill climb in the space of words or cells, with no gradient (as in the attacks of M. Alzantot et al.,
"Generating natural language adversarial examples", EMNLP 2018, arXiv 1804.07998, which raise another class's
probability by changing words). What the teacher says of single words tells beforehand which ones each class likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from components.contracts.records import SoftLabel
from components.synthetic.spaces import Space

STEPS = 8
"""Rounds where the spec names none: most inputs are found in a few."""

SURE = 0.9
"""Probability of its class from which an input is changed no more: a student learns from doubt as well."""

PARTS_PER_ROW = 2
"""Single words that the teacher is asked about, for each row that is wanted."""

PREFERRED = 40
"""Words that a class is taken to like at most: those that make it most likely."""

LIKED = 0.25
"""How far above the mean, of the way to the best, a word has to make a class likely to be one that it likes."""

Ask = Callable[[Sequence[Any]], list[SoftLabel]]
"""The teacher's answers to items."""


def search(space: Space, classes: Sequence[str], rows: int, steps: int, chance: Random, ask: Ask) -> list[Any]:
    """``rows`` items, as many of each class as of any other, that the teacher finds likely to be of it.

    1. Ask about single parts, and note which ones each class likes.
    2. Draw items, a class being sought by each; those of texts begin with words that it likes.
    3. In each round change every item that its class is not sure of yet, and keep the change where it helps.
    """
    # Step 1
    liked = _liked(space, classes, rows, chance, ask)
    # Step 2
    goals = [classes[i % len(classes)] for i in range(rows)]
    items = [space.draw(chance) for _ in goals]
    for i, goal in enumerate(goals):
        if liked.get(goal):
            items[i] = space.change(items[i], chance, liked[goal])
    chances = [_of(soft, goal) for soft, goal in zip(ask(items), goals, strict=True)]
    # Step 3
    for _ in range(steps):
        open_ = [i for i, p in enumerate(chances) if p < SURE]
        if not open_:
            break
        tried = [space.change(items[i], chance, liked.get(goals[i], ())) for i in open_]
        for i, item, soft in zip(open_, tried, ask(tried), strict=True):
            if (found := _of(soft, goals[i])) > chances[i]:
                items[i], chances[i] = item, found
    return items


def _of(soft: SoftLabel, goal: str) -> float:
    return soft.distribution.get(goal, 0.0)


def _liked(space: Space, classes: Sequence[str], rows: int, chance: Random, ask: Ask) -> dict[str, list[Any]]:
    """The parts that make each class most likely, best first."""
    parts = space.parts()
    if not parts:
        return {}
    some = chance.sample(parts, min(len(parts), PARTS_PER_ROW * rows))
    answers = ask(some)
    found = {}
    for name in classes:
        chances = [_of(soft, name) for soft in answers]
        mean, best = sum(chances) / len(chances), max(chances)
        good = [i for i, p in enumerate(chances) if p >= mean + LIKED * (best - mean)]
        order = sorted(good, key=lambda i: -chances[i])
        found[name] = [some[i][0] for i in order[:PREFERRED]]
    return found
