"""The monitors, and when an update pays."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from components.contracts.spec.fields import Count, Positive, Section, Share


class Monitor(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Drift, entropy and novelty monitors.

    ``window`` inputs are compared with the newest ``reference`` rows that the champion was trained on (of its
    holdouts, where they are enough, and of the last regime alone that it has learnt), and as many labels. Of more than
    ``inputs_per_second`` inputs a second, on the mean, an even part is looked at: a look at a window takes about a
    tenth of a second.

    ``alpha`` is the false-alarm rate of one look at one window over all columns and kinds of alarms together;
    ``min_effect`` is the smallest effect called drift, as a Kolmogorov-Smirnov distance (for categories,
    Jensen-Shannon): 0 to 1. Detectors of other units translate it. ``detectors`` names those of a column, or of a kind
    (``numeric``, ``categorical``, ``vectors``, or ``(together)`` for the numeric columns as one), instead of the
    defaults; ``block`` is how many neighbouring inputs depend on each other, learnt from the reference when ``auto``;
    ``joint`` looks at the numeric columns' correlations, too. ``evidently`` names metrics and presets of Evidently that
    the reports show in addition; they measure and do not decide.

    ``run_length`` turns on the detector of change points, which looks at every input instead of at windows: how many
    inputs pass between two of its false alarms, on the mean, at least; a change is found the later, by the logarithm.
    None: there is no such detector.
    """

    window: Count = 150
    reference: Count = 300
    inputs_per_second: Positive = 50.0
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.01
    min_effect: Share = 0.1
    resamples: Count = 400
    detectors: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    block: Count | Literal["auto"] = "auto"
    joint: bool = True
    run_length: Annotated[int, Meta(ge=100)] | None = None
    evidently: tuple[Annotated[str, Meta(pattern=r"^[A-Z][A-Za-z0-9]*$")], ...] = ()


class Trigger(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an update pays.

    ``min_labels`` new labels start one by themselves; an alarm starts one once ``alarm_labels`` labels came after
    it (of novelty: after the new inputs probably began), so that there is something of the new traffic to learn from,
    though never with fewer new labels in all than ``least_labels``. None: as many as mostly hold out the rows without
    which the gate could let no student through.

    With ``payoff`` these are upper bounds: an update starts sooner where it is expected to pay, by the learning curve
    of the lineage (:mod:`pipelines.payoff`), though never with fewer new labels than ``least_labels``. While the
    champion keeps ``serve.max_disagreement``, it starts no sooner than with those that can certify it for its
    successor.

    ``cooldown_seconds`` is the least time between the end of one run and the start of the next.
    """

    min_labels: Count = 600
    alarm_labels: Count = 200
    payoff: bool = False
    least_labels: Count | None = None
    cooldown_seconds: Annotated[float, Meta(ge=0.0)] = 300.0
