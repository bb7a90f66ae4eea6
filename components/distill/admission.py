"""Whether an update in private may begin: its account, and its network, looked at before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from components.contracts.errors import ConfigError
from components.contracts.spec.objective import Term
from components.contracts.spec.privacy import FIELD
from components.contracts.spec.privacy_check import check_privacy
from components.distill.account import Plan, plan
from components.distill.batches import sample_of
from components.distill.privacy import PROBED, check_influence, check_modules, check_states, rest
from components.distill.work import Work, device_of, lesson_of
from components.student.card import StudentCard

log = logging.getLogger(__name__)


Lessons = Sequence[tuple[Sequence[Term], int]]
"""What an update learns by, one after the other: terms, and epochs."""


def admitted(
    work: Work, net: nn.Module, lessons: Lessons, parent: StudentCard | None, version: str | None
) -> Plan | None:
    """What an update in private will spend; None of one that is not.

    ``net``: what it begins with, which is of no use afterwards; ``lessons`` all look at the rows of ``work``;
    ``parent`` and ``version``: what it starts from, or learns from.

    Raises:
        ConfigError: more would be spent than is left; what it starts from was not trained in private; or a module of
            the network, or the whole, cannot learn so.

    """
    privacy = work.spec.student.privacy
    if privacy is None:
        if parent is not None and parent.privacy is not None:
            log.warning("%s: version %s was trained in private, its successor is not", work.spec.name, version)
        return None
    check_privacy(work.spec.student, work.spec.task)
    if parent is not None and parent.privacy is None:
        remedy = f"promises nothing after version {version}, which was trained without it: begin a fresh student"
        raise ConfigError(FIELD, privacy.epsilon, remedy)
    before = parent.privacy if parent else None
    batch_size, epochs = work.spec.student.batch_size, sum(epochs for _, epochs in lessons)
    found = plan(privacy, before, rows=len(work.data), batch_size=batch_size, epochs=epochs)
    _check_network(replace(work, noise=found.noise), net, lessons)
    return found


def _check_network(work: Work, net: nn.Module, lessons: Lessons) -> None:
    check_modules(net.train())
    device = device_of(work.spec)
    lesson = lesson_of(work, net, work.data).to(device).train()
    batch = sample_of(work.data, PROBED, device)
    names = {name for terms, _ in lessons for term in terms for name in term.student_states}
    check_states(net, names, lesson.returned(batch))
    rest(lesson, batch)
    check_influence(lesson, batch)
