"""What private updates spend, and whether another may be made: the account of a student's lineage.

One step of DP-SGD is a Gaussian mechanism on a Poisson sample of the rows. Its Rényi divergence at an order adds up
over steps and updates, whatever their noise and sample (I. Mironov, K. Talwar & L. Zhang, "Rényi differential privacy
of the sampled Gaussian mechanism", arXiv 1908.10530); epsilon is the least of what the orders give. Opacus computes it.
Its PRV accountant is some 8 % tighter, but takes minutes for tens of updates that differ; here they take a second.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from components.contracts.errors import ConfigError
from components.contracts.spec import Privacy
from components.contracts.spec.privacy import FIELD
from components.student.card import Account

log = logging.getLogger(__name__)

Spent = tuple[float, float, int]
"""Deviation of the noise in multiples of the clipping length, chance of a row to be in a step, steps."""

ORDERS = (*(1 + i / 4 for i in range(1, 37)), *range(11, 65), 80, 96, 128, 192, 256, 512, 1024)
"""Orders of the divergence. Large ones decide about small epsilons, fractions between 1 and 10 about the usual ones."""

TOLERANCE = 0.01
"""How much less than it may an update may spend: what its noise is looked for by."""

MOST_NOISE = 1000.0
"""Noise in which nothing is left of what rows say."""


@contextmanager
def quiet_opacus() -> Iterator[None]:
    """Opacus gives the root logger a handler when it is imported, and warns where a bound is not the tightest."""
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Optimal order is the")
            yield
    finally:
        root.handlers[:] = before


def epsilon_of(history: Sequence[Spent], delta: float) -> float:
    """The epsilon that these steps have together at ``delta``: an upper bound, 0 of none."""
    with quiet_opacus():
        from opacus.accountants import RDPAccountant

        accountant = RDPAccountant()
        accountant.history = list(merged(history))
        epsilon: float = accountant.get_epsilon(delta, alphas=list(ORDERS))
        return float(epsilon)


def merged(history: Sequence[Spent]) -> tuple[Spent, ...]:
    """The same history, steps of one kind that follow each other as one entry.

    >>> merged([(1.0, 0.1, 5), (1.0, 0.1, 3), (2.0, 0.1, 3)])
    ((1.0, 0.1, 8), (2.0, 0.1, 3))
    """
    found: list[Spent] = []
    for noise, rate, steps in history:
        if found and found[-1][:2] == (noise, rate):
            steps += found.pop()[2]
        found.append((noise, rate, steps))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An update in private: its ``noise``, the chance of a row to be in a step, steps, and what is spent after it."""

    noise: float
    rate: float
    steps: int
    epsilon: float


def rate_of(rows: int, batch_size: int) -> tuple[float, int]:
    """The chance of a row to be in a step, and how many steps there are in an epoch."""
    return min(1.0, batch_size / rows), max(1, round(rows / batch_size))


def plan(privacy: Privacy, before: Account | None, *, rows: int, batch_size: int, epochs: int) -> Plan:
    """What an update of ``epochs`` over ``rows``, in all its lessons together, will spend on top of ``before``.

    Raises:
        ConfigError: it would spend more than the lineage has left; or ``before`` is of another unit. Neither holds for
            the other: an update by inputs learns from several rows of a key, and in one by keys an input more may take
            the place of another, which is two changes.

    """
    if before is not None and before.unit != privacy.unit:
        remedy = f"is not what the champion's account is of, one {before.unit}: keep that, or begin a fresh student"
        raise ConfigError(f"{FIELD}.unit", privacy.unit, remedy)
    rate, an_epoch = rate_of(rows, batch_size)
    steps = an_epoch * epochs
    spent = before.history if before else ()
    if privacy.delta * rows > 1:
        log.warning("%s.delta of %g is more than one over the %d rows: it promises little", FIELD, privacy.delta, rows)
    noise = privacy.noise or _noise(privacy, rate, steps)
    epsilon = epsilon_of((*spent, (noise, rate, steps)), privacy.delta)
    if not epsilon <= privacy.epsilon:  # not a number is no promise either
        already = epsilon_of(spent, privacy.delta)
        raise ConfigError(
            f"{FIELD}.epsilon",
            privacy.epsilon,
            f"would be exceeded: the lineage has spent {already:.3f}, and after this update it would be {epsilon:.3f} "
            f"({steps} steps, each row in one of {1 / rate:.1f}, noise {noise:.3f}): lower update_epsilon or raise "
            "noise, train fewer epochs, allow more, or begin a fresh student with an account of its own",
        )
    return Plan(noise=noise, rate=rate, steps=steps, epsilon=epsilon)


def _noise(privacy: Privacy, rate: float, steps: int) -> float:
    """The noise by which an update alone spends what it may."""
    target = privacy.update_epsilon or privacy.epsilon
    if epsilon_of([(MOST_NOISE, rate, steps)], privacy.delta) > target:
        raise ConfigError(
            f"{FIELD}.update_epsilon", target, "is too little for an update to learn anything: allow more"
        )
    with quiet_opacus():
        from opacus.accountants.utils import get_noise_multiplier

        found = get_noise_multiplier(
            target_epsilon=target,
            target_delta=privacy.delta,
            sample_rate=rate,
            steps=steps,
            accountant="rdp",
            epsilon_tolerance=min(TOLERANCE, target / 10),
            alphas=list(ORDERS),
        )
    return math.ceil(float(found) * 1e6) / 1e6


def account(privacy: Privacy, before: Account | None, spent: Sequence[Spent]) -> Account:
    """The account of a student after an update that spent this on top of ``before``."""
    history = merged((*(before.history if before else ()), *spent))
    unit = before.unit if before else privacy.unit
    return Account(epsilon=epsilon_of(history, privacy.delta), delta=privacy.delta, unit=unit, history=history)
