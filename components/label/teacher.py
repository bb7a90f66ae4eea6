"""The contract of teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from components.contracts.records import SoftLabel, Task


class Teacher(Protocol):
    """The expensive model whose behaviour is kept.

    ``name`` and ``digest`` (64 hex digits over weights and everything else that decides its answers) identify it;
    ``space`` names its label space with the version; ``classes`` are the names in that space (empty for regression);
    ``size_bytes`` is the size of its weights, for the comparison of costs.
    """

    name: str
    digest: str
    task: Task
    space: str
    classes: tuple[str, ...]
    size_bytes: int

    def label(self, payloads: Sequence[Any]) -> list[SoftLabel]:
        """Soft labels of decoded payloads, one for each, in order.

        Raises:
            TeacherError: the model failed.

        """


def reference(teacher: Teacher) -> str:
    """``name@digest``, as it stands in every label."""
    return f"{teacher.name}@{teacher.digest}"


def in_epoch(declared: str, epoch: int) -> str:
    """The reference of a declared teacher in an epoch: ``name@digest`` in the first, then ``name@digest#1`` and on.

    An epoch ends when a person decides about a change of the teacher's behaviour (:mod:`components.label.guard`).
    """
    return f"{declared}#{epoch}" if epoch else declared


def declared_of(reference: str) -> str:
    """``name@digest`` of a reference in any epoch."""
    return reference.partition("#")[0]
