"""What people declare of a workload: terms of use, where its data came from, what its students are for.

Nothing here is measured; the documents of a version (``cohobate document``) carry it, and name what is left blank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

from components.contracts.errors import ConfigError
from components.contracts.spec.fields import Factory, Section

Policy = Literal["forbidden", "undeclared"]
"""What is refused: terms that forbid training, or whatever does not say that it is allowed, too."""


class Terms(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The terms of a thing: ``name`` (an SPDX identifier, where it has one) and ``url``.

    ``training``: whether a model may learn from it, as a person read the terms. ``attribution``: the sentence that they
    ask for, which every student carries on its card.
    """

    name: str = ""
    url: str = ""
    training: Literal["allowed", "forbidden", "unknown"] = "unknown"
    attribution: str = ""


class TeacherLicence(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The terms of a teacher's ``outputs``, which a student learns from, and of its ``weights``, which it runs by."""

    outputs: Terms = Terms()
    weights: Terms = Terms()


class TeacherFactory(Factory, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The teacher by its reference and options, and the terms that it comes under."""

    licence: TeacherLicence = TeacherLicence()

    @classmethod
    def of(cls, factory: Factory) -> TeacherFactory:
        """A teacher of which no terms are known, from its factory alone."""
        if isinstance(factory, TeacherFactory):
            return factory
        return cls(factory=factory.factory, options=factory.options)


class Data(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inputs: their ``licence``; their ``origin``, how they were collected (``collection``) and may be kept.

    ``personal``: whether they hold personal data, and in ``legal_basis`` by what right.
    """

    licence: Terms = Terms()
    origin: str = ""
    collection: str = ""
    retention: str = ""
    personal: Literal["yes", "no", "unknown"] = "unknown"
    legal_basis: str = ""


class About(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the workload's students are for: ``intended_use``, and by whom (``users``); ``out_of_scope``: what not for.

    ``affected``: who is concerned by the answers; ``risks``: what may go wrong, and what is done about it;
    ``oversight``: who watches, and may stop it; ``provider``: who answers for it, and ``contact`` how to reach them;
    ``instructions``: where the instructions for use are.
    """

    intended_use: str = ""
    users: str = ""
    out_of_scope: str = ""
    affected: str = ""
    risks: tuple[str, ...] = ()
    oversight: str = ""
    provider: str = ""
    contact: str = ""
    instructions: str = ""


class Termed(Protocol):
    """A spec, as far as terms go."""

    @property
    def teacher(self) -> TeacherFactory:
        """The teacher."""

    @property
    def data(self) -> Data:
        """The inputs."""


def terms(spec: Termed) -> Iterator[tuple[str, Terms]]:
    """The terms that a student comes under, by the spec's field."""
    licence = spec.teacher.licence
    yield "teacher.licence.outputs", licence.outputs
    yield "teacher.licence.weights", licence.weights
    yield "data.licence", spec.data.licence


LEARNT_FROM = ("teacher.licence.outputs", "data.licence")
"""The terms that decide on training: nothing is learnt from a teacher's weights."""


def check_training(spec: Termed, policy: Policy) -> None:
    """Refuse to train on what may not be trained on.

    Raises:
        ConfigError: names the first field that does not allow it.

    """
    for field, found in terms(spec):
        if field not in LEARNT_FROM:
            continue
        if found.training == "forbidden":
            name = f" ({found.name})" if found.name else ""
            allowed = f"the terms{name} forbid training, so nothing is trained: take another teacher, or other data"
            raise ConfigError(f"{field}.training", found.training, allowed)
        if policy == "undeclared" and found.training != "allowed":
            allowed = "COHOBATE_LICENCE_POLICY=undeclared trains on nothing else than 'allowed': read the terms"
            raise ConfigError(f"{field}.training", found.training, allowed)


def attributions(spec: Termed) -> tuple[str, ...]:
    """The sentences that the terms ask for, each once."""
    return tuple(dict.fromkeys(found.attribution for _, found in terms(spec) if found.attribution))


SINCE = {
    "teacher.licence": msgspec.to_builtins(TeacherLicence()),
    "data": msgspec.to_builtins(Data()),
    "about": msgspec.to_builtins(About()),
}
"""The fields of a spec that are declared here, with what it means that they are not there."""
