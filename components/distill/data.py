"""From snapshots to the arrays that an update trains on.

Shapes: N rows, C classes (2 for regression).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from components.contracts.errors import ProvenanceError
from components.contracts.payload import decoder
from components.contracts.records import SoftLabel, Task, content_hash
from components.contracts.sampling import bucket
from components.contracts.spec import PrivacyUnit, Spec
from components.control.tables import WindowRow
from components.distill.replay import balanced_sample
from components.snapshot.holdout import kept_shares, standing
from components.snapshot.leaks import learnable
from components.snapshot.table import calibrates, soft_of
from components.snapshot.window import read
from components.student.features import Features, featuriser
from components.teachers.contract import declared_of
from drift.reweight import stratum_weights

if TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "holdout"]

COLUMNS = [
    "input_id", "key", "payload", "content", "teacher", "soft", "truth_label", "truth_value", "split", "probability",
    "audit", "sketch", "synthetic",
]  # fmt: skip

MIN_SCALE = 1e-3
"""Least predictive deviation of a regression student, in the unit that it learns in: keeps its likelihood finite."""

ASIDE_ROWS = 90
"""Rows that are to calibrate where the share of them is fewer: three times as many as are fitted on at least."""

MOST_ASIDE = 0.35
"""Most of the rows that the second network does not learn from: of fewer it would become another than the first."""

NO_TRUTH = -1
"""Stands in a classification's truth for a row whose truth is not known, or is no class of the student."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of snapshots: payloads as they came, soft labels, and truth where it is known.

    ``weights`` (> 0): how much each row says of the traffic (:func:`drift.reweight.stratum_weights`); left out: all the
    same. ``ids`` and ``keys``: of the inputs and their entities; ``audit``: whether each is of the audit slice;
    ``synthetic``: how each was made up (empty: it is of the traffic); left out: unknown, and none.
    """

    payloads: list[bytes]
    soft: list[SoftLabel]
    truth: list[str | float | None]
    weights: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    audit: list[bool] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    synthetic: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, value in (("weights", 1.0), ("ids", ""), ("audit", False), ("keys", ""), ("synthetic", "")):
            if not getattr(self, name):
                object.__setattr__(self, name, [value] * len(self.payloads))

    def __len__(self) -> int:
        return len(self.payloads)

    def take(self, indices: Sequence[int]) -> Rows:
        """Some of the rows."""
        return Rows(
            payloads=[self.payloads[i] for i in indices],
            soft=[self.soft[i] for i in indices],
            truth=[self.truth[i] for i in indices],
            weights=[self.weights[i] for i in indices],
            ids=[self.ids[i] for i in indices],
            audit=[self.audit[i] for i in indices],
            keys=[self.keys[i] for i in indices],
            synthetic=[self.synthetic[i] for i in indices],
        )

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            payloads=self.payloads + other.payloads,
            soft=self.soft + other.soft,
            truth=self.truth + other.truth,
            weights=self.weights + other.weights,
            ids=self.ids + other.ids,
            audit=self.audit + other.audit,
            keys=self.keys + other.keys,
            synthetic=self.synthetic + other.synthetic,
        )


NONE = Rows(payloads=[], soft=[], truth=[])


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Arrays of an update: features by name, (N, ...) each, soft (N, C), truth (N,).

    Classification: ``soft`` are probabilities, ``truth`` class indices or :data:`NO_TRUTH`. Regression: ``soft`` are
    value and scale, ``truth`` values or NaN, all in the student's unit. Both are None of rows without labels.
    ``states``: the teacher's inner states by name, and where they are of positions its ``mask``.
    """

    features: Features
    soft: npt.NDArray[np.float32] | None
    truth: npt.NDArray[Any] | None
    states: Features = field(default_factory=dict)
    mask: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.features.values())))

    def take(self, rows: npt.NDArray[np.bool_]) -> TrainingSet:
        """The rows that are True."""
        return TrainingSet(
            features={name: array[rows] for name, array in self.features.items()},
            soft=None if self.soft is None else self.soft[rows],
            truth=None if self.truth is None else self.truth[rows],
            states={name: array[rows] for name, array in self.states.items()},
            mask=None if self.mask is None else self.mask[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What a regression student's targets are measured in while it learns: (value - ``mean``) / ``scale``."""

    mean: float
    scale: float


def unit_of(rows: Rows) -> Unit:
    """The mean and the deviation of the teacher's values; the deviation of equal values counts as one."""
    values = np.array([s.value for s in rows.soft], dtype=np.float64)
    return Unit(mean=float(values.mean()), scale=float(values.std()) or 1.0)


def declared_teacher(spec: Spec, windows: Sequence[WindowRow]) -> str:
    """The teacher that the spec declares, else the one that the newest window was frozen under.

    Of a declared one the behaviour counts that the newest window was frozen under: a changed one that was accepted is
    another teacher (``name@digest#epoch``).
    """
    newest = str(windows[-1].manifest["teacher"])
    return newest if spec.teacher_digest in (None, declared_of(newest)) else str(spec.teacher_digest)


def replayable(spec: Spec, windows: Sequence[WindowRow]) -> list[WindowRow]:
    """The older windows that were frozen under the declared teacher: another teacher's labels are not replayed."""
    teacher = declared_teacher(spec, windows)
    return [w for w in windows[:-1] if w.manifest["teacher"] == teacher]


def window_rows(window: WindowRow, split: Split, task: Task, teacher: str, kept: float = 1.0) -> Rows:
    """One side of a snapshot; the other side's content is not looked at.

    ``kept``: the share of the contents that it still holds out (:func:`components.snapshot.holdout.kept_shares`).

    Raises:
        ProvenanceError: a row's label, on either side, was not made by ``teacher``.
        ArtifactError: the snapshot is missing or not what was frozen.

    """
    return _side(standing(_table(window), kept), split, task, teacher)


def _table(window: WindowRow) -> pa.Table:
    return read(window.uri, window.digest).select(COLUMNS)


def _side(table: pa.Table, split: Split, task: Task, teacher: str, only: Collection[str] | None = None) -> Rows:
    """One side of a snapshot's table, of it ``only`` these inputs if given."""
    for input_id, found in zip(table["input_id"].to_pylist(), table["teacher"].to_pylist(), strict=True):
        if found != teacher:
            raise ProvenanceError(input_id, teacher, found)
    sides = zip(table["split"].to_pylist(), table["input_id"].to_pylist(), strict=True)
    kept = table.filter([side == split and (only is None or name in only) for side, name in sides])
    return Rows(
        payloads=kept["payload"].to_pylist(),
        soft=[soft_of(s) for s in kept["soft"].to_pylist()],
        truth=kept["truth_value" if task == "regression" else "truth_label"].to_pylist(),
        weights=stratum_weights(kept["probability"].to_pylist(), kept["audit"].to_pylist()),
        ids=kept["input_id"].to_pylist(),
        audit=kept["audit"].to_pylist(),
        keys=kept["key"].to_pylist(),
        synthetic=[made_up or "" for made_up in kept["synthetic"].to_pylist()],
    )


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What an update sees: ``new`` rows and ``replay`` of older ones to learn from, and rows for ``calibration``.

    ``refused``: rows that were frozen to be learnt from and are not, since they are like what is held out;
    ``released``: new rows of older windows, that were held out until now. ``aside``: the places of the calibration's
    rows among the new ones and the replay after them, where they are learnt from too; empty where they are not.
    ``labels``: rows of all windows of the teacher, how many of them may be ``learnt`` from, and how many were made up,
    by how.
    """

    new: Rows
    replay: Rows
    calibration: Rows
    refused: int
    released: int = 0
    aside: tuple[int, ...] = ()
    labels: int = 0
    learnt: int = 0
    synthetic: dict[str, int] = field(default_factory=dict)


def update_rows(spec: Spec, windows: Sequence[WindowRow], seed: int, *, fresh: bool = False) -> Learnt:
    """The newest window's training rows, a class-balanced replay of the older ones', and rows to calibrate on.

    What the newest window releases of the older ones' holdouts is among the new rows: every label has its turn. What is
    held out in any of them is not learnt from, under whatever input it came again, nor what is nearly equal to it
    (:mod:`components.snapshot.leaks`). Calibration rows are a share of the contents that nothing has learnt from yet
    (of a ``fresh`` student all, of an update the new ones), or, where they are never learnt from, of all contents, the
    same in every window.
    In private at most one row of each unit is among new rows and replay together, and replay is not balanced.

    Raises:
        ProvenanceError: a row's label was not made by the declared teacher.
        ArtifactError: a snapshot is missing or not what was frozen.

    """
    teacher = declared_teacher(spec, windows)
    raw = [(window, _table(window)) for window in (*replayable(spec, windows), windows[-1])]
    now, before = kept_shares(windows), kept_shares(windows[:-1])
    tables = [(window, standing(table, now[window.number])) for window, table in raw]
    allowed = learnable(spec, tables)
    parts = [_side(table, "train", spec.task, teacher, allowed[window.digest]) for window, table in tables]
    frozen = sum(table["split"].to_pylist().count("train") for _, table in tables)
    apart = [(rows, NONE) if spec.student.crossfits else _calibrating(spec, rows) for rows in parts]
    learnt, kept = [rows for rows, _ in apart], [rows for _, rows in apart]
    count = sum(len(rows) for rows in learnt)
    if spec.student.privacy is not None:
        learnt = newest_of_each(learnt, spec.student.privacy.unit)
    turns = [
        _turned(standing(table, before[window.number]), rows)
        for (window, table), rows in zip(raw[:-1], learnt[:-1], strict=True)
    ]
    released, old = sum((new for new, _ in turns), NONE), sum((rest for _, rest in turns), NONE)
    new = learnt[-1] + released
    if spec.student.privacy is not None:
        replay = _replayed_apart(old, spec.student.privacy.unit, spec.student.replay_rows, windows[-1].number)
    else:
        kinds = [s.label if spec.task == "classification" else "" for s in old.soft]
        replay = old.take(balanced_sample(kinds, spec.student.replay_rows, seed))
    aside = _aside(spec, new + replay if fresh else new, NONE if fresh else old) if spec.student.crossfits else ()
    return Learnt(
        new=new,
        replay=replay,
        calibration=(new + replay).take(aside) if spec.student.crossfits else sum(kept, NONE),
        refused=frozen - sum(len(rows) for rows in parts),
        released=len(released),
        aside=aside,
        labels=sum(table.num_rows for _, table in raw),
        learnt=count,
        synthetic=dict(Counter(how for _, table in raw for how in table["synthetic"].to_pylist() if how)),
    )


def _turned(before: pa.Table, rows: Rows) -> tuple[Rows, Rows]:
    """Rows of an older window that could not be learnt from yet as its table ``before`` stands, and the others."""
    known = {i for i, side in zip(before["input_id"].to_pylist(), before["split"].to_pylist(), strict=True)
             if side == "train"}  # fmt: skip
    return (
        rows.take([i for i, name in enumerate(rows.ids) if name not in known]),
        rows.take([i for i, name in enumerate(rows.ids) if name in known]),
    )


def _aside(spec: Spec, new: Rows, old: Rows) -> tuple[int, ...]:
    """The places of the rows that calibrate: a share of the contents, and of a few rows a larger one.

    None of them is among the old rows, which what the update starts from may have learnt, and none was made up.
    """
    share = spec.student.calibration_share
    if share:
        share = max(share, min(MOST_ASIDE, ASIDE_ROWS / max(new.synthetic.count(""), 1)))
    known = {content_hash(p) for p in old.payloads}
    contents = zip(map(content_hash, new.payloads), new.synthetic, strict=True)
    return tuple(
        i for i, (c, made_up) in enumerate(contents) if not made_up and calibrates(c, share) and c not in known
    )


def newest_of_each(windows: Sequence[Rows], unit: PrivacyUnit) -> list[Rows]:
    """The rows of windows, oldest first, without all but the newest of each input, or of each key.

    Which row of a unit stays is decided by its own rows alone, so that a unit more or less changes one row.
    """
    named = [rows.keys if unit == "key" else rows.ids for rows in windows]
    last = {name: (place, i) for place, names in enumerate(named) for i, name in enumerate(names)}
    return [
        rows.take([i for i, name in enumerate(names) if last[name] == (place, i)])
        for place, (rows, names) in enumerate(zip(windows, named, strict=True))
    ]


def _replayed_apart(old: Rows, unit: PrivacyUnit, wanted: int, window: int) -> Rows:
    """About ``wanted`` of the older rows: each one's own hash decides, whatever others there are.

    A sample that is balanced over the classes would not do in private: one row more would choose others.
    """
    names = old.keys if unit == "key" else old.ids
    share = wanted / max(len(old), 1)
    return old.take([i for i, name in enumerate(names) if bucket("", f"replay-{window}", name) < share])


def _calibrating(spec: Spec, rows: Rows) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to calibrate on, parted by a hash of their content."""
    share = spec.student.calibration_share
    parts = [
        not made_up and calibrates(content_hash(p), share)
        for p, made_up in zip(rows.payloads, rows.synthetic, strict=True)
    ]
    return (
        rows.take([i for i, aside in enumerate(parts) if not aside]),
        rows.take([i for i, aside in enumerate(parts) if aside]),
    )


def holdouts(spec: Spec, windows: Sequence[WindowRow]) -> list[tuple[WindowRow, Rows]]:
    """What the windows that a student may learn from still hold out, the newest one's last.

    Raises:
        ProvenanceError: a row's label was not made by the declared teacher.
        ArtifactError: a snapshot is missing or not what was frozen.

    """
    teacher, usable = declared_teacher(spec, windows), [*replayable(spec, windows), windows[-1]]
    kept = kept_shares(windows)
    return [(w, window_rows(w, "holdout", spec.task, teacher, kept[w.number])) for w in usable]


def holdout_payloads(spec: Spec, windows: Sequence[WindowRow]) -> list[bytes]:
    """The inputs alone of :func:`holdouts`: what two forms of one student are compared on."""
    return [payload for _, rows in holdouts(spec, windows) for payload in rows.payloads]


def encoded(spec: Spec, payloads: Sequence[bytes]) -> Features:
    """Features of inputs as they came."""
    decode = decoder(spec.payload, spec.source)
    return featuriser(spec.features, spec.source).encode([decode(p) for p in payloads])


def arrays(spec: Spec, rows: Rows, head: Sequence[str] | Unit) -> TrainingSet:
    """Features and targets for a head of these classes, or in this unit.

    Probability outside the classes is spread over them in proportion: they hold every row's most probable class.
    """
    features = encoded(spec, rows.payloads)
    if isinstance(head, Unit):
        values = np.array([[(s.value or 0.0) - head.mean, s.scale] for s in rows.soft], dtype=np.float64) / head.scale
        known = np.array([np.nan if t is None else t for t in rows.truth], dtype=np.float64)
        truth = ((known - head.mean) / head.scale).astype(np.float32)
        return TrainingSet(features=features, soft=values.astype(np.float32), truth=truth)
    place = {c: i for i, c in enumerate(head)}
    soft = np.zeros((len(rows), len(place)), dtype=np.float32)
    for i, label in enumerate(rows.soft):
        for name in label.distribution.keys() & place.keys():
            soft[i, place[name]] = label.distribution[name]
    soft /= soft.sum(axis=1, keepdims=True)
    classes = np.array([place.get(str(t), NO_TRUTH) for t in rows.truth], dtype=np.int64)
    return TrainingSet(features=features, soft=soft, truth=classes)
