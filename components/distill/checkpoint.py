"""The checkpoint of a training run: all that is needed to go on from the step after which it was written."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from components.contracts.errors import ArtifactError
from components.contracts.storage import get_bytes, put_bytes

if TYPE_CHECKING:
    import torch

    from components.distill.lesson import Lesson
    from components.distill.privacy import PrivateSteps

FORMAT = 2
"""Of a checkpoint's content; one of another format is not gone on from."""

EVERY_SECONDS = 10.0
"""What a run that is killed has to do again at most, apart from what :data:`SHARE` adds for large networks."""

SHARE = 0.02
"""What writing may take of a run's time: a checkpoint that takes long is written less often."""


@dataclass(kw_only=True)
class Progress:
    """Where a run stands.

    ``step``: steps done; ``epoch`` and ``done``: the epoch to go on with, and the steps done of it; ``losses``: of
    these steps, with each term's part; ``history``: mean loss of each epoch that is over; ``terms``: each term's part
    of it.
    """

    step: int = 0
    epoch: int = 0
    done: int = 0
    losses: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    terms: list[dict[str, float]] = field(default_factory=list)

    def note(self, loss: torch.Tensor, parts: dict[str, torch.Tensor]) -> None:
        """Count a step; its loss stays where it is until the epoch is over, since to read it may wait for a device."""
        self.losses.append((loss, parts))
        self.step, self.done = self.step + 1, self.done + 1

    def end_epoch(self) -> None:
        """Take the means of the epoch's steps."""
        self.read()
        self.history.append(float(np.mean([loss for loss, _ in self.losses])))
        means: dict[str, float] = {}
        for _, parts in self.losses:
            for name, part in parts.items():
                means[name] = means.get(name, 0.0) + part / len(self.losses)
        self.terms.append(means)
        self.epoch, self.done, self.losses = self.epoch + 1, 0, []

    def read(self) -> None:
        """Make numbers of the losses."""
        self.losses = [(float(loss), {n: float(p) for n, p in parts.items()}) for loss, parts in self.losses]


class Checkpoints:
    """A run's checkpoint, which is written over and over at one URI. ``private``: of a run in private, its draws."""

    def __init__(
        self,
        uri: str,
        lesson: Lesson,
        optimiser: torch.optim.Optimizer,
        private: PrivateSteps | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uri, self._lesson, self._optimiser, self._private, self._clock = uri, lesson, optimiser, private, clock
        self._written = clock()
        self._took = 0.0

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return self._clock() - self._written >= max(EVERY_SECONDS, self._took / SHARE)

    def save(self, progress: Progress, *, over: bool = False) -> None:
        """Write one; of a run that is ``over`` without what only a further step would need."""
        import torch

        began = self._clock()
        progress.read()
        content = {
            "format": FORMAT,
            "model": self._lesson.net.state_dict(),
            "objective": self._lesson.objective.state_dict(),
            "peers": self._lesson.peers.state_dict(),
            "optimiser": None if over else self._optimiser.state_dict(),
            "private": None if self._private is None else self._private.get_state(),
            "chance": _chance(),
            "progress": vars(progress),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        put_bytes(self._uri, buffer.getvalue())
        self._written = self._clock()
        self._took = self._written - began

    def resume(self) -> Progress:
        """Take the run up where its checkpoint left it; at the beginning where it has none."""
        saved = read_checkpoint(self._uri)
        if saved is None:
            return Progress()
        self._lesson.net.load_state_dict(saved["model"])
        self._lesson.objective.load_state_dict(saved["objective"])
        self._lesson.peers.load_state_dict(saved["peers"])
        if saved["optimiser"] is not None:
            self._optimiser.load_state_dict(saved["optimiser"])
        if self._private is not None:
            self._private.set_state(saved["private"])
        _take_up(saved["chance"])
        return Progress(**saved["progress"])


def read_checkpoint(uri: str) -> dict[str, Any] | None:
    """A run's checkpoint; None where it has none yet, or one of another format."""
    import torch

    try:
        data = get_bytes(uri)
    except ArtifactError:
        return None
    content: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return content if content.get("format") == FORMAT else None


def _chance() -> list[torch.Tensor]:
    """The states of the generators that dropout draws from."""
    import torch

    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def _take_up(states: list[torch.Tensor]) -> None:
    import torch

    torch.set_rng_state(states[0])
    if len(states) - 1 == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states[1:])
