"""How many rows of a window are held out, and which of older windows' are released for learning.

A content's place in [0, 1) is its hash (:func:`components.snapshot.table.place`), the same in every window. A window
holds out its audit slice and the contents below its *holdout share*, which is as large as its verdict needs and at most
``student.holdout_share``. Once a champion serves, each newer window releases what the older windows of its teacher hold
out at or above its *kept share*: those rows judge no student from then on, and are learnt from. A kept share never
rises, and the windows' own shares are never below it, so that what judges a student was learnt from by none of its
line, and a content that is kept is held out whenever it comes again. Both shares stand in the window's manifest: an
update that is made again finds the same rows on the same sides. A manifest without them releases nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from components.contracts.records import NAMED, Label, Task
from components.contracts.spec import Limits, Spec
from components.control.tables import WindowRow
from components.snapshot.leaks import REFUSED, guarded
from components.snapshot.table import place, snapshot_table
from drift.looks import level_of
from drift.measured import normal_quantile, rows_beside
from drift.paired import MOST_LABELS, POWER, PRICE_OF_LOOKS, PairedLoss, least_rows

if TYPE_CHECKING:
    import pyarrow as pa

KEPT, SHARE = "kept_share", "holdout_share"
"""The names of a window's shares in its manifest."""

LOOKS = 2
"""Students of one window that a holdout is planned for: the level falls with each (:func:`drift.looks.level_of`)."""

DIFFER = 0.1
"""Share of the rows on which one alone of a planned update and its champion is right."""

COSINES_DIFFER = 0.2
"""Standard deviation of the rows' cosine losses between a planned embedding and its champion."""

FARTHEST_LOSS = 2.0
"""The largest cosine loss of a row."""

ERRS = 0.5
"""What a planned student errs, as a part of what the limit allows."""

DEFERRAL_CONFIDENCE = 0.99
"""Of the bound that certifies a limit of deferral: its 5 % are shared by five sequences (:mod:`drift.deferral`)."""

PLANNED = 1_000_000
"""Rows of the comparison from which one is planned: enough for its shares to be exact."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """How many held-out ``rows`` a verdict needs, ``truths`` of them with truth; infinite: all that there can be."""

    rows: float
    truths: float


def needed(spec: Spec) -> Need:
    """Rows with which a student that errs half as often as the limits allow, or as its champion does, mostly passes.

    It does so with a chance of :data:`drift.paired.POWER` on each limit. Where a limit is judged by an estimate, on
    each class or group, or by an error without a largest value, no number is enough.
    """
    limits = spec.limits
    if limits.confidence is None:
        return Need(rows=math.inf, truths=math.inf)
    level = level_of(limits.confidence, LOOKS)
    least, price = float(limits.min_rows), PRICE_OF_LOOKS if limits.looks == "repeated" else 1.0
    rows, truths = [least], [0.0]
    if limits.min_agreement is not None:
        rows.append(price * _for_share(limits.min_agreement, level))
    if spec.serve.max_disagreement is not None:
        rows.append(_for_share(1.0 - spec.serve.max_disagreement, DEFERRAL_CONFIDENCE))
    if limits.max_parity_gap is not None:
        rows.append(float(least_rows(limits.max_parity_gap, limits.confidence)))
    if spec.serve.novelty is not None:  # half of them say what is usual: the least p-value is to be below the level
        rows.append(2.0 * math.ceil(1.0 / spec.serve.novelty))
    if (limits.max_noise_loss, limits.max_attack_loss) != (None, None):
        rows.append(float(limits.disturbance.rows))
    for share in (limits.min_accuracy, limits.min_teacher_accuracy, limits.min_coverage):
        if share is not None:
            truths.append(max(least, price * _for_share(share, level)))
    if limits.max_loss is not None:
        truths.append(max(least, price * _for_loss(limits.max_loss, level) if _compares_shares(spec) else math.inf))
    of_truth = (
        limits.max_slice_loss, limits.max_ece, limits.max_rmse, limits.max_mae_loss, limits.min_micro_f1,
        limits.max_micro_f1_loss, limits.min_span_f1, limits.max_span_f1_loss,
    )  # fmt: skip
    if any(x is not None for x in of_truth):
        truths.append(math.inf)
    told = (
        limits.max_membership_advantage, limits.max_extraction_fidelity, limits.min_span_agreement,
        limits.min_cosine, limits.min_recall, limits.max_cosine_loss, limits.max_recall_loss,
    )  # fmt: skip
    if any(x is not None for x in told):
        rows.append(math.inf)
    for groups in limits.groups.values():
        if groups.max_accuracy_gap is not None:
            truths.append(math.inf)
        if (groups.max_agreement_gap, groups.max_deferral_gap) != (None, None):
            rows.append(math.inf)
    return Need(rows=max(rows), truths=max(truths))


def _compares_shares(spec: Spec) -> bool:
    return spec.task in NAMED


def _for_share(limit: float, confidence: float) -> float:
    """Rows that show a share to be at least ``limit``, planned by the normal approximation."""
    from scipy.special import ndtri

    planned = 1.0 - ERRS * (1.0 - limit)
    if planned <= limit or limit <= 0.0:
        return math.inf if limit > 0.0 else 0.0
    spread = float(ndtri(confidence)) * math.sqrt(limit * (1.0 - limit))
    spread += float(ndtri(POWER)) * math.sqrt(planned * (1.0 - planned))
    return math.ceil(max((spread / (planned - limit)) ** 2, least_rows(1.0 - limit, confidence)))


def _for_loss(limit: float, confidence: float) -> float:
    half = DIFFER * PLANNED / 2.0
    planned = PairedLoss(lost=half, won=half, n=PLANNED, effective=float(PLANNED))
    return planned.needed(limit, "upper", confidence, now=True) or math.inf


def enough(limits: Limits, task: Task) -> int:
    """Truths that a group of older windows needs: an older regime gets no further labels, and must be able to decide.

    Planned as a new window's are: with so many an equally good student that differs on a tenth of the rows keeps
    ``max_forgetting`` with a chance of :data:`drift.paired.POWER`. Of an embedding rows, with which one does so whose
    cosine losses deviate by :data:`COSINES_DIFFER`.
    """
    if limits.confidence is None or limits.max_forgetting is None:
        return limits.min_rows
    planned = _for_cosine_loss if task == "embedding" else _for_loss
    return max(limits.min_rows, int(min(planned(limits.max_forgetting, limits.confidence), MOST_LABELS)))


def _for_cosine_loss(limit: float, confidence: float) -> float:
    z = normal_quantile(confidence) + normal_quantile(POWER)
    return rows_beside(z, COSINES_DIFFER, FARTHEST_LOSS, limit) or math.inf


def kept_shares(windows: Sequence[WindowRow]) -> dict[int, float]:
    """Which share of the contents each window, by its number, still holds out now that all ``windows`` are known.

    What a window says holds for the older ones of its teacher, whose holdouts judge students beside its own.
    """
    said: dict[str, float] = {}
    found: dict[int, float] = {}
    for window in sorted(windows, key=lambda w: w.number, reverse=True):
        teacher = str(window.manifest.get("teacher", ""))
        found[window.number] = said.get(teacher, 1.0)
        said.setdefault(teacher, float(window.manifest.get(KEPT, 1.0)))
    return found


def standing(table: pa.Table, kept: float) -> pa.Table:
    """A snapshot's table with its sides as they stand: what is released is among the rows to learn from.

    So is what was refused, since what it is like may be released; what it is like that is not keeps it from being
    learnt from (:class:`components.snapshot.leaks.HeldOut`).
    """
    if kept >= 1.0:
        return table
    import pyarrow as pa

    rows = zip(table["content"].to_pylist(), table["split"].to_pylist(), strict=True)
    sides = ["train" if side == REFUSED or (side == "holdout" and place(c) >= kept) else side for c, side in rows]
    at = table.schema.get_field_index("split")
    return table.set_column(at, table.schema.field("split"), pa.array(sides, pa.string()))


@dataclass(frozen=True, kw_only=True)
class Parted:
    """A window's table with its rows on their sides, how many were put on another by reason, and the two shares.

    ``learnt_share``: of all labels of the teacher's windows, this one among them, those that may be learnt from now.
    """

    table: pa.Table
    leaks: Counter[str]
    holdout_share: float
    kept_share: float
    learnt_share: float

    @property
    def manifest(self) -> dict[str, Any]:
        """What the window's manifest has of it."""
        shares = {SHARE: self.holdout_share, KEPT: self.kept_share, "learnt_share": self.learnt_share}
        return {**shares, "leaks": dict(self.leaks)}


def parted(
    spec: Spec,
    labels: Sequence[Label],
    truths: Mapping[str, Mapping[str, Any]],
    earlier: Sequence[tuple[WindowRow, pa.Table]],
    *,
    teacher: str,
    serves: bool,
    short: bool,
) -> Parted:
    """The rows of a new window of ``teacher`` on the sides that they belong on.

    ``earlier``: the windows before, oldest first, each with at least ``content``, ``split``, ``audit``, ``sketch`` and
    ``truth_known_at`` of its snapshot. ``serves``: whether there is a champion; before, all holdouts together judge the
    first student, and none is released. ``short``: the last student was held for want of evidence: as much as may be is
    held out.
    """
    windows, releases = [w for w, _ in earlier], spec.student.releases
    kept = _kept(spec, earlier, teacher) if releases and serves else _last_kept(windows, teacher)
    shares = kept_shares(windows)
    for window in windows:
        if window.manifest.get("teacher", "") == teacher:
            shares[window.number] = min(shares[window.number], kept)
    before = [standing(table, shares[w.number]) for w, table in earlier]
    share = spec.student.holdout_share
    whole = snapshot_table(labels, truths, share)
    if releases and not short:
        share = _share(spec, whole, before)
        whole = snapshot_table(labels, truths, share)
    table, moved = guarded(spec, whole, before)
    own = [t for w, t in zip(windows, before, strict=True) if w.manifest.get("teacher", "") == teacher]
    sides = [side for t in (*own, table) for side in t["split"].to_pylist()]
    learnt = sides.count("train") / len(sides)
    return Parted(table=table, leaks=moved, holdout_share=share, kept_share=kept, learnt_share=learnt)


def _last_kept(windows: Sequence[WindowRow], teacher: str) -> float:
    """The kept share of the newest window of a teacher: what it released stays so."""
    of = [w for w in windows if w.manifest.get("teacher", "") == teacher]
    return float(of[-1].manifest.get(KEPT, 1.0)) if of else 1.0


def _kept(spec: Spec, earlier: Sequence[tuple[WindowRow, pa.Table]], teacher: str) -> float:
    """The share of the older windows' contents that is held out further on.

    That is ``student.kept_share``, or more while fewer truths than forgetting is judged on would be left of them (of an
    embedding, which has no truth: rows).
    """
    windows = [w for w, _ in earlier]
    last, shares = _last_kept(windows, teacher), kept_shares(windows)
    wanted = enough(spec.limits, spec.task) if spec.limits.max_forgetting is not None else 0
    places: list[float] = []
    for window, table in earlier:
        if window.manifest.get("teacher", "") == teacher:
            places += [
                place(c)
                for c, known in _held(standing(table, shares[window.number]))
                if known or spec.task == "embedding"
            ]
    floor = sorted(places)[wanted] if len(places) > wanted else 1.0
    return min(last, max(spec.student.kept_share, floor if wanted else 0.0))


def _held(table: pa.Table) -> list[tuple[str, bool]]:
    """Contents that are held out, and whether their truth is known."""
    columns = (table[name].to_pylist() for name in ("content", "split", "truth_known_at"))
    return [(c, known is not None) for c, side, known in zip(*columns, strict=True) if side == "holdout"]


def _share(spec: Spec, whole: pa.Table, before: Sequence[pa.Table]) -> float:
    """The least share that holds out what the verdict and the monitors need of a window, at most the spec's.

    Rows that a policy chose with unequal chances say less than their number, and contents that were learnt from cannot
    be held out: of the former all that may be are, and the latter are not counted.
    """
    most = spec.student.holdout_share
    if any(p < 1.0 and not a for p, a in _pairs(whole, "probability", "audit")):
        return most
    need = needed(spec)
    left = spec.monitor.reference - sum(len(_held(table)) for table in before)
    rows, truths = max(need.rows, float(left)), need.truths
    learnt = {c for table in before for c, side in _pairs(table, "content", "split") if side == "train"}
    columns = (whole[name].to_pylist() for name in ("content", "audit", "truth_known_at", "synthetic"))
    found = sorted(
        (0.0 if audit else place(c), known is not None)
        for c, audit, known, made_up in zip(*columns, strict=True)
        if made_up is None and (audit or c not in learnt)
    )
    for at, known in found:
        if at >= most:
            break
        if rows <= 0 and truths <= 0:
            return max(at, min(spec.student.kept_share, most))
        rows, truths = rows - 1, truths - known
    return most


def _pairs(table: pa.Table, one: str, two: str) -> list[tuple[Any, Any]]:
    return cast("list[tuple[Any, Any]]", list(zip(table[one].to_pylist(), table[two].to_pylist(), strict=True)))
