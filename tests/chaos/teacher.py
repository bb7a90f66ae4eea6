"""A fast deterministic teacher that fails as the folder in CHAOS_STEER says.

``fault.json`` in that folder is ``{"kind": KIND, "until": UNIX_SECONDS, "hang": SECONDS}``; a fault ends with its time.
Every labeler that asks the teacher for the first time leaves a file ``work-PID``: it is at work now.
"""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from components.contracts.errors import TeacherError
from components.contracts.records import SoftLabel

SPACE = "steered@1"
CLASSES = ("red", "green", "blue")


def answer(text: str) -> SoftLabel:
    """What the teacher says of a text: a distribution that a hash of the text decides."""
    head = hashlib.sha256(text.encode()).digest()
    weights = [1 + head[n] for n in range(len(CLASSES))]
    return SoftLabel.of(SPACE, CLASSES, [w / sum(weights) for w in weights])


def _is_unlucky(text: str) -> bool:
    """Whether a batch that begins with this text crashes the teacher: half of them do, so that others go on."""
    return hashlib.sha256(text.encode()).digest()[-1] % 2 == 1


def _misspeak(kind: str, right: list[SoftLabel]) -> list[SoftLabel]:
    """Answers that no labeler may let through."""
    if kind == "short":
        return right[:-1]
    if kind == "classes":
        return [SoftLabel(task="classification", space=SPACE, distribution={"zebra": 1.0}) for _ in right]
    if kind == "space":
        return [SoftLabel(task="classification", space="steered@2", distribution=s.distribution) for s in right]
    return [SoftLabel(task="classification", space=SPACE, distribution={"red": float("nan")}) for _ in right]


class SteeredTeacher:
    """Labels texts by their hash, except while a fault is in force."""

    name = "steered"
    digest = hashlib.sha256(b"steered teacher, version 1").hexdigest()
    task = "classification"
    space = SPACE
    classes = CLASSES
    size_bytes = 1

    def __init__(self) -> None:
        self._folder = Path(os.environ["CHAOS_STEER"]) if "CHAOS_STEER" in os.environ else None
        self._worked = False

    def label(self, payloads: list[str]) -> list[SoftLabel]:
        """One soft label for each text, or the fault of the moment."""
        if self._folder is not None and not self._worked:
            (self._folder / f"work-{os.getpid()}").touch()
            self._worked = True
        fault = self._fault()
        right = [answer(text) for text in payloads]
        if fault is None:
            return right
        if fault["kind"] == "raise":
            raise TeacherError(self.name, "fails on purpose")
        if fault["kind"] == "crash" and _is_unlucky(payloads[0]):
            raise RuntimeError("the teacher's library fails in a way of its own, on purpose")
        if fault["kind"] == "hang":
            time.sleep(float(fault["hang"]))
        if fault["kind"] in ("crash", "hang"):
            return right
        return _misspeak(fault["kind"], right)

    def _fault(self) -> dict[str, Any] | None:
        try:
            fault = json.loads((self._folder / "fault.json").read_bytes()) if self._folder else None
        except FileNotFoundError:
            return None
        return fault if fault is not None and time.time() < fault["until"] else None
