"""What the gate demands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta, field

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from components.contracts.spec.features import FEATURE_NAME, Entity
from components.contracts.spec.fields import Count, Positive, Section, Share


class Disturbance(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How robustness is measured, where a limit demands it.

    ``rows``: inputs of the holdout that are disturbed. ``strength``: share of characters, bytes or cells that are
    changed, or lost; of images and sounds how much, by :mod:`components.evaluate.disturb`. ``queries``: answers of the
    student that the adversarial search may ask for on one input.
    """

    rows: Count = 100
    strength: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.05
    queries: Count = 40


class Extraction(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How model extraction is measured (:mod:`components.evaluate.extraction`).

    ``questions``: inputs of the holdout that the surrogate learns from; it is judged on the others. ``answers``: what
    it is told of each, the student's ``probabilities`` or its ``labels`` alone. ``surrogate``: ``linear`` (ridge
    regression) or ``forest`` (random trees), in what the student is fed.
    """

    questions: Annotated[int, Meta(ge=4, le=10_000)] = 100
    answers: Literal["probabilities", "labels"] = "probabilities"
    surrogate: Literal["linear", "forest"] = "linear"


class Groups(Section, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Groups of inputs that a student is to treat alike, by something that is known of each input.

    That is one of ``field``, the place of a value in the decoded payload (``applicant.sex``; a number is a place in a
    list), ``feature``, a feature of the entity that the spec names, or ``descriptor``, one of the featuriser's.
    ``values``: the groups, each of one value (text; of a truth value ``true`` or ``false``); or ``edges``, in rising
    order: the ranges of numbers between them, each from its lower edge on. An input with any other value, or none, is
    of no group.

    ``min_rows``: rows (with truth, for accuracy) that each group needs before it is compared (left out: those of
    ``limits``); with fewer the verdict is hold. ``max_accuracy_gap``, ``max_agreement_gap`` (with the teacher) and
    ``max_deferral_gap``: the largest difference between the shares of any two groups; None is measured, not demanded.
    """

    field: str | None = None
    feature: str | None = None
    descriptor: str | None = None
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    min_rows: Count | None = None
    max_accuracy_gap: Share | None = None
    max_agreement_gap: Share | None = None
    max_deferral_gap: Share | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The groups, in order.

        >>> Groups(field="age", edges=(30, 60.5)).names
        ('below 30', '30 to 60.5', '60.5 and above')
        """
        if self.values:
            return self.values
        ends = [f"{edge:g}" for edge in self.edges]
        between = (f"{low} to {high}" for low, high in pairwise(ends))
        return (f"below {ends[0]}", *between, f"{ends[-1]} and above") if ends else ()


class Limits(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gate demands of a candidate, measured on the exported artifact.

    ``None`` means not demanded; where nothing is, no candidate is promoted.

    ``confidence``: of the one-sided bounds that must keep the limits on shares, losses and errors; without it the
    estimates themselves are compared, and the verdict says so. ``looks``: ``repeated`` where the verdict is asked for
    again and again while labels arrive, so that bounds are confidence sequences. ``min_rows`` is the least holdout:
    below it the verdict is hold.

    Against truth: ``min_accuracy``; ``max_loss``, the largest loss of accuracy (regression: relative rise of the root
    mean squared error) against the champion on the new holdout, ``max_slice_loss`` the same for every true class,
    ``max_mae_loss`` for the mean absolute error; ``max_forgetting`` on the holdout of every older regime; ``max_rmse``
    (target unit); ``min_coverage`` of a regression's 90 % intervals; ``max_ece``, the root mean squared calibration
    error less its bias (an estimate, whatever the confidence); ``min_teacher_accuracy``; of multilabel, where accuracy
    is that of whole sets, ``min_micro_f1`` and ``max_micro_f1_loss``, the largest fall of the micro-averaged F1 below
    the champion's. Against the teacher: ``min_agreement``. Of an embedding, against the teacher too: ``min_cosine``,
    the mean cosine to its vectors; ``min_recall``, the share of its ``neighbours`` nearest among ``searched`` other
    held-out inputs (drawn for each, the same number whatever the holdout has, which must have as many) that are the
    student's nearest; ``max_cosine_loss`` and ``max_recall_loss``, how far each may fall below the champion's;
    ``max_forgetting`` is then the fall of the mean cosine on older regimes.

    Of tagging, where accuracy and agreement are those of whole texts: ``min_span_f1``, of the spans that are found by
    exact boundaries and kind against truth, ``min_span_agreement``, the same against the teacher's spans, and
    ``max_span_f1_loss``, the largest drop of the first against the champion.

    Robustness, as a loss of agreement with the teacher: ``max_noise_loss`` under each seeded disturbance,
    ``max_attack_loss`` under the adversarial search; ``disturbance`` says how. The export: ``max_parity_gap``, the
    share of holdout labels that differ between the float model and the artifact, and ``max_probability_gap``, the mean
    total variation between their probabilities, both for every export that ``student.export`` names; sizes in bytes,
    ``max_memory_bytes`` that a process grows by to load and run it, ``max_cold_start_ms`` until it first answers;
    latency in milliseconds per input, ``max_latency_ratio`` of the 99th percentile to the champion's in the same run;
    ``max_cost_per_1000`` inputs in the currency of ``core_hour_price``, which has no default.

    ``max_membership_advantage``: how much more often a threshold of the loss may take rows that the student learnt from
    for such than rows that it did not (:mod:`drift.membership`).

    ``max_extraction_fidelity``: how often a surrogate that learnt from the student's answers may say what the student
    says; ``extraction`` says how it learns, and has it measured where there is no limit.

    ``groups``, by a name of their own: between which groups of inputs the student is to make no difference.
    """

    min_rows: Count = 50
    confidence: Annotated[float, Meta(gt=0.5, lt=1.0)] | None = None
    looks: Literal["once", "repeated"] = "once"
    min_accuracy: Share | None = None
    min_agreement: Share | None = None
    max_loss: Share | None = None
    max_slice_loss: Share | None = None
    max_forgetting: Share | None = None
    max_ece: Share | None = None
    max_noise_loss: Share | None = None
    max_attack_loss: Share | None = None
    max_parity_gap: Share | None = None
    max_probability_gap: Share | None = None
    max_p99_ms: Positive | None = None
    max_latency_ratio: Positive | None = None
    max_cold_start_ms: Positive | None = None
    max_bytes: Count | None = None
    max_memory_bytes: Count | None = None
    max_cost_per_1000: Positive | None = None
    core_hour_price: Positive | None = None
    max_rmse: Positive | None = None
    max_mae_loss: Share | None = None
    min_coverage: Share | None = None
    min_teacher_accuracy: Share | None = None
    min_micro_f1: Share | None = None
    max_micro_f1_loss: Share | None = None
    min_span_f1: Share | None = None
    min_span_agreement: Share | None = None
    max_span_f1_loss: Share | None = None
    min_cosine: Share | None = None
    min_recall: Share | None = None
    max_cosine_loss: Share | None = None
    max_recall_loss: Share | None = None
    neighbours: Count = 10
    searched: Count = 100
    max_membership_advantage: Share | None = None
    max_extraction_fidelity: Share | None = None
    extraction: Extraction | None = None
    disturbance: Disturbance = Disturbance()
    groups: dict[FEATURE_NAME, Groups] = field(default_factory=dict)


def extracted(limits: Limits) -> Extraction | None:
    """How model extraction is to be measured; None where nothing asks for it."""
    return limits.extraction or (None if limits.max_extraction_fidelity is None else Extraction())


LEAST_SEARCHED = 4
"""Inputs that are searched, as a multiple of ``neighbours``, at least: of fewer, chance finds more than a quarter."""


def check_looks(limits: Limits) -> None:
    """Refuse limits that are looked at repeatedly though their bounds are of one look.

    Those of F1 are, and those of recall, since what is searched for a query changes as rows arrive.

    Raises:
        ConfigError: ``looks`` is ``repeated`` beside one.

    """
    for name in ("min_micro_f1", "max_micro_f1_loss", "min_recall", "max_recall_loss"):
        if limits.looks == "repeated" and getattr(limits, name) is not None:
            raise ConfigError(f"limits.{name}", getattr(limits, name), "is bounded for one look: write looks: once")


def check_searched(limits: Limits) -> None:
    """Refuse a search among so few inputs that chance alone finds many of the nearest.

    Raises:
        ConfigError: ``searched`` is less than :data:`LEAST_SEARCHED` times ``neighbours``.

    """
    least = LEAST_SEARCHED * limits.neighbours
    if limits.searched < least:
        raise ConfigError("limits.searched", limits.searched, f"must be four times limits.neighbours or more: {least}")


def check_groups(limits: Limits, task: Task, payload: str, entity: Entity | None) -> None:
    """Refuse groups that contradict themselves, or are by what the spec does not have; ``payload``: the decoder.

    Raises:
        ConfigError: which field, and what about it.

    """
    for name, groups in limits.groups.items():
        field = f"limits.groups.{name}"
        by = {k: v for k in ("field", "feature", "descriptor") if (v := getattr(groups, k)) is not None}
        if len(by) != 1:
            raise ConfigError(field, sorted(by), "must name one of field, feature and descriptor")
        if groups.field is not None and payload in ("raw", "text"):
            raise ConfigError(f"{field}.field", groups.field, f"payloads of payload.decoder {payload} have no fields")
        if groups.feature is not None:
            known = [f.name for f in entity.features] if entity is not None else []
            if groups.feature not in known:
                allowed = f"must be one of features.entity.features: {', '.join(known) or 'there are none'}"
                raise ConfigError(f"{field}.feature", groups.feature, allowed)
        _check_parts(field, groups)
        if task in ("regression", "embedding") and groups.max_accuracy_gap is not None:
            allowed = f"{task} has no accuracy: limit max_agreement_gap, or max_deferral_gap"
            raise ConfigError(f"{field}.max_accuracy_gap", groups.max_accuracy_gap, allowed)


def _check_parts(field: str, groups: Groups) -> None:
    if bool(groups.values) == bool(groups.edges):
        raise ConfigError(field, groups.names, "must name values, or edges between ranges of numbers, and not both")
    if groups.values and (len(groups.values) < 2 or len(set(groups.values)) < len(groups.values)):
        raise ConfigError(f"{field}.values", groups.values, "must name two groups or more, each once")
    rising = all(a < b for a, b in pairwise(groups.edges)) and all(map(math.isfinite, groups.edges))
    if groups.edges and not rising:
        raise ConfigError(f"{field}.edges", groups.edges, "must be finite numbers in rising order")


GAPS: Mapping[str, str] = {
    "accuracy_gap": "max_accuracy_gap", "agreement_gap": "max_agreement_gap", "deferral_gap": "max_deferral_gap",
}  # fmt: skip
"""The field of :class:`Groups` that limits each measure."""
