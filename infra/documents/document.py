"""What a document is made of: statements, each with what it rests on, or a blank that a person must fill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

State = Literal["filled", "absent", "blank"]

Value = str | int | float | bool | tuple[str, ...] | tuple[dict[str, Any], ...] | None
"""A text, a number, a list of texts, or a table: rows with the same keys."""


class Statement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a document says.

    ``by``: ``platform`` where it was recorded, ``spec`` where a person declared it there, ``person`` where only a
    person can say it. ``state``: ``filled``; ``absent``, the platform looked and there is none (``value`` says why);
    ``blank``, a person must fill it (``value`` is None, ``fill`` says where). ``evidence``: what it rests on.
    """

    id: str
    title: str
    by: Literal["platform", "spec", "person"]
    state: State
    value: Value = None
    evidence: tuple[str, ...] = ()
    fill: str = ""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Statements under a heading."""

    id: str
    title: str
    statements: tuple[Statement, ...]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document of a version. ``made_at``: Unix seconds; ``note``: what it is and is not."""

    kind: str
    title: str
    workload: str
    version: str
    digest: str
    made_at: float
    note: str
    sections: tuple[Section, ...]

    def statements(self) -> Iterator[Statement]:
        """All of them, in order."""
        for section in self.sections:
            yield from section.statements

    @property
    def blanks(self) -> tuple[Statement, ...]:
        """Those that a person must fill."""
        return tuple(s for s in self.statements() if s.state == "blank")


def _empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, Sequence | Mapping) and not value)


def fact(id: str, title: str, value: Value, *evidence: str, absent: str = "") -> Statement:
    """What the platform recorded; where there is nothing, ``absent`` says why that can be.

    Raises:
        ValueError: there is nothing, and no reason for that.

    """
    if not _empty(value):
        return Statement(id=id, title=title, by="platform", state="filled", value=value, evidence=evidence)
    if not absent:
        raise ValueError(f"{id} has no value, and nothing says why")
    return Statement(id=id, title=title, by="platform", state="absent", value=absent, evidence=evidence)


def declared(id: str, title: str, value: Value, field: str, evidence: str) -> Statement:
    """What a person declares in the spec, in ``field``; blank where that was not done."""
    if not _empty(value) and value != "unknown":
        return Statement(id=id, title=title, by="spec", state="filled", value=value, evidence=(f"{evidence}#{field}",))
    return Statement(id=id, title=title, by="spec", state="blank", fill=f"declare {field} in the spec")


def person(id: str, title: str, fill: str) -> Statement:
    """What only a person can say, and the platform has no place for."""
    return Statement(id=id, title=title, by="person", state="blank", fill=fill)


def section(id: str, title: str, *statements: Statement) -> Section:
    """Statements under a heading."""
    return Section(id=id, title=title, statements=statements)
