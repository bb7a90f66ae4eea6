"""What came of an update: a registered student, or none, and why not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from components.kubeflow import NOTHING, read_candidate
from components.steps import Candidate
from drift.gate import WORST_FIRST

DECISIONS = {"hold": "held", "reject": "rejected"}

WHY_DATA_FREE = "it was taught by synthetic inputs alone, and no real one is held out to judge it by"
"""The first reason that is told of a data-free student's verdict; the verdict has those of its evidence."""


OF_TRUTH = (
    "accuracy", "teacher_accuracy", "ece", "loss", "slice_loss", "micro_f1", "micro_f1_loss", "span_f1",
    "span_f1_loss", "rmse", "mae_loss", "coverage",
)  # fmt: skip
"""What is measured of the newest window's held-out rows whose truth is known, where they are ``min_rows`` at least."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an update ended.

    ``decision``: the gate's, or ``nothing`` where there were no new labels; ``version``: of the registered student,
    None where there is none; ``reasons``: what decided, first things first; ``more_labels``: about how many more
    labelled inputs would decide, None where it is decided, or where no number of them is sure to; ``more_truths``: of
    how many held-out inputs that are still to be frozen a truth must be known by then before anything against truth is
    measured, None where it is, or where nothing asks for it; ``serves``: whether there is a champion, beside which a
    student is judged on the newest window alone; ``data_free``: whether it was taught by synthetic inputs alone.
    """

    decision: str
    version: str | None
    reasons: tuple[str, ...] = ()
    more_labels: int | None = None
    more_truths: int | None = None
    serves: bool = False
    data_free: bool = False

    @property
    def text(self) -> str:
        """One line for a person."""
        if self.version is not None:
            forced = "" if self.decision == "promote" else f", forced: the gate says {self.decision}"
            if self.data_free:
                forced = f", and {DECISIONS.get(self.decision, self.decision)}: {'; '.join(self.reasons)}"
            return f"student: version {self.version} is registered{forced}"
        if self.decision == NOTHING:
            return "no student: there are no new labels"
        line = f"no student: {DECISIONS.get(self.decision, self.decision)}: {'; '.join(self.reasons)}"
        if self.more_labels is not None:
            line += f". About {self.more_labels} more labelled inputs would decide (a part of them is held out)"
        elif self.more_truths is not None:
            whose = "held-out inputs of the next window" if self.serves else "more held-out inputs, of windows to come,"
            line += f". To measure that, the truth of {self.more_truths} {whose} must be known when these are frozen"
        elif self.decision == "hold":
            line += ". No number of labels is sure to decide"
        return line


def outcome(root: Path, outputs: Mapping[str, Any], holdout_share: float, *, serves: bool) -> Outcome | None:
    """The outcome of the run whose artifacts lie under ``root``; None of a pipeline that makes no student.

    ``outputs``: what its steps returned; ``holdout_share``: of a window's inputs, which the verdict rests on;
    ``serves``: whether there is a champion.
    """
    if "register" not in outputs:
        return None
    candidate, registered = _judged(root), str(outputs["register"])
    if candidate is None:
        return Outcome(decision=NOTHING, version=None)
    version = None if registered in (NOTHING, candidate.decision) else registered
    open_ = sorted(
        (f for f in candidate.verdict.get("findings", ()) if f["outcome"] != "pass"),
        key=lambda f: WORST_FIRST.index(f["outcome"]),
    )
    reasons = tuple(f["reason"] for f in open_) or tuple(candidate.verdict.get("reasons", ()))
    if candidate.data_free:
        reasons = (WHY_DATA_FREE, *reasons)
    held = candidate.decision == "hold"
    return Outcome(
        decision=candidate.decision,
        version=version,
        reasons=reasons,
        more_labels=_more_labels(open_, holdout_share) if held else None,
        more_truths=_more_truths(candidate, serves=serves) if held else None,
        serves=serves,
        data_free=candidate.data_free,
    )


def _judged(root: Path) -> Candidate | None:
    """The judged student of a run: the better of two where there were two."""
    for place in ("*/choose/chosen", "*/evaluate/judged"):
        for path in root.glob(place):
            return read_candidate(str(path))
    return None


def _more_truths(candidate: Candidate, *, serves: bool) -> int | None:
    """Held-out rows to come whose truth what was not measured lacks; None where that is no reason.

    A truth is joined when its window is frozen. Of the rows of before a first student is judged on all; where a
    champion serves the next one is judged on none.
    """
    findings = {f["measure"]: f for f in candidate.verdict.get("findings", ())}
    lacking = [name for name, f in findings.items() if f["outcome"] == "missing" and f["value"] is None]
    known = candidate.measurements.get("truth_rows")
    if known is None or "rows" not in findings or not any(name.partition("[")[0] in OF_TRUTH for name in lacking):
        return None
    least = float(findings["rows"]["limit"].removeprefix(">= "))
    return math.ceil(least if serves else least - known) if known < least else None


def _more_labels(missing: Sequence[Mapping[str, Any]], holdout_share: float) -> int | None:
    """Inputs from which each finding would get the held-out labels that it lacks; None where one names no number."""
    needed = [_lacking(f) for f in missing]
    if not needed or None in needed:
        return None
    return math.ceil(max(n for n in needed if n is not None) / holdout_share)


def _lacking(finding: Mapping[str, Any]) -> int | None:
    if finding["measure"] == "rows" and finding["value"] is not None:
        return max(1, math.ceil(float(finding["limit"].removeprefix(">= ")) - float(finding["value"])))
    return None if finding["more"] is None else int(finding["more"])
