"""What students of one workload make of the same inputs together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.contracts.records import CLASSED, SoftLabel
from drift.entropy import mutual_information


def disagreement(said: Sequence[Sequence[SoftLabel]]) -> list[float]:
    """Mutual information (nats) of the members' answers to each input: what tells an unknown input from a hard one.

    ``said``: one sequence a member, of one length. Classes are matched by name, so that members of different label
    spaces can be asked; of multilabel it is the sum over them. Empty where there are fewer than two members, nothing
    was asked, or the answers are values, tags or vectors.
    """
    if len(said) < 2 or not said[0] or said[0][0].task not in CLASSED:
        return []
    names = sorted({name for member in said for soft in member for name in soft.distribution})
    shares = [[[soft.distribution.get(n, 0.0) for n in names] for soft in member] for member in said]
    told = np.array(shares)
    if said[0][0].task == "multilabel":
        each: list[float] = mutual_information(np.stack([told, 1.0 - told], axis=-1)).sum(axis=-1).tolist()
        return each
    found: list[float] = mutual_information(told).tolist()
    return found
