"""Anytime-valid comparison of a candidate with a champion, by betting on who was asked. Pure arithmetic.

Sources. Testing by betting: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting"
(Journal of the Royal Statistical Society B 86, 2024). Two arms with a known chance of being asked: N. Karampatziakis,
P. Mineiro and A. Ramdas, "Off-policy confidence sequences" (ICML 2021); with rare outcomes and no margin it is the
conditional test of M. Lindon and A. Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022).
A mixture over the time at which something begins: J. Shin, A. Ramdas and A. Rinaldo, "E-detectors" (New England
Journal of Statistics in Data Science 2, 2024), here with a proper prior, so that the chance of *any* false alarm is
bounded and not only their rate.

Every test here keeps capitals that start at one in all and bet against the hypothesis "the candidate is no worse".
Under the hypothesis the sum of the capitals (the e-value) is a supermartingale, so by Ville's inequality it ever
reaches ``1 / alpha`` with a chance of at most ``alpha``, however often it is looked at.
"""

from __future__ import annotations

import msgspec

from components.contracts.records import Arm

EXCESSES = (0.1, 0.3, 1.0, 3.0, 10.0, 40.0)
"""Relative excesses that are bet on: with rare outcomes, a candidate that has ``1 + excess`` times the champion's. One
within a factor of 1.7 of the true excess grows at 0.8 of the best speed or more."""

SURE = 0.95
"""Bets stay below this part of what could be lost at once, so that no capital is ever lost for good."""

AT_ONCE = 0.7
"""Part of the capital that bets from the first observation on; the rest begins later, for what turns bad late."""

HALF_LIFE = 100.0
"""After three times this many answers of the candidate half of the late capital has begun: ``(1 + n / 100) ** -0.5``
of it is left after *n*."""

MOST = 1e200
"""Capitals stop here, so that the state is finite numbers, also in JSON. Stopping only loses evidence."""

SHOWING = (0.1, 0.3, 0.95)
"""Bets, as parts of the largest, by which it is shown that a limit holds."""

Capitals = tuple[float, ...]


def waiting(n: float) -> float:
    """The capital that has not begun to bet after ``n`` answers of the candidate."""
    left: float = (1.0 - AT_ONCE) / (1.0 + n / HALF_LIFE) ** 0.5
    return left


class Wager(msgspec.Struct, frozen=True, kw_only=True):
    """Capital on several bets that begin at several times. ``begun``: answers of the candidate so far."""

    capitals: Capitals = (AT_ONCE / len(EXCESSES),) * len(EXCESSES)
    begun: int = 0

    def after(self, factors: Capitals, begins: bool) -> Wager:
        """The capitals after an outcome with these ``factors``; with ``begins`` some of the waiting capital bets too.

        What begins is settled before the outcome is known.
        """
        fresh = (waiting(self.begun) - waiting(self.begun + 1)) / len(factors) if begins else 0.0
        capitals = tuple(min((c + fresh) * f, MOST) for c, f in zip(self.capitals, factors, strict=True))
        return Wager(capitals=capitals, begun=self.begun + begins)

    @property
    def e_value(self) -> float:
        """Evidence against the hypothesis: 1 at the start."""
        return sum(self.capitals) + waiting(self.begun)


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes of one student: how many, and the sum of them (of the bad ones, where an outcome is bad or not)."""

    n: int = 0
    bad: float = 0.0

    def add(self, x: float) -> Tally:
        """The tally after one more outcome."""
        return Tally(n=self.n + 1, bad=self.bad + x)

    def __str__(self) -> str:
        return f"{self.bad:g} of {self.n}"


class Comparison(msgspec.Struct, frozen=True, kw_only=True, tag="comparison"):
    """Tests that the candidate's mean outcome is at most the champion's plus ``margin``. Outcomes are in [0, 1].

    Both rates may change with time, together: an outage that hits both arms is no evidence against the candidate.

    *Paired*, both answered the same input: the difference *z* of the outcomes has a mean of at most ``margin``.
    *Separate*, one answered, the candidate with the known chance *w*: so has ``z = (x - c) / w`` for an outcome *x* of
    the candidate and ``z = -(x - c) / (1 - w)`` for one of the champion, with any *c* that was fixed before; *c* is
    the mean of the outcomes so far, which makes *z* vary least. Either way a capital becomes ``K (1 + b (z - margin))``
    with a bet *b* for each of :data:`EXCESSES`, and both kinds of evidence go into the same capitals.

    What is assumed of separate outcomes: requests are assigned independently of what they would come to. A sticky
    split assigns keys, so one key with much of the traffic and an error rate of its own bends the comparison.

    ``shown`` are capitals against the opposite, that the candidate is worse by ``margin`` or more.

    >>> test = Comparison(margin=0.0)
    >>> for _ in range(12):
    ...     test = test.paired(champion=0.0, candidate=1.0)
    >>> round(test.e_value)
    561
    """

    margin: float
    wager: Wager = Wager()
    shown: Capitals = (1.0 / len(SHOWING),) * len(SHOWING)
    champion: Tally = Tally()
    candidate: Tally = Tally()

    @property
    def centre(self) -> float:
        """The mean outcome of both arms so far, shrunk to 0 while there are few."""
        return (self.champion.bad + self.candidate.bad) / (self.champion.n + self.candidate.n + 1)

    def paired(self, champion: float, candidate: float) -> Comparison:
        """The comparison after both arms' outcomes on one input."""
        z = candidate - champion
        return Comparison(
            margin=self.margin,
            wager=self.wager.after(tuple(1.0 + b * (z - self.margin) for b in paired_bets(self.margin)), True),
            shown=_shown(self.shown, self.margin - z, 1.0 - self.margin),
            champion=self.champion.add(champion),
            candidate=self.candidate.add(candidate),
        )

    def separate(self, arm: Arm, x: float, weight: float) -> Comparison:
        """The comparison after one arm's outcome, where the candidate was asked with the chance ``weight``."""
        centre, theirs = self.centre, arm == "candidate"
        z = (x - centre) / weight if theirs else (centre - x) / (1.0 - weight)
        bets = separate_bets(self.margin, weight, centre)
        most = max((1.0 - centre) / weight, centre / (1.0 - weight))
        return Comparison(
            margin=self.margin,
            wager=self.wager.after(tuple(1.0 + b * (z - self.margin) for b in bets), theirs),
            shown=_shown(self.shown, self.margin - z, most - self.margin),
            champion=self.champion if theirs else self.champion.add(x),
            candidate=self.candidate.add(x) if theirs else self.candidate,
        )

    @property
    def e_value(self) -> float:
        """Evidence that the candidate is worse than allowed."""
        return self.wager.e_value

    def shows(self, alpha: float) -> bool:
        """Whether it is shown, at level ``alpha``, that the candidate is within the margin."""
        return sum(self.shown) >= 1.0 / alpha

    def anew(self) -> Comparison:
        """The same evidence against the candidate, with nothing shown in its favour yet."""
        return msgspec.structs.replace(self, shown=(1.0 / len(SHOWING),) * len(SHOWING))


def paired_bets(margin: float) -> Capitals:
    """The bets on a difference of paired outcomes: best if ``1 + excess`` times as many differ to one side."""
    return tuple(min(e / (e + 2.0), SURE / (1.0 + margin)) for e in EXCESSES)


def separate_bets(margin: float, weight: float, centre: float) -> Capitals:
    """The bets on a separate outcome: best if rare ones come ``1 + excess`` times as often from the candidate."""
    lost = margin + max(centre / weight, (1.0 - centre) / (1.0 - weight))
    return tuple(min(weight * (1.0 - weight) * e / (1.0 + weight * e), SURE / lost) for e in EXCESSES)


def _shown(capitals: Capitals, gain: float, lost: float) -> Capitals:
    """Capitals on a ``gain`` that loses at most ``lost`` at once; with nothing to lose there is nothing to show."""
    if lost <= 0.0:
        return capitals
    return tuple(min(c * (1.0 + s * gain / lost), MOST) for c, s in zip(capitals, SHOWING, strict=True))


class Limit(msgspec.Struct, frozen=True, kw_only=True, tag="limit"):
    """Tests that the mean of the candidate's outcomes, each in [0, 1], is at most ``bound``.

    A capital becomes ``K (1 + b (x - bound))`` at an outcome *x*. Any outcome above zero refutes a bound of 0, and
    nothing refutes a bound of 1. ``shown`` are capitals against the opposite, a mean of ``bound`` or more.
    """

    bound: float
    wager: Wager = Wager()
    shown: Capitals = (1.0 / len(SHOWING),) * len(SHOWING)
    candidate: Tally = Tally()

    def observe(self, x: float) -> Limit:
        """The test after one more outcome."""
        return Limit(
            bound=self.bound,
            wager=self.wager.after(limit_factors(self.bound, x), True),
            shown=_shown(self.shown, self.bound - x, 1.0 - self.bound),
            candidate=self.candidate.add(x),
        )

    @property
    def e_value(self) -> float:
        """Evidence that the mean is above the bound."""
        return self.wager.e_value

    def shows(self, alpha: float) -> bool:
        """Whether it is shown, at level ``alpha``, that the mean is below the bound."""
        return sum(self.shown) >= 1.0 / alpha

    def anew(self) -> Limit:
        """The same evidence against the candidate, with nothing shown in its favour yet."""
        return msgspec.structs.replace(self, shown=(1.0 / len(SHOWING),) * len(SHOWING))


def limit_factors(bound: float, x: float) -> Capitals:
    """What the capitals of a limit are multiplied by at an outcome ``x``."""
    if bound >= 1.0:
        return (1.0,) * len(EXCESSES)
    if bound <= 0.0:
        return (MOST if x > 0.0 else 1.0,) * len(EXCESSES)
    return tuple(1.0 + min(e / (1.0 - bound), SURE / bound) * (x - bound) for e in EXCESSES)


ODDS = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)
"""Factors on the odds of being given to the candidate that a sample-ratio mismatch is tested for."""


class SampleRatio(msgspec.Struct, frozen=True, kw_only=True, tag="sample_ratio"):
    """Tests that keys are given to the candidate with the chances that were configured, which may change.

    M. Lindon and A. Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022): the likelihood ratio of
    a mixture of other chances (here :data:`ODDS`) to the configured one. ``expected``: the sum of the chances.
    """

    wager: Wager = Wager()
    arms: Tally = Tally()
    expected: float = 0.0

    def observe(self, arm: Arm, weight: float) -> SampleRatio:
        """The test after a key that was given to ``arm``, at a ``weight`` in (0, 1)."""
        theirs = arm == "candidate"
        factors = tuple((o if theirs else 1.0) / (1.0 + weight * (o - 1.0)) for o in ODDS)
        return SampleRatio(
            wager=self.wager.after(factors, True),
            arms=self.arms.add(float(theirs)),
            expected=self.expected + weight,
        )

    @property
    def e_value(self) -> float:
        """Evidence that the split is another than the configured one."""
        return self.wager.e_value
