"""The checkpoint of a training run: all that is needed to go on from the end of an epoch."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.contracts.errors import ArtifactError
from components.contracts.storage import get_bytes, put_bytes

if TYPE_CHECKING:
    import torch

    from components.distill.privacy import PrivateSteps


@dataclass(kw_only=True)
class Progress:
    """Where a run stands: next epoch, steps done, mean loss of each epoch, and each term's part of the last one's."""

    epoch: int
    step: int
    history: list[float]
    parts: dict[str, float]


def save(uri: str, lesson: Any, optimiser: Any, generator: torch.Generator | PrivateSteps, progress: Progress) -> None:
    """Write all that is needed to go on from the end of an epoch."""
    import torch

    buffer = io.BytesIO()
    content = {
        "model": lesson.net.state_dict(),
        "objective": lesson.objective.state_dict(),
        "peers": lesson.peers.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generator": generator.get_state(),
        "epoch": progress.epoch,
        "step": progress.step,
        "history": progress.history,
        "parts": progress.parts,
    }
    torch.save(content, buffer)
    put_bytes(uri, buffer.getvalue())


def read_checkpoint(uri: str) -> dict[str, Any] | None:
    """A run's checkpoint; None where it has none yet."""
    import torch

    try:
        data = get_bytes(uri)
    except ArtifactError:
        return None
    content: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return content


def resume(uri: str, lesson: Any, optimiser: Any, generator: torch.Generator | PrivateSteps) -> Progress:
    """Take up a run's checkpoint; where it has none yet, its beginning."""
    saved = read_checkpoint(uri)
    if saved is None:
        return Progress(epoch=0, step=0, history=[], parts={})
    lesson.net.load_state_dict(saved["model"])
    lesson.objective.load_state_dict(saved["objective"])
    lesson.peers.load_state_dict(saved["peers"])
    optimiser.load_state_dict(saved["optimiser"])
    generator.set_state(saved["generator"])
    return Progress(epoch=saved["epoch"], step=saved["step"], history=saved["history"], parts=saved["parts"])
