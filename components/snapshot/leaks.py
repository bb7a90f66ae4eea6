"""What is held out stays out: no row is learnt from that is equal to, or nearly, one that a gate will ask about.

Rows are split by a hash of their content, so that equal content is on one side of a window; rows of the audit slice
are held out whatever their hash says. Windows may hold out different shares, and release what they held out, and
near-duplicates have other hashes. Here all of them are brought to the side of the first of their kind, as it stands now
(:mod:`components.snapshot.holdout`), and rows that may not be learnt from are *refused*: neither learnt from nor asked
about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.contracts.payload import decoder
from components.contracts.spec import Spec
from components.snapshot.likeness import Index, Sketch, Sketches, sketch
from components.snapshot.table import calibrates, split_of

if TYPE_CHECKING:
    import pyarrow as pa

REFUSED = "refused"
"""A row's split where it is alike one that is held out."""

EQUAL, ALIKE, AUDITED, MOVED = (
    "equal_to_held_out", "like_held_out", "like_audited", "moved_to_train",
)  # fmt: skip
"""Why a row's split is another than its hash says, as counted in a manifest: its content is held out already; it is
like a held-out one; it is like an audited one; it would have been held out, but it, or its like, has been learnt
from."""


class Held:
    """Everything that is held out so far, and everything that may be learnt from, by content and by likeness."""

    def __init__(self, threshold: float | None) -> None:
        self.threshold = threshold
        self.audited_contents: set[str] = set()
        self._audited = Index(1.0 if threshold is None else threshold)
        self._split = Index(1.0 if threshold is None else threshold)
        self._sides: list[str] = []
        self._contents: dict[str, str] = {}

    def add(self, row: dict[str, Any], made: Sketch | None, side: str) -> None:
        """Take in a row that has been put on a side."""
        if row["audit"] and side == "holdout":
            self.audited_contents.add(row["content"])
            if made is not None:
                self._audited.add(made)
            return
        if side != REFUSED:
            self._contents.setdefault(row["content"], side)
        if made is not None and side != REFUSED and self._split.first(made) is None:
            self._split.add(made)
            self._sides.append(side)

    def side(self, row: dict[str, Any], made: Sketch | None) -> tuple[str, str]:
        """The side that a row belongs on, and why it is another than its own; an empty reason where it is not."""
        own = str(row["split"])
        if row["audit"]:
            return own, ""
        equal = self._contents.get(row["content"], own)
        if own == "train" and (row["content"] in self.audited_contents or equal == "holdout"):
            return REFUSED, EQUAL
        if own == "holdout" and equal == "train":
            return "train", MOVED
        if made is None:
            return own, ""
        first = self._split.first(made)
        kind = own if first is None else self._sides[first]
        if kind == "train" and self._audited.first(made) is not None:
            return REFUSED, AUDITED
        if kind == "holdout" and own == "train":
            return REFUSED, ALIKE
        if kind == "train" and own == "holdout":
            return "train", MOVED
        return own, ""


def sketches(spec: Spec, table: pa.Table) -> list[Sketch | None]:
    """The sketches of a snapshot's rows: those that it holds, else made from the payloads; None: not wanted."""
    if spec.student.near_duplicate is None:
        return [None] * table.num_rows
    decode = decoder(spec.payload, spec.source)
    kept = table["sketch"].to_pylist()
    payloads = table["payload"].to_pylist() if "payload" in table.schema.names else [b""] * len(kept)
    return [
        np.frombuffer(k, dtype=np.uint32) if k else sketch(decode(p)) for k, p in zip(kept, payloads, strict=True)
    ]  # fmt: skip


def guarded(spec: Spec, table: pa.Table, earlier: Sequence[pa.Table]) -> tuple[pa.Table, Counter[str]]:
    """A new window's table with every row on the side that it belongs on, its sketches, and how many were put there.

    ``earlier``: the tables of the windows before, oldest first. Audited rows of the new window count before all its
    others, so that the order within a window does not matter for them.
    """
    import pyarrow as pa

    held = Held(spec.student.near_duplicate)
    for before in earlier:
        for row, made in _rows(spec, before):
            held.add(row, made, row["split"])
    rows = list(_rows(spec, table))
    for row, made in rows:
        if row["audit"]:
            held.add(row, made, row["split"])
    sides, counts = [], Counter[str]()
    for row, made in rows:
        side, reason = held.side(row, made)
        counts[reason] += 1
        sides.append(side)
        if not row["audit"]:
            held.add(row, made, side)
    del counts[""]
    data = [made.tobytes() if made is not None else None for _, made in rows]
    for name, values in (("split", sides), ("sketch", data)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return table, counts


def _rows(spec: Spec, table: pa.Table) -> Iterable[tuple[dict[str, Any], Sketch | None]]:
    plain = table.select(["content", "split", "audit"]).to_pylist()
    return zip(plain, sketches(spec, table), strict=True)


SIDES = ("content", "payload", "split", "sketch")
"""The columns of a snapshot that :class:`HeldOut` reads."""


class HeldOut:
    """What is held out in any of the tables that are added, by content and by likeness."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._contents: set[str] = set()
        self._sketches = Sketches(spec.student.near_duplicate or 1.0)

    def add(self, table: pa.Table) -> None:
        """Take in the rows of a snapshot, or some of them, that are held out."""
        import pyarrow.compute as pc

        held = table.filter(pc.equal(table["split"], "holdout"))
        self._contents.update(held["content"].to_pylist())
        if (made := _stacked(sketches(self._spec, held))) is not None:
            self._sketches.add(made)

    def alike(self, contents: Sequence[str], made: Sequence[Sketch | None]) -> npt.NDArray[np.bool_]:
        """Of each row whether its content, or one that it is like, is held out."""
        found = np.array([content in self._contents for content in contents], dtype=bool)
        if (stacked := _stacked(made)) is not None:
            found |= self._sketches.alike(stacked)
        return found

    def learnable(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Of each row of a snapshot whether it may be learnt from, now that all windows have been added.

        A row that was frozen as one to learn from, before its like came to the audit slice or was held out, may not.
        """
        train = np.array([side == "train" for side in table["split"].to_pylist()], dtype=bool)
        learnt = table.filter(train)
        train[train] = ~self.alike(learnt["content"].to_pylist(), sketches(self._spec, learnt))
        return train


def _stacked(made: Sequence[Sketch | None]) -> npt.NDArray[np.uint32] | None:
    """Sketches as one array; None where there are none."""
    found = [sketch for sketch in made if sketch is not None]
    return np.stack(found) if found else None


def held_out(spec: Spec, tables: Iterable[pa.Table]) -> Callable[[str, Any], bool]:
    """Whether an input, by its content hash and decoded payload, may not be learnt from even without its label.

    It is held out in a window, or would be were it labelled, or is like one that is; or a temperature is fitted on it.
    """
    student = spec.student
    known = HeldOut(spec)
    for table in tables:
        known.add(table)

    def out(content: str, payload: Any) -> bool:
        if split_of(content, student.holdout_share) == "holdout" or calibrates(content, student.calibration_share):
            return True
        made = None if student.near_duplicate is None else sketch(payload)
        return bool(known.alike([content], [made])[0])

    return out
