"""One answer of many: the arithmetic of a mixture over sites. Shapes: S sites, N inputs, C classes.

===================== ================================================================================================
``mean``              the weighted mean of the distributions (FedMD's consensus)
``log_mean``          the weighted mean of the logarithms, normalised: of logits, as FedDF averages them
``geometric_median``  the distribution nearest to all of them, by Weiszfeld's iteration (K. Pillutla, S. Kakade & Z.
                      Harchaoui, "Robust aggregation for federated learning", arXiv 1912.13445): of the sites that know
                      a class, those with less than half of the weight move it a bounded way, whatever they say
===================== ================================================================================================

Each gives the weight that every site has in every input's answer, so that a mixture can be recorded as one. Of
``log_mean`` the weights are those of the logarithms.

A site that does not know a class says nothing about it: it is taken to say what the sites that do know it say by the
rule (their median where the rule is one, else their mean), and its own answer shares what that leaves. A class is thus
in the hands of the sites that know it, however many others there are; one that one site alone knows is its word.
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
    filled_SNC = fill(answers_SNC, weights_SN, knows_SC, rule)
    return RULES[rule](filled_SNC, _normed(weights_SN))


def fill(answers_SNC: Floats, weights_SN: Floats, knows_SC: Bools, rule: Rule) -> Floats:
    """The answers, those of each site completed by the classes that it does not know, each row summing to one."""
    among = _geometric_median if rule == "geometric_median" else _mean
    said_NC = np.zeros(answers_SNC.shape[1:])
    for c in np.flatnonzero(~knows_SC.all(axis=0)):
        knowing_SN = _normed(weights_SN * knows_SC[:, c, None])
        said_NC[:, c] = among(answers_SNC[:, :, c, None], knowing_SN).shares_NC[:, 0]
    foreign_SNC = said_NC[None] * ~knows_SC[:, None, :]
    foreign_SN = foreign_SNC.sum(axis=2)
    foreign_SNC /= np.maximum(foreign_SN, 1.0)[:, :, None]
    own_SNC = answers_SNC * knows_SC[:, None, :]
    own_SNC /= np.maximum(own_SNC.sum(axis=2, keepdims=True), FLOOR)
    return np.asarray(foreign_SNC + own_SNC * (1.0 - np.minimum(foreign_SN, 1.0))[:, :, None])


def sharpened(shares_NC: Floats, temperature: float) -> Floats:
    """Distributions at a temperature: each share to the power of its inverse, normalised; rows of zeros stay.

    A mean of sites that are sure of different classes is sure of none, and what is learnt from it is unsure everywhere.
    Below 1 this takes entropy out of it again (S. Itahara et al., "Distillation-based semi-supervised federated
    learning", arXiv 2008.06180).
    """
    if temperature == 1.0:
        return shares_NC
    top_N1 = shares_NC.max(axis=1, keepdims=True)
    made_NC = (shares_NC / np.where(top_N1 > 0, top_N1, 1.0)) ** (1.0 / temperature)
    total_N1 = made_NC.sum(axis=1, keepdims=True)
    return np.asarray(made_NC / np.where(total_N1 > 0, total_N1, 1.0))


def distances(answers_SNC: Floats, answered_SN: Bools, knows_SC: Bools, weights_S: Floats) -> Floats:
    """How far each site is from the others, (S,), 0 to 1: the weighted mean, over the other sites, of :func:`_away`.

    It is measured on what the sites said themselves, over the classes that both of a pair know. NaN of a site that
    said nothing about what others know.
    """
    sites = range(len(weights_S))
    found: dict[bytes, Floats] = {}
    away_SS = np.full((len(sites), len(sites)), np.nan)
    for s in sites:
        for t in sites:
            both_C = knows_SC[s] & knows_SC[t]
            if s == t or both_C.sum() < 2:
                continue
            key = both_C.tobytes()
            if key not in found:
                found[key] = _away(answers_SNC, weights_S[:, None] * answered_SN, knows_SC, both_C)
            away_SS[s, t] = found[key][s]
    known_SS = np.isfinite(away_SS) * weights_S
    total_S = known_SS.sum(axis=1)
    mean_S = (np.nan_to_num(away_SS) * known_SS).sum(axis=1) / np.where(total_S > 0, total_S, 1.0)
    return np.asarray(np.where(total_S > 0, mean_S, np.nan))


def _away(answers_SNC: Floats, weights_SN: Floats, knows_SC: Bools, among_C: Bools) -> Floats:
    """Mean total variation, (S,), from the geometric median of the sites that know these classes, over them alone.

    Each answer is normalised over the classes, and counts by the share that the site gives them; NaN where that is
    none, and of sites that do not know them.
    """
    part_SNC = answers_SNC[:, :, among_C]
    mass_SN = part_SNC.sum(axis=2) * (weights_SN > 0) * np.asarray(knows_SC[:, among_C].all(axis=1))[:, None]
    part_SNC = part_SNC / np.where(mass_SN > 0, mass_SN, 1.0)[:, :, None] * (mass_SN > 0)[:, :, None]
    median_NC = _geometric_median(part_SNC, _normed(weights_SN * mass_SN)).shares_NC
    away_SN = 0.5 * np.abs(part_SNC - median_NC).sum(axis=2) * mass_SN
    total_S = mass_SN.sum(axis=1)
    return np.asarray(np.where(total_S > 0, away_SN.sum(axis=1) / np.where(total_S > 0, total_S, 1.0), np.nan))


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
