"""People as the teacher of last resort: they are asked what no model is trusted with, and answer when they can.

An input that waits does not hold up the others: its question is kept in the control database
(:mod:`components.review.reviews`), the labeler commits the input and goes on, and the label is published when the
answer is given (``cohobate review answer``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import msgspec

from components.contracts.errors import ConfigError, RecordError
from components.contracts.records import SoftLabel, Task
from components.contracts.settings import Settings
from components.contracts.spec import Factory, build, class_names
from components.control.store import ControlStore
from components.review import reviews
from components.teachers.common import Common
from components.teachers.contract import (
    Deferred,
    Outcome,
    Permit,
    Question,
    Teacher,
    identity_digest,
    metered,
    past_breaker,
    reference,
    shared,
    soft_labels,
)
from components.teachers.contract import cost as cost_of
from components.teachers.contract import outcomes as outcomes_of
from components.teachers.contract import state as state_of


class HumanTeacher:
    """A person, or a model with a person behind it.

    ``guidelines`` tell what the classes mean: they are part of the digest, as a prompt is. With ``primary`` (a teacher
    of the same classes, as ``factory`` and ``options``) only those inputs wait whose confidence is below ``below``, and
    those that it refuses; its answer stands beside the question as a draft. ``price_per_question`` in any one currency.
    ``database_url``: the control database; empty: the platform's.

    Raises:
        ConfigError: the classes are none, or the primary's are others, or ``below`` is out of range.

    """

    task: Task = "classification"
    name = "human"

    def __init__(
        self,
        space: str,
        classes: Sequence[str] = (),
        *,
        guidelines: str = "",
        primary: Mapping[str, Any] | None = None,
        below: float | None = None,
        price_per_question: float = 0.0,
        database_url: str = "",
    ) -> None:
        declared = class_names(classes)
        self._primary = _built(primary) if primary is not None else None
        self._below, self._price, self._url = below, price_per_question, database_url
        self.space = space
        self.classes = declared or (self._primary.classes if self._primary else ())
        self.size_bytes = self._primary.size_bytes if self._primary else 0
        try:
            self._check()
        except ConfigError:
            self.close()
            raise
        if self._primary is not None:
            self.name = f"{self._primary.name}-human"
        self.digest = identity_digest(
            {
                "kind": "human", "space": space, "classes": list(self.classes), "guidelines": guidelines,
                "primary": reference(self._primary) if self._primary else None, "below": below,
            }
        )  # fmt: skip

    def _check(self) -> None:
        if len(set(self.classes)) < 2:
            raise ConfigError("classes", self.classes, "must be at least two different names")
        if (self._primary is None) != (self._below is None):
            raise ConfigError("below", self._below, "goes with primary: give both or neither")
        if self._below is not None and not 0 < self._below <= 1:
            raise ConfigError("below", self._below, "must be above 0 and at most 1")
        if self._primary and (self._primary.space, set(self._primary.classes)) != (self.space, set(self.classes)):
            raise ConfigError("primary", self._primary.space, f"must answer in {self.space} with the same classes")

    @cached_property
    def _store(self) -> ControlStore:
        return ControlStore.open(self._url or Settings().control_url)

    def label(self, payloads: Sequence[Any]) -> list[SoftLabel]:
        """Soft labels, where none has to wait.

        Raises:
            TeacherError: one has to wait for a person; or what the primary raises.

        """
        return soft_labels(self.name, self.outcomes(payloads))

    def outcomes(self, payloads: Sequence[Any]) -> list[Outcome]:
        """The primary's soft labels, and :class:`Deferred` for all that waits for a person."""
        if self._primary is None:
            return [Deferred("no model is asked")] * len(payloads)
        return [self._or_later(outcome) for outcome in outcomes_of(self._primary, payloads)]

    def _or_later(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, RecordError):
            return Deferred(str(outcome))
        if isinstance(outcome, SoftLabel) and self._below is not None and outcome.confidence < self._below:
            return Deferred(f"confidence {outcome.confidence:.3f} is below {self._below}", outcome)
        return outcome

    def defer(self, workload: str, questions: Sequence[Question]) -> None:
        """Keep questions durably; asking again changes nothing."""
        if questions:
            reviews.ask(self._store, workload, reference(self), self.space, self.classes, questions)

    def cost(self, payloads: Sequence[Any]) -> float:
        """The most that these can cost: the primary's price, and a question for each."""
        return len(payloads) * self._price + (cost_of(self._primary, payloads) if self._primary else 0.0)

    def metered(self, permit: Permit) -> None:
        """Have the primary ask ``permit`` before inputs are sent once more."""
        if self._primary is not None:
            metered(self._primary, permit)

    def shared(self, common: Common) -> None:
        """Have the primary keep its limits and its breaker with all who ask it."""
        if self._primary is not None:
            shared(self._primary, common)

    def past_breaker(self, once: bool) -> AbstractContextManager[None]:
        """Within it the primary is asked whatever its breaker says."""
        return past_breaker(self._primary, once=once) if self._primary is not None else nullcontext()

    def state(self) -> dict[str, Any]:
        """The primary's state."""
        return state_of(self._primary) if self._primary else {}

    def close(self) -> None:
        """Close the database's connections, and the primary's."""
        if "_store" in self.__dict__:
            self._store.close()
        if self._primary is not None and hasattr(self._primary, "close"):
            self._primary.close()


def _built(primary: Mapping[str, Any]) -> Teacher:
    try:
        factory = msgspec.convert(dict(primary), Factory)
    except msgspec.ValidationError as error:
        raise ConfigError("primary", sorted(primary), f"must have factory and options: {error}") from error
    made: Teacher = build(factory)
    return made
