"""The teacher, or the mid-size expert, behind the gateway, for the answers that a student defers.

It labels no training data.
"""

from __future__ import annotations

import asyncio
from typing import Any

from components.contracts.errors import ConfigError, TeacherError
from components.contracts.payload import decoder
from components.contracts.records import SoftLabel
from components.contracts.spec import build, load_spec
from components.teachers.contract import Teacher


class TeacherService:
    """The teacher of the spec at ``source``, or its ``expert``, loaded when it is first asked: many never are."""

    def __init__(self, source: str, expert: bool = False) -> None:
        self._spec = load_spec(source)
        factory = self._spec.serve.deferral.expert if expert else self._spec.teacher
        if factory is None:
            raise ConfigError("serve.deferral.expert", None, "must name the expert that serve.deferral.to asks")
        self._factory = factory
        self._decode = decoder(self._spec.payload, self._spec.source)
        self._teacher: Teacher | None = None
        self._turn = asyncio.Lock()

    async def label(self, payload: bytes) -> SoftLabel:
        """The teacher's soft label of a payload; one at a time, off the event loop.

        Raises:
            RecordError: the payload cannot be decoded.
            TeacherError: the teacher failed.

        """
        decoded = self._decode(payload)
        async with self._turn:
            return await asyncio.to_thread(self._label, decoded)

    def _label(self, decoded: Any) -> SoftLabel:
        if self._teacher is None:
            self._teacher = build(self._factory, self._spec.source)
        (soft,) = self._teacher.label([decoded])
        if soft.task != self._spec.task:
            raise TeacherError(self._teacher.name, f"answers {soft.task}, and the workload is {self._spec.task}")
        return soft
