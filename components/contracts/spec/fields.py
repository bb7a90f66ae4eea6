"""What the sections of a spec are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from components.contracts.errors import ConfigError

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Meta(gt=0.0, lt=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,40}$")]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the spec's sections: frozen, keyword-only, no unknown fields."""


class Factory(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Python object by reference and the options it is called with."""

    factory: str
    options: dict[str, Any] = {}


QUOTE = "quote class names in YAML, which reads a plain yes or no as a boolean and 0 or 1 as a number"


def class_names(found: object, field: str = "classes") -> tuple[str, ...]:
    """Class names from options or from a teacher, which nothing else checks, as plain text (NumPy has one of its own).

    Raises:
        ConfigError: it is no list, or has one that is no text or empty.

    >>> class_names(["yes", "no"])
    ('yes', 'no')
    """
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise ConfigError(field, found, "must be a list of names")
    for name in found:
        if not isinstance(name, str) or not name:
            raise ConfigError(field, list(found), f"a class has the name {name!r}, which is no text: {QUOTE}")
    return tuple(str(name) for name in found)


class Payload(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the bytes of an input become what the teacher and the featuriser take.

    ``decoder``: ``raw`` (bytes), ``text`` (UTF-8 str), ``json`` (any JSON value), or a reference to a function
    ``bytes -> object`` that raises :class:`~components.contracts.errors.RecordError` for poison.
    """

    decoder: str = "raw"
    max_bytes: Count = 65_536
