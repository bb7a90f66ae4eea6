"""One answer of many: the arithmetic of a mixture over sites. Shapes: S sites, N inputs, C classes.

===================== ================================================================================================
``mean``              the weighted mean of the distributions (FedMD's consensus)
``log_mean``          the weighted mean of the logarithms, normalised: of logits, as FedDF averages them
``geometric_median``  the distribution nearest to all of them, by Weiszfeld's iteration (K. Pillutla, S. Kakade & Z.
                      Harchaoui, "Robust aggregation for federated learning", arXiv 1912.13445): sites with less than
                      half of the weight move it a bounded way, whatever they say
===================== ================================================================================================

Each gives the weight that every site has in every input's answer, so that a mixture can be recorded as one. Of
``log_mean`` the weights are those of the logarithms.

A site that does not know a class says nothing about it: it is taken to say what the sites that do know it say on
average, and its own answer shares what that leaves. A class that one site alone knows is that site's word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.federation.agreement import Rule

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FLOOR = 1e-6
"""Stands for a share of zero in a mean of logarithms, where it would be a veto."""

NEAR = 1e-3
"""Least distance in Weiszfeld's weights, so that a site that says the median itself has a finite one."""

STEPS = 50


class Mixed(NamedTuple):
    """The mixture: shares (N, C), each row summing to one, and the sites' weights (S, N), each column summing to one.

    Rows that no site answers are zero.
    """

    shares_NC: Floats
    weights_SN: Floats


def mix(answers_SNC: Floats, answered_SN: Bools, knows_SC: Bools, weights_S: Floats, rule: Rule) -> Mixed:
    """The mixture of distributions by a rule; what stands in rows that a site did not answer is not looked at."""
    weights_SN = weights_S[:, None] * answered_SN
    filled_SNC = fill(answers_SNC, weights_SN, knows_SC)
    return RULES[rule](filled_SNC, _normed(weights_SN))


def fill(answers_SNC: Floats, weights_SN: Floats, knows_SC: Bools) -> Floats:
    """The answers, those of each site completed by the classes that it does not know, each row summing to one."""
    knowing_SNC = weights_SN[:, :, None] * knows_SC[:, None, :]
    total_NC = knowing_SNC.sum(axis=0)
    said_NC = np.divide(
        (knowing_SNC * answers_SNC).sum(axis=0), total_NC, out=np.zeros_like(total_NC), where=total_NC > 0
    )
    foreign_SNC = said_NC[None] * ~knows_SC[:, None, :]
    foreign_SN = foreign_SNC.sum(axis=2)
    foreign_SNC /= np.maximum(foreign_SN, 1.0)[:, :, None]
    own_SNC = answers_SNC * knows_SC[:, None, :]
    own_SNC /= np.maximum(own_SNC.sum(axis=2, keepdims=True), FLOOR)
    return np.asarray(foreign_SNC + own_SNC * (1.0 - np.minimum(foreign_SN, 1.0))[:, :, None])


def distances(answers_SNC: Floats, answered_SN: Bools, knows_SC: Bools, weights_S: Floats) -> Floats:
    """How far each site is from the geometric median of all, (S,): mean total variation over what it answered, 0 to 1.

    NaN of a site that answered nothing.
    """
    filled_SNC = fill(answers_SNC, weights_S[:, None] * answered_SN, knows_SC)
    median_NC = mix(answers_SNC, answered_SN, knows_SC, weights_S, "geometric_median").shares_NC
    away_SN = 0.5 * np.abs(filled_SNC - median_NC).sum(axis=2) * answered_SN
    count_S = answered_SN.sum(axis=1)
    away_S: Floats = away_SN.sum(axis=1)
    return np.asarray(np.where(count_S > 0, away_S / np.maximum(count_S, 1), np.nan))


def _normed(weights_SN: Floats) -> Floats:
    total_N = weights_SN.sum(axis=0)
    return np.asarray(weights_SN / np.where(total_N > 0, total_N, 1.0))


def _mean(answers_SNC: Floats, weights_SN: Floats) -> Mixed:
    return Mixed((weights_SN[:, :, None] * answers_SNC).sum(axis=0), weights_SN)


def _log_mean(answers_SNC: Floats, weights_SN: Floats) -> Mixed:
    logs_NC = (weights_SN[:, :, None] * np.log(np.maximum(answers_SNC, FLOOR))).sum(axis=0)
    shares_NC = np.exp(logs_NC - logs_NC.max(axis=1, keepdims=True)) * (weights_SN.sum(axis=0) > 0)[:, None]
    total_N1 = shares_NC.sum(axis=1, keepdims=True)
    return Mixed(shares_NC / np.where(total_N1 > 0, total_N1, 1.0), weights_SN)


def _geometric_median(answers_SNC: Floats, weights_SN: Floats) -> Mixed:
    found = _mean(answers_SNC, weights_SN)
    for _ in range(STEPS):
        away_SN = np.sqrt(((answers_SNC - found.shares_NC) ** 2).sum(axis=2))
        found = _mean(answers_SNC, _normed(weights_SN / np.maximum(away_SN, NEAR)))
    return found


RULES: dict[Rule, Callable[[Floats, Floats], Mixed]] = {
    "mean": _mean,
    "log_mean": _log_mean,
    "geometric_median": _geometric_median,
}
