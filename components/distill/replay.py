"""Which rows of older windows an update sees again."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np


def balanced_sample(labels: Sequence[Hashable], rows: int, seed: int) -> list[int]:
    """Indices of at most ``rows`` rows, spread over the classes as evenly as their sizes allow, in ascending order.

    Every class gets the same quota; what small classes leave over goes to the larger ones. Without this, replay
    would follow the mix of the past and forget its rare classes (Chrysakis & Moens, "Online continual learning from
    imbalanced data", ICML 2020).
    """
    groups: dict[Hashable, array[int]] = defaultdict(lambda: array("q"))
    for index, label in enumerate(labels):
        groups[label].append(index)
    chance = np.random.default_rng(seed)
    chosen: list[int] = []
    left = min(rows, len(labels))
    waiting = sorted(groups.values(), key=lambda g: (len(g), g[0]))
    for position, group in enumerate(waiting):
        quota = min(len(group), left // (len(waiting) - position))
        chosen += [group[i] for i in chance.permutation(len(group))[:quota]]
        left -= quota
    return sorted(chosen)
