"""How accurate a model is on inputs whose truth is not known yet, from what was known of it before.

``source`` rows have truth, ``target`` rows do not. Four estimates, each with an interval by the bootstrap of both:

``calibrated``
    The mean, over the target, of the source's accuracy at each confidence, by isotonic regression. Right where the
    mix of easy and hard inputs changes and the meaning of a confidence does not.
``threshold``
    The share of the target above the confidence that as many source rows exceed as are right: average thresholded
    confidence, S. Garg et al., "Leveraging unlabeled data to predict out-of-distribution performance" (ICLR 2022).
``difference``
    The source's accuracy plus the change of the mean confidence: D. Guillory et al., "Predicting with confidence on
    unseen distributions" (ICCV 2021).
``disagreement``
    The source's accuracy less the rise of disagreement with another model (or the teacher): Y. Jiang et al.,
    "Assessing generalization of SGD via disagreement" (ICLR 2022), held against the source so that models of common
    descent, which agree too often, may be used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

METHODS = ("calibrated", "threshold", "difference", "disagreement")

LEAST_ROWS = 20
"""Rows of a side below which nothing is foretold."""

RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """An accuracy in [0, 1] with a two-sided interval.

    The interval covers the chance of both samples, and not that the method's assumption does not hold.
    """

    value: float
    lower: float
    upper: float

    def as_dict(self) -> dict[str, float]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Rows: the model's confidence, whether another one agrees (empty: none was asked), and whether it was right.

    ``right`` is empty where the truth is not known.
    """

    confidence: Floats
    agrees: Floats
    right: Floats

    @classmethod
    def of(cls, confidence: Sequence[float], agrees: Sequence[bool] = (), right: Sequence[bool] = ()) -> Scores:
        """From plain sequences.

        Raises:
            ValueError: lengths differ.

        """
        columns = [np.asarray(x, dtype=np.float64) for x in (confidence, agrees, right)]
        if any(len(c) not in (0, len(columns[0])) for c in columns):
            raise ValueError(f"columns of {[len(c) for c in columns]} rows: each needs one a row, or none")
        return cls(confidence=columns[0], agrees=columns[1], right=columns[2])

    def __len__(self) -> int:
        return len(self.confidence)

    def take(self, rows: npt.NDArray[np.int64]) -> Scores:
        """Some of the rows."""
        kept = [c[rows] if len(c) else c for c in (self.confidence, self.agrees, self.right)]
        return Scores(confidence=kept[0], agrees=kept[1], right=kept[2])


def foretell(
    source: Scores, target: Scores, *, seed: int, confidence: float = 0.95, resamples: int = RESAMPLES
) -> dict[str, Foretold]:
    """The target's accuracy by each method that the columns allow; nothing below :data:`LEAST_ROWS` rows of a side.

    Raises:
        ValueError: the source's truth is not known, or ``confidence`` is not in (0, 1).

    """
    if len(source.right) != len(source):
        raise ValueError("the source's truth must be known")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: it must be in (0, 1)")
    if min(len(source), len(target)) < LEAST_ROWS:
        return {}
    chance = np.random.default_rng(seed)
    draws = [
        (source.take(chance.integers(len(source), size=len(source))),
         target.take(chance.integers(len(target), size=len(target))))
        for _ in range(resamples)
    ]  # fmt: skip
    tails = ((1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0)
    found = {}
    for name, method in _METHODS.items():
        if name == "disagreement" and not (len(source.agrees) and len(target.agrees)):
            continue
        lower, upper = np.quantile([method(s, t) for s, t in draws], tails)
        found[name] = Foretold(value=method(source, target), lower=float(lower), upper=float(upper))
    return found


def mean_confidence(target: Scores) -> float:
    """What a model says of itself: the estimate that the others are held against."""
    return float(target.confidence.mean())


def _calibrated(source: Scores, target: Scores) -> float:
    levels, accuracies = isotonic(source.confidence, source.right)
    return float(np.interp(target.confidence, levels, accuracies).mean())


def isotonic(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The rising steps closest to ``y`` in squares, as the mean ``x`` of each and its height (pool adjacent violators).

    M. Ayer et al., "An empirical distribution function for sampling with incomplete information" (Annals of
    Mathematical Statistics 26, 1955).
    """
    order = np.argsort(x, kind="stable")
    steps: list[list[float]] = []  # sum of y, sum of x, rows
    for a, b in zip(x[order].tolist(), y[order].tolist(), strict=True):
        steps.append([b, a, 1.0])
        while len(steps) > 1 and steps[-2][0] * steps[-1][2] >= steps[-1][0] * steps[-2][2]:
            last = steps.pop()
            steps[-1] = [p + q for p, q in zip(steps[-1], last, strict=True)]
    table = np.array(steps)
    return table[:, 1] / table[:, 2], table[:, 0] / table[:, 2]


def _threshold(source: Scores, target: Scores) -> float:
    limit = np.quantile(source.confidence, 1.0 - source.right.mean())
    return float((target.confidence >= limit).mean())


def _difference(source: Scores, target: Scores) -> float:
    return _share(source.right.mean() + target.confidence.mean() - source.confidence.mean())


def _disagreement(source: Scores, target: Scores) -> float:
    return _share(source.right.mean() + target.agrees.mean() - source.agrees.mean())


def _share(x: float) -> float:
    return float(min(1.0, max(0.0, x)))


_METHODS: dict[str, Callable[[Scores, Scores], float]] = {
    "calibrated": _calibrated,
    "threshold": _threshold,
    "difference": _difference,
    "disagreement": _disagreement,
}
