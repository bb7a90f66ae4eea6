"""What cannot stand beside privacy in a spec."""

from __future__ import annotations

import math

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from components.contracts.spec.privacy import FIELD
from components.contracts.spec.student import Student


def check_privacy(student: Student, task: Task) -> None:
    """Refuse what would look at rows beside the account, and what contradicts itself.

    Raises:
        ConfigError: names the field and what to write instead.

    """
    private = student.privacy
    if private is None:
        return
    for name in ("epsilon", "clip", "update_epsilon", "noise", "centre", "spread"):
        value = getattr(private, name)
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{FIELD}.{name}", value, "must be a finite number")
    if private.noise is not None and private.update_epsilon is not None:
        raise ConfigError(f"{FIELD}.noise", private.noise, "follows from update_epsilon: give one of the two")
    if private.update_epsilon is not None and private.update_epsilon > private.epsilon:
        remedy = f"is more than the {private.epsilon:g} that all updates together may spend: lower it"
        raise ConfigError(f"{FIELD}.update_epsilon", private.update_epsilon, remedy)
    known = private.centre is not None and private.spread is not None
    if known != (task == "regression") or (private.centre is None) != (private.spread is None):
        remedy = "and spread go with a regression, both: about what its values' mean and deviation are known to be"
        raise ConfigError(f"{FIELD}.centre", private.centre, remedy)
    _check_rows(student)
    _check_terms(student)


def _check_rows(student: Student) -> None:
    """Refuse the ways of learning in which one row decides about others."""
    if student.search:
        remedy = "looks at the rows uncounted beside student.privacy: name the recipe in the variant, or the objective"
        raise ConfigError("student.search", student.search, remedy)
    if student.cohort is not None:
        remedy = "learns from others that look at the rows uncounted beside student.privacy: leave the cohort out"
        raise ConfigError("student.cohort", student.cohort.weight, remedy)
    if student.start is not None:
        remedy = "has no account of the rows here that it may tell of beside student.privacy: leave it out"
        raise ConfigError("student.start", student.start.uri, remedy)
    if student.export.pruning is not None:
        remedy = "looks at the rows uncounted beside student.privacy: leave out the pruned exports, or make the "
        raise ConfigError("student.export.pruning", student.export.pruning.share, remedy + "network smaller")
    if student.near_duplicate is not None:
        remedy = "lets one row decide whether others are learnt from: write near_duplicate: null beside student.privacy"
        raise ConfigError("student.near_duplicate", student.near_duplicate, remedy)
    if student.holdout == "released":
        remedy = "lets one row decide whether others are learnt from: write holdout: fixed beside student.privacy"
        raise ConfigError("student.holdout", student.holdout, remedy)
    if student.calibration == "crossfit":
        remedy = "learns from the rows uncounted beside student.privacy: write calibration: apart"
        raise ConfigError("student.calibration", student.calibration, remedy)
    if student.workers > 1:
        raise ConfigError("student.workers", student.workers, "must be 0 or 1 beside student.privacy")
    if student.accumulate > 1:
        remedy = "must be 1 beside student.privacy, whose steps are drawn whole: give a larger batch_size"
        raise ConfigError("student.accumulate", student.accumulate, remedy)
    for i, stage in enumerate(student.stages):
        if stage.rows == "unlabelled":
            remedy = "has no account beside student.privacy, since its inputs carry no unit: write rows: labelled, or "
            raise ConfigError(f"student.stages[{i}].rows", stage.rows, remedy + "leave the stage out")


def _check_terms(student: Student) -> None:
    """Refuse terms in which a row's loss depends on other rows: no clipping bounds what one row does there."""
    objectives = {
        "student.objective": student.objective,
        **{f"student.recipes.{name}": terms for name, terms in student.recipes.items()},
        **{f"student.stages[{i}].objective": stage.objective for i, stage in enumerate(student.stages)},
    }
    for field, terms in objectives.items():
        for i, term in enumerate(terms):
            if not term.per_row:
                remedy = "relates the rows of a batch, so that clipping bounds no row's part beside student.privacy: "
                raise ConfigError(f"{field}[{i}].term", term.name, remedy + "take hidden, attention or relation")
