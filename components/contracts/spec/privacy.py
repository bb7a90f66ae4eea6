"""What an update may tell of the rows that it learns from: differential privacy of the student's weights."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from components.contracts.spec.fields import Positive, Section

FIELD = "student.privacy"

PrivacyUnit = Literal["input", "key"]


class Privacy(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bound on what the weights of a student, over all updates of its lineage, tell of one unit.

    ``epsilon`` and ``delta``: they are (``epsilon``, ``delta``)-differentially private (C. Dwork & A. Roth, "The
    algorithmic foundations of differential privacy", 2014); ``delta`` belongs well below one over the number of rows.
    ``unit``: what is protected, one ``input`` or all inputs of one ``key``; at most one row of each takes part in an
    update, the newest. ``clip``: the most that the gradient of one row may be long (DP-SGD, M. Abadi et al., arXiv
    1607.00133).

    ``update_epsilon``: what one update may spend, from which its noise follows; or ``noise``: the deviation of the
    noise in multiples of ``clip``, from which what is spent follows. Left out, both: the first update may spend all.

    ``centre`` and ``spread`` are about the mean and the deviation of a regression's values: known beforehand and not
    read from the rows, which would tell of them.
    """

    epsilon: Positive
    delta: Annotated[float, Meta(gt=0.0, lt=1.0)]
    clip: Positive = 1.0
    unit: PrivacyUnit = "input"
    update_epsilon: Positive | None = None
    noise: Positive | None = None
    centre: float | None = None
    spread: Positive | None = None
