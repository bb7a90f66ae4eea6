"""A teacher that took the place of the windows' without being declared."""

from __future__ import annotations

from components.contracts.errors import ConfigError
from components.contracts.spec import Spec, build
from components.control.store import ControlStore
from components.teachers.contract import Teacher, declared_of, reference


def check_replaced(spec: Spec, store: ControlStore, teacher: Teacher | None = None) -> None:
    """Refuse a teacher that took the place of the windows' without being declared: its labels would all be lost.

    ``teacher``: the one that the spec names; None: it is loaded, where there are windows and none is declared.

    Raises:
        ConfigError: it is such a teacher, or cannot be loaded.
        UnavailableError: it is a remote one that does not answer.

    """
    windows = store.windows(spec.name)
    if not windows or spec.teacher_digest is not None:
        return
    before = declared_of(str(windows[-1].manifest["teacher"]))
    now = reference(build(spec.teacher, spec.source) if teacher is None else teacher)
    if before != now:
        remedy = f"while the windows so far are of {before}, the teacher that was loaded is {now}, whose labels none"
        raise ConfigError("teacher_digest", None, f"{remedy} would take: write that, if it was replaced on purpose")
