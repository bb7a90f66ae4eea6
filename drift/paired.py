"""Two models on the same inputs: how much more often the one is wrong than the other, with bounds.

Only the rows on which they differ in being right say anything: ``lost`` of them the first model has wrong and the
second right, ``won`` the other way round. The loss is the difference of the two shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from drift.confidence_sequence import anytime_bound
from drift.quality import effective_size, standard_error

Floats = npt.NDArray[np.float64]
Side = Literal["lower", "upper"]

EXACT_ROWS = 200
"""Rows up to which tests are exact. The sum over all outcomes is quadratic in them, the score test close by then."""

NUISANCE = 33
"""Shares of won rows at which an exact test looks for the largest chance."""

POWER = 0.9
"""Chance with which the labels that :meth:`PairedLoss.needed` names show that an equally good model is no worse."""

CAUTION = 0.8
"""Confidence of the bound on the share of differing rows from which labels are planned."""

MOST_LABELS = 10_000_000
"""More labels than this are not promised to decide anything."""

PRICE_OF_LOOKS = 2.5
"""Rows that an anytime-valid bound needs, as a multiple of those of a single look (measured: 1.9 to 2.4)."""

STEPS = 40
"""Halvings of an interval of losses: the bound is exact to 1e-12."""

SLACK = 1e-9


def least_rows(limit: float, confidence: float) -> int:
    """Rows from which on no lost one shows, at a confidence, that the loss is at most ``limit``; fewer show nothing.

    That many rows without a loss have a chance of at most ``(1 - limit) ** n`` where the loss is larger.

    >>> least_rows(0.05, 0.95)
    59
    """
    if not 0.0 < limit < 1.0:
        return 1 if limit >= 1.0 else MOST_LABELS
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-limit))


def score(lost: float, won: float, n: float, margin: float) -> float:
    """Tango's score statistic of the hypothesis that the loss is ``margin``, in (-1, 1): normal where it is true.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design"
    (Statistics in Medicine 17, 1998).
    """
    return float(_scores(np.array([lost]), np.array([won]), n, margin)[0])


def _scores(lost: Floats, won: Floats, n: float, margin: float) -> Floats:
    a = 2.0 * n
    b = -lost - won + (2.0 * n - lost + won) * margin
    c = -won * margin * (1.0 - margin)
    share = (np.sqrt(np.maximum(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    variance = n * (2.0 * share + margin * (1.0 - margin))
    distance = lost - won - n * margin
    with np.errstate(divide="ignore", invalid="ignore"):
        z = distance / np.sqrt(variance)
    return np.where(variance > SLACK, z, np.where(np.abs(distance) < SLACK, 0.0, np.copysign(np.inf, distance)))


def chance_of_as_little(lost: int, won: int, n: int, margin: float) -> float:
    """The p-value of the hypothesis that the loss is at least ``margin``: small where it is shown to be less.

    Exact up to :data:`EXACT_ROWS` rows: the largest chance, over all shares of won rows, of a score as low as the
    observed one (H.-M. Hsueh, J.-P. Liu & J. J. Chen, "Unconditional exact tests for equivalence or noninferiority for
    paired binary endpoints", Biometrics 57, 2001); beyond them that of the score test.
    """
    if margin >= 1.0:
        return 0.0
    if margin <= -1.0:
        return 1.0
    found = score(lost, won, n, margin)
    if n > EXACT_ROWS:
        return _normal_tail(-found)
    losses, wins, coefficients = _outcomes(n)
    scores = _scores(losses, wins, n, margin)
    tail = scores <= found + SLACK
    shares = np.linspace(max(0.0, -margin), (1.0 - margin) / 2.0, NUISANCE)
    i, j, constant = losses[tail], wins[tail], coefficients[tail]
    chances = [float(np.exp(constant + _log_power(i, s + margin) + _log_power(j, s)
               + _log_power(n - i - j, max(0.0, 1.0 - 2.0 * s - margin))).sum()) for s in shares]  # fmt: skip
    return min(1.0, max(chances))


def _log_power(count: Floats, share: float) -> Floats:
    return count * math.log(share) if share > 0.0 else np.where(count > 0, -np.inf, 0.0)


@lru_cache(maxsize=64)
def _outcomes(n: int) -> tuple[Floats, Floats, Floats]:
    """All pairs (lost, won) of ``n`` rows, and the logarithms of their trinomial coefficients."""
    from scipy.special import gammaln

    lost, won = np.meshgrid(np.arange(n + 1.0), np.arange(n + 1.0), indexing="ij")
    possible = lost + won <= n
    i, j = lost[possible], won[possible]
    return i, j, gammaln(n + 1.0) - gammaln(i + 1.0) - gammaln(j + 1.0) - gammaln(n - i - j + 1.0)


def _normal_tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def upper_bound(lost: int, won: int, n: int, confidence: float) -> float:
    """The largest loss that is not refuted at level ``1 - confidence``, in [-1, 1]; 1 of nothing."""
    if n == 0:
        return 1.0
    low, high = max(-1.0, (lost - won) / n), 1.0
    for _ in range(STEPS if n > EXACT_ROWS else STEPS // 2):
        middle = (low + high) / 2.0
        if chance_of_as_little(lost, won, n, middle) <= 1.0 - confidence:
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True, kw_only=True)
class PairedLoss:
    """The share of rows that a candidate has wrong and the champion right, less the share of the contrary.

    ``lost``, ``won``: those rows, of ``n``; weighted rows count as ``effective`` equal ones (fractions of rows are
    rounded to the candidate's disadvantage, or, for a lower bound, to its advantage). ``anytime``: the observations in
    their order where the bounds must hold however often they are looked at, each 1 (lost), 0.5 or 0 (won).
    """

    lost: float
    won: float
    n: int
    effective: float
    anytime: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, candidate: Sequence[bool], champion: Sequence[bool], weights: Sequence[float], *, repeated: bool = False
    ) -> PairedLoss:
        """From which rows each of the two has right.

        Raises:
            ValueError: lengths differ, a weight is not > 0, or weighted rows are looked at repeatedly.

        """
        w, n = np.asarray(weights, dtype=np.float64), len(candidate)
        d = np.array([int(b) - int(a) for a, b in zip(candidate, champion, strict=True)], dtype=np.float64)
        if len(w) != n:
            raise ValueError(f"{len(w)} weights for {n} rows")
        even = n == 0 or bool((w == w[0]).all())
        if repeated and not even:
            raise ValueError("a sequence that is looked at repeatedly needs rows of equal weight")
        size = float(n) if even else _size(d, w)
        shares = [float(w[d == x].sum() / w.sum()) if n else 0.0 for x in (1.0, -1.0)]
        order = tuple(((1.0 + d) / 2.0).tolist()) if repeated else ()
        return cls(lost=shares[0] * size, won=shares[1] * size, n=n, effective=size, anytime=order)

    @property
    def value(self) -> float:
        """The loss in [-1, 1], NaN of nothing."""
        return (self.lost - self.won) / self.effective if self.n else math.nan

    def bound(self, side: Side, confidence: float) -> float:
        """The loss is beyond this with a chance of at most ``1 - confidence`` (one-sided)."""
        if self.anytime:
            return 2.0 * anytime_bound(self.anytime, side, confidence) - 1.0
        lost, won, n = self._counts(side)
        return upper_bound(lost, won, n, confidence) if side == "upper" else -upper_bound(won, lost, n, confidence)

    def _counts(self, side: Side) -> tuple[int, int, int]:
        n = math.floor(self.effective + SLACK)
        against, for_it = (self.lost, self.won) if side == "upper" else (self.won, self.lost)
        worse = min(n, math.ceil(against - SLACK))
        better = min(n - worse, math.floor(for_it + SLACK))
        return (worse, better, n) if side == "upper" else (better, worse, n)

    def breaks(self, limit: float, side: Side) -> float:
        """The p-value of the hypothesis that the loss keeps ``limit``: small where it is shown to be beyond it.

        ``side``: ``upper`` where the loss may be at most the limit, ``lower`` where it must be at least that.
        """
        if not self.n:
            return 1.0
        if self.anytime:
            low, high = -math.log(0.5), 60.0  # the level at which the sequence's bound crosses the limit
            for _ in range(STEPS):
                middle = (low + high) / 2.0
                bound = self.bound("lower" if side == "upper" else "upper", 1.0 - math.exp(-middle))
                crossed = bound > limit if side == "upper" else bound < limit
                low, high = (middle, high) if crossed else (low, middle)
            return math.exp(-low) if low > -math.log(0.5) else 1.0
        lost, won, n = self._counts("lower" if side == "upper" else "upper")
        return (
            chance_of_as_little(won, lost, n, -limit) if side == "upper" else chance_of_as_little(lost, won, n, limit)
        )

    def needed(self, limit: float, side: Side, confidence: float, *, of: int = 1, now: bool = False) -> int | None:
        """Rows with which an equally good model would be shown to keep ``limit``; None: no number is promised.

        With so many, a bound that still does not keep the limit is a failure of the model and not of the evidence:
        an equally good one of ``of`` tested together passes with the chance :data:`POWER`, one that is worse by the
        limit with ``1 - confidence``. ``now`` takes the observed share of differing rows, else a cautious bound on it.
        """
        margin = limit if side == "upper" else -limit
        if margin <= 0.0 or not self.n:
            return None
        from scipy.special import betaincinv, ndtri

        differ, n = self.lost + self.won, self.effective
        share = differ / n if now else float(betaincinv(differ + 1.0, max(n - differ, 0.5), CAUTION))
        z = float(ndtri(confidence) + ndtri(1.0 - (1.0 - POWER) / of))
        normal = share * (z / margin) ** 2
        none_differ = math.log(1.0 - confidence) / math.log1p(-min(margin, 0.999))
        looks = PRICE_OF_LOOKS if self.anytime else 1.0
        total = math.ceil(looks * max(normal, none_differ) * self.n / self.effective)
        return total if total <= MOST_LABELS else None


def _size(d: Floats, w: Floats) -> float:
    """Equal rows that say as much of the mean: at most Kish's, fewer where the heavy rows are those that differ."""
    size, mean = effective_size(w.tolist()), float((w * d).sum() / w.sum())
    deviation, spread = standard_error(d, w, mean), float((w * d * d).sum() / w.sum()) - mean**2
    return min(size, spread / deviation**2) if deviation > 0 and spread > 0 else size
