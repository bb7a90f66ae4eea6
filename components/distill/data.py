"""From snapshots to the arrays that an update trains on.

Shapes: N rows, C classes (2 for regression, D + 1 for vectors of D numbers).
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from components.contracts.errors import ProvenanceError
from components.contracts.payload import carrying, decoder, knowing
from components.contracts.records import CLASSED, SoftLabel, Task, content_hash, set_of
from components.contracts.sampling import bucket
from components.contracts.spec import PrivacyUnit, Spec
from components.control.tables import WindowRow
from components.distill import columns
from components.distill.columns import Texts, View, taken
from components.distill.replay import balanced_sample
from components.distill.tagging import places_of, token_targets
from components.snapshot.holdout import kept_shares, standing
from components.snapshot.leaks import SIDES, HeldOut
from components.snapshot.table import calibrates, known_of, soft_of
from components.snapshot.window import Frozen, opened
from components.student.features import Features, featuriser, longest
from components.teachers.contract import declared_of
from drift.reweight import stratum_weights

if TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "holdout"]

COLUMNS = [
    "input_id", "key", "payload", "content", "teacher", "soft", "truth_label", "truth_value", "split", "probability",
    "audit", "sketch", "entity", "synthetic",
]  # fmt: skip

LENGTH = struct.Struct("<I")
"""Of the text that stands before a payload outside memory."""

FEATURE, STATE = "feature.", "state."
"""What names of a batch's tensors begin with that are the student's inputs, and the teacher's states."""

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
    """Rows of snapshots: payloads as they came, with what they carry of their entities, soft labels, and known truth.

    ``weights`` (> 0): how much each row says of the traffic (:func:`drift.reweight.stratum_weights`); left out: all the
    same. ``ids`` and ``keys``: of the inputs and their entities; ``audit``: whether each is of the audit slice;
    ``synthetic``: how each was made up (empty: it is of the traffic); left out: unknown, and none. ``before``: whether
    each might be learnt from before the newest window came. Columns are lists, or views of what does not lie in memory.
    """

    payloads: Sequence[bytes]
    soft: Sequence[SoftLabel]
    truth: Sequence[str | float | None]
    weights: Sequence[float] = ()
    ids: Sequence[str] = ()
    audit: Sequence[bool] = ()
    keys: Sequence[str] = ()
    synthetic: Sequence[str] = ()
    before: Sequence[bool] = ()

    def __post_init__(self) -> None:
        unknown = {"weights": 1.0, "ids": "", "audit": False, "keys": "", "synthetic": "", "before": False}
        for name, value in unknown.items():
            if not len(getattr(self, name)):
                object.__setattr__(self, name, [value] * len(self.payloads))

    def __len__(self) -> int:
        return len(self.payloads)

    def take(self, indices: Sequence[int] | columns.Places) -> Rows:
        """Some of the rows."""
        places, known = np.asarray(indices, dtype=np.int64), dict[int, columns.Places]()
        return Rows(**{
            name: column.take(places, known) if isinstance(column, View) else [column[i] for i in places.tolist()]
            for name, column in vars(self).items()
        })  # fmt: skip

    def __add__(self, other: Rows) -> Rows:
        if not len(self) or not len(other):
            return self if len(self) else other
        known = dict[int, columns.Places]()
        return Rows(**{name: _joined(column, getattr(other, name), known) for name, column in vars(self).items()})

    def listed(self) -> Rows:
        """The same rows in memory."""
        return Rows(**{name: list(column) for name, column in vars(self).items()})


def _joined(a: Sequence[Any], b: Sequence[Any], known: dict[int, columns.Places]) -> Sequence[Any]:
    return a.join(b, known) if isinstance(a, View) and isinstance(b, View) else [*a, *b]


NONE = Rows(payloads=[], soft=[], truth=[])


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Arrays of an update: features by name, (N, ...) each, soft (N, C), truth (N,).

    Classification: ``soft`` are probabilities, ``truth`` class indices or :data:`NO_TRUTH`. Multilabel: ``soft`` are
    each class's own probability, ``truth`` (N, C) is 1 of the classes that the input has and 0 of the others, or NaN.
    Tagging: as classification of each token, (N, L, C) and (N, L), of which padding has no probability at all.
    Regression: ``soft`` are value and scale, ``truth`` values or NaN, all in the student's unit. Embedding: ``soft``
    are unit vectors with their scale as the last column, ``truth`` is NaN. Both are None of rows without labels.
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
        places = np.flatnonzero(rows)
        return TrainingSet(
            features={name: taken(array, places) for name, array in self.features.items()},
            soft=None if self.soft is None else taken(self.soft, places),
            truth=None if self.truth is None else taken(self.truth, places),
            states={name: taken(array, places) for name, array in self.states.items()},
            mask=None if self.mask is None else taken(self.mask, places),
        )

    @property
    def arrays(self) -> columns.Arrays:
        """All arrays by the names that tensors of a batch have."""
        found = {f"{FEATURE}{name}": a for name, a in self.features.items()}
        found |= {f"{STATE}{name}": a for name, a in self.states.items()}
        return found | {name: a for name in ("soft", "truth", "mask") if (a := getattr(self, name)) is not None}

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> TrainingSet:
        """The rows of arrays by those names."""
        return cls(
            features={n.removeprefix(FEATURE): a for n, a in arrays.items() if n.startswith(FEATURE)},
            states={n.removeprefix(STATE): a for n, a in arrays.items() if n.startswith(STATE)},
            soft=arrays.get("soft"),
            truth=arrays.get("truth"),
            mask=arrays.get("mask"),
        )


NO_ROWS = TrainingSet(features={}, soft=None, truth=None)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What a regression student's targets are measured in while it learns: (value - ``mean``) / ``scale``."""

    mean: float
    scale: float


def unit_of(rows: Rows) -> Unit:
    """The mean and the deviation of the teacher's values; the deviation of equal values counts as one."""
    values = np.fromiter((s.value for s in rows.soft), np.float64, len(rows))
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
    with opened(window.uri, window.digest) as frozen:
        return _side(frozen, task, teacher, partial(_standing, kept=kept, split=split)).listed()


Mask = npt.NDArray[np.bool_]


def _standing(table: pa.Table, *, kept: float, split: Split) -> Mask:
    """The rows of one side as it stands where this share is still held out."""
    return np.array([side == split for side in standing(table, kept)["split"].to_pylist()], dtype=bool)


def _learnable(table: pa.Table, *, kept: float, held: HeldOut) -> Mask:
    return held.learnable(standing(table, kept))


def _side(
    frozen: Frozen,
    task: Task,
    teacher: str,
    wanted: Callable[[pa.Table], Mask],
    before: Callable[[pa.Table], Mask] = lambda table: np.zeros(table.num_rows, dtype=bool),
) -> Rows:
    """The rows of a snapshot that are ``wanted``, which lie outside memory.

    ``before``: which of them might be learnt from before the newest window came.
    """
    payloads, texts = Texts(), {name: Texts() for name in ("soft", "input_id", "key")}
    truth: list[str | float | None] = []
    synthetic: list[str] = []
    chances, audit, early = array("d"), array("b"), array("b")
    names: dict[str, str] = {}
    for table in frozen.tables(COLUMNS):
        _check_teacher(table, teacher)
        kept = wanted(table)
        early.extend(before(table)[kept].tolist())
        some = table.filter(kept)
        for payload, known in zip(some["payload"].to_pylist(), some["entity"].to_pylist(), strict=True):
            payloads.add(_with_known(payload, known))
        for name, column in texts.items():
            for value in some[name].to_pylist():
                column.add(value.encode(errors="surrogatepass"))
        found = some["truth_value" if task == "regression" else "truth_label"].to_pylist()
        truth += [names.setdefault(t, t) if isinstance(t, str) else t for t in found]
        synthetic += [names.setdefault(how, how) if how else "" for how in some["synthetic"].to_pylist()]
        chances.extend(some["probability"].to_pylist())
        audit.extend(some["audit"].to_pylist())
    weights = array("d", stratum_weights(chances, list(map(bool, audit))))
    all_ = np.arange(len(truth))
    return Rows(
        payloads=View.of(payloads, all_, _carrying),
        soft=View.of(texts["soft"], all_, soft_of),
        truth=View.of(truth, all_),
        weights=View.of(weights, all_),
        ids=View.of(texts["input_id"], all_, _text),
        audit=View.of(audit, all_, bool),
        keys=View.of(texts["key"], all_, _text),
        synthetic=View.of(synthetic, all_),
        before=View.of(early, all_, bool),
    )


def _with_known(payload: bytes, known: str | None) -> bytes:
    """A payload behind what is known of its entity, which is behind its length (four bytes; 0: nothing was asked)."""
    text = (known or "").encode()
    return LENGTH.pack(len(text)) + text + payload


def _carrying(data: bytes) -> bytes:
    """The payload of :func:`_with_known`, with what it carries."""
    (length,) = LENGTH.unpack_from(data)
    known = data[LENGTH.size : LENGTH.size + length].decode()
    return carrying(data[LENGTH.size + length :], known_of(known or None))


def _text(data: bytes) -> str:
    return data.decode(errors="surrogatepass")


def _check_teacher(table: pa.Table, teacher: str) -> None:
    for input_id, found in zip(table["input_id"].to_pylist(), table["teacher"].to_pylist(), strict=True):
        if found != teacher:
            raise ProvenanceError(input_id, teacher, found)


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
    usable = [*replayable(spec, windows), windows[-1]]
    now, then = kept_shares(windows), kept_shares(windows[:-1])
    held = HeldOut(spec)
    labels = frozen = 0
    made_up: Counter[str] = Counter()
    with ExitStack() as stack:
        files = [(window.number, stack.enter_context(opened(window.uri, window.digest))) for window in usable]
        for number, file in files:
            for table in file.tables([*SIDES, "synthetic"]):
                sides = standing(table, now[number])
                held.add(sides)
                labels += table.num_rows
                made_up.update(how for how in table["synthetic"].to_pylist() if how)
                frozen += sides["split"].to_pylist().count("train")
        parts = [
            _side(
                file,
                spec.task,
                teacher,
                wanted=partial(_learnable, kept=now[number], held=held),
                before=partial(_standing, kept=then.get(number, 1.0), split="train"),
            )
            for number, file in files
        ]
    apart = [(rows, NONE) if spec.student.crossfits else _calibrating(spec, rows) for rows in parts]
    learnt, kept = [rows for rows, _ in apart], [rows for _, rows in apart]
    count = sum(len(rows) for rows in learnt)
    if spec.student.privacy is not None:
        learnt = newest_of_each(learnt, spec.student.privacy.unit)
    older = sum(learnt[:-1], NONE)
    known = np.fromiter(older.before, dtype=bool, count=len(older))
    released, old = older.take(np.flatnonzero(~known)), older.take(np.flatnonzero(known))
    new = learnt[-1] + released
    if spec.student.privacy is not None:
        replay = _replayed_apart(old, spec.student.privacy.unit, spec.student.replay_rows, windows[-1].number)
    else:
        names: dict[str, str] = {}
        kinds = [names.setdefault(s.label, s.label) if spec.task in CLASSED else "" for s in old.soft]
        replay = old.take(balanced_sample(kinds, spec.student.replay_rows, seed))
    aside = _aside(spec, new + replay if fresh else new, NONE if fresh else old) if spec.student.crossfits else ()
    return Learnt(
        new=new,
        replay=replay,
        calibration=(new + replay).take(aside) if spec.student.crossfits else sum(kept, NONE),
        refused=frozen - sum(len(rows) for rows in parts),
        released=len(released),
        aside=aside,
        labels=labels,
        learnt=count,
        synthetic=dict(made_up),
    )


def learnt_of_newest(spec: Spec, windows: Sequence[WindowRow]) -> Rows:
    """The rows of the newest window that an update on it learns from, without what older windows release.

    Raises:
        ProvenanceError: a row's label was not made by the declared teacher.
        ArtifactError: a snapshot is missing or not what was frozen.

    """
    teacher, now, held = declared_teacher(spec, windows), kept_shares(windows), HeldOut(spec)
    for window in (*replayable(spec, windows), windows[-1]):
        with opened(window.uri, window.digest) as frozen:
            for table in frozen.tables(SIDES):
                held.add(standing(table, now[window.number]))
    newest = windows[-1]
    with opened(newest.uri, newest.digest) as frozen:
        wanted = partial(_learnable, kept=now[newest.number], held=held)
        rows = _side(frozen, spec.task, teacher, wanted=wanted).listed()
    return rows if spec.student.crossfits else _calibrating(spec, rows)[0]


def _aside(spec: Spec, new: Rows, old: Rows) -> tuple[int, ...]:
    """The places of the rows that calibrate: a share of the contents, and of a few rows a larger one.

    None of them is among the old rows, which what the update starts from may have learnt, and none was made up.
    """
    share = spec.student.calibration_share
    if share:
        share = max(share, min(MOST_ASIDE, ASIDE_ROWS / max(new.synthetic.count(""), 1)))
    chosen: dict[str, list[int]] = {}
    for i, (content, made_up) in enumerate(zip(map(content_hash, new.payloads), new.synthetic, strict=True)):
        if not made_up and calibrates(content, share):
            chosen.setdefault(content, []).append(i)
    for payload in old.payloads:
        chosen.pop(content_hash(payload), None)
    return tuple(sorted(i for places in chosen.values() for i in places))


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
    return [(window, rows.listed()) for window, rows in held_rows(spec, windows)]


def held_rows(spec: Spec, windows: Sequence[WindowRow]) -> Iterator[tuple[WindowRow, Rows]]:
    """As :func:`holdouts`, outside memory."""
    teacher, kept = declared_teacher(spec, windows), kept_shares(windows)
    for window in (*replayable(spec, windows), windows[-1]):
        with opened(window.uri, window.digest) as frozen:
            share = kept[window.number]
            wanted = partial(_standing, kept=share, split="holdout")
            yield window, _side(frozen, spec.task, teacher, wanted)


def holdout_payloads(spec: Spec, windows: Sequence[WindowRow]) -> Sequence[bytes]:
    """The inputs alone of :func:`holdouts`: what two forms of one student are compared on."""
    return sum((rows for _, rows in held_rows(spec, windows)), NONE).payloads


def encoded(spec: Spec, payloads: Sequence[bytes]) -> Features:
    """Features of inputs as they came."""
    decode, made = decoder(spec.payload, spec.source), featuriser(spec.features, spec.source)
    if spec.features.entity is not None:
        decode = knowing(decode)
    return columns.encoded(payloads, lambda some: made.encode([decode(p) for p in some]), len)


def arrays(spec: Spec, rows: Rows, head: Sequence[str] | Unit) -> TrainingSet:
    """Features and targets for a head of these classes, or in this unit; of an embedding neither is asked for.

    Probability outside the classes is spread over them in proportion: they hold every row's most probable class. Of
    multilabel, where each class has its own, what is said of other classes is left out. A truth that the head cannot
    answer, a class or a set with one outside it, is taken as unknown.
    """
    features = encoded(spec, rows.payloads)
    place = {} if isinstance(head, Unit) else {c: i for i, c in enumerate(head)}
    length = longest(features, featuriser(spec.features, spec.source).signature) if spec.task == "tagging" else 0

    def targets(span: slice) -> columns.Arrays:
        soft, truth = rows.soft[span], rows.truth[span]
        if isinstance(head, Unit):
            return _values(soft, truth, head)
        if spec.task == "embedding":
            return _vectors(soft)
        if spec.task == "tagging":
            return token_targets(soft, truth, places_of(spec, rows.payloads[span]), place, length, NO_TRUTH)
        return _sets(soft, truth, place) if spec.task == "multilabel" else _shares(soft, truth, place)

    found = columns.filled(len(rows), targets)
    return TrainingSet(features=features, soft=found["soft"], truth=found["truth"])


def _values(soft: Sequence[SoftLabel], truth: Sequence[Any], unit: Unit) -> columns.Arrays:
    values = np.array([[(s.value or 0.0) - unit.mean, s.scale] for s in soft], dtype=np.float64) / unit.scale
    known = np.array([np.nan if t is None else t for t in truth], dtype=np.float64)
    return {"soft": values.astype(np.float32), "truth": ((known - unit.mean) / unit.scale).astype(np.float32)}


def _vectors(soft: Sequence[SoftLabel]) -> columns.Arrays:
    vectors = np.array([s.vector for s in soft], dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scales = np.array([[s.scale] for s in soft], dtype=np.float64)
    found = np.concatenate([vectors, scales], axis=1).astype(np.float32)
    return {"soft": found, "truth": np.full(len(soft), np.nan, np.float32)}


def _table(soft: Sequence[SoftLabel], place: Mapping[str, int]) -> npt.NDArray[np.float32]:
    """What labels give the classes that have a place, (N, classes)."""
    shares = np.zeros((len(soft), len(place)), dtype=np.float32)
    for i, label in enumerate(soft):
        for name in label.distribution.keys() & place.keys():
            shares[i, place[name]] = label.distribution[name]
    return shares


def _shares(soft: Sequence[SoftLabel], truth: Sequence[Any], place: Mapping[str, int]) -> columns.Arrays:
    shares = _table(soft, place)
    shares /= shares.sum(axis=1, keepdims=True)
    return {"soft": shares, "truth": np.array([place.get(str(t), NO_TRUTH) for t in truth], dtype=np.int64)}


def _sets(soft: Sequence[SoftLabel], truth: Sequence[Any], place: Mapping[str, int]) -> columns.Arrays:
    known = np.zeros((len(soft), len(place)), dtype=np.float32)
    for i, said in enumerate(truth):
        names = None if said is None else set_of(said)
        if names is None or not names <= place.keys():
            known[i] = np.nan
            continue
        for name in names:
            known[i, place[name]] = 1.0
    return {"soft": _table(soft, place), "truth": known}
