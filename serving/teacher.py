"""The teacher behind the gateway, for the answers that a student defers. It labels no training data."""

from __future__ import annotations

import asyncio
from typing import Any

from components.contracts.records import SoftLabel
from components.contracts.spec import build, load_spec
from components.label.decode import decoder
from components.label.teacher import Teacher


class TeacherService:
    """The teacher of the spec at ``source``, loaded when it is first asked: many workloads never defer."""

    def __init__(self, source: str) -> None:
        self._spec = load_spec(source)
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
            self._teacher = build(self._spec.teacher, self._spec.source)
        return self._teacher.label([decoded])[0]
