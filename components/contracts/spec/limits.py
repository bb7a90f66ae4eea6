"""What the gate demands."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

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
    error less its bias (an estimate, whatever the confidence); ``min_teacher_accuracy``. Against the teacher:
    ``min_agreement``.

    Robustness, as a loss of agreement with the teacher: ``max_noise_loss`` under each seeded disturbance,
    ``max_attack_loss`` under the adversarial search; ``disturbance`` says how. The export: ``max_parity_gap``, the
    share of holdout labels that differ between the float model and the artifact, and ``max_probability_gap``, the mean
    total variation between their probabilities, both for every export that ``student.export`` names; sizes in bytes,
    ``max_memory_bytes`` that a process grows by to load and run it, ``max_cold_start_ms`` until it first answers;
    latency in milliseconds per input, ``max_latency_ratio`` of the 99th percentile to the champion's in the same run;
    ``max_cost_per_1000`` inputs in the currency of ``core_hour_price``, which has no default.
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
    disturbance: Disturbance = Disturbance()
