"""How many new labels an update needs, so that the student that is made of them can be judged at all."""

from __future__ import annotations

import math

from components.contracts.spec import Spec
from drift.paired import POWER, least_rows


def least_labels(spec: Spec) -> int:
    """The lower bound: with fewer new labels no student could pass the gate, however good it is.

    ``trigger.least_labels``, or so many that with a chance of :data:`drift.paired.POWER` as many of them are held out
    as each limit asks of a student without a fault.
    """
    if spec.trigger.least_labels is not None:
        return spec.trigger.least_labels
    limits, rows = spec.limits, [spec.limits.min_rows]
    if limits.confidence is not None:
        shares = (limits.min_agreement, limits.min_accuracy, limits.min_teacher_accuracy, limits.min_coverage)
        rows += [least_rows(1.0 - share, limits.confidence) for share in shares if share is not None and share > 0.0]
    return labels_for(max(rows), spec)


def labels_for(rows: int, spec: Spec) -> int:
    """The least number of labels of which so many are held out with a chance of :data:`drift.paired.POWER`."""
    from scipy.special import bdtrc

    audited, held = spec.label.audit_share, spec.student.holdout_share
    share = audited + (1.0 - audited) * held
    found = math.ceil(rows / share)
    while bdtrc(rows - 1, found, share) < POWER:
        found += 1
    return found
