"""A judged candidate as a run of Weights & Biases, beside the one that its registration leaves in MLflow.

``wandb`` is an extra (``cohobate[wandb]``). A run is made where it is installed and the environment has its own
``WANDB_API_KEY``, or ``WANDB_MODE=offline``, by which it is written to a folder for ``wandb sync``. Its other variables
(``WANDB_BASE_URL``, ``WANDB_ENTITY``, ``WANDB_DIR``) hold too.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import msgspec

from components.contracts.errors import CohobateError
from components.contracts.settings import Settings
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.contracts.vectors import distance
from components.control.tables import WindowRow
from components.distill.data import declared_teacher, window_rows
from components.steps import Candidate
from components.student.runtime import Student

log = logging.getLogger(__name__)

LONGEST = 500
"""Characters of an input that an example shows."""

SECONDS = 30.0
"""How long W&B may take to answer that a run begins."""

COLUMNS = ["input", "teacher", "truth", "student", "confidence"]


def wanted() -> bool:
    """Whether runs go to Weights & Biases; warns where they are asked for and cannot."""
    mode = os.environ.get("WANDB_MODE", "online")
    asked = mode == "offline" or (mode == "online" and bool(os.environ.get("WANDB_API_KEY")))
    if asked and find_spec("wandb") is None:
        log.warning("WANDB_API_KEY or WANDB_MODE is set, and wandb is not installed: pip install 'cohobate[wandb]'")
        return False
    return asked


def track(spec: Spec, settings: Settings, candidate: Candidate, windows: Sequence[WindowRow]) -> None:
    """Make the run of a judged candidate: losses by term, recipes, parities, the verdict, and examples.

    The run has the artifact's digest for its id: one that is judged again goes on in it. W&B that does not answer is
    logged and changes nothing: it decides nothing.
    """
    import wandb

    quiet = wandb.Settings(
        silent=True, console="off", disable_git=True, save_code=False, init_timeout=SECONDS,
        x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
    )  # fmt: skip
    folder = os.environ.get("WANDB_DIR") or str(settings.home / "wandb")
    online = os.environ.get("WANDB_MODE", "online") == "online"
    try:
        os.makedirs(folder, exist_ok=True)
        run = wandb.init(
            project=settings.wandb_project or f"cohobate-{spec.name}",
            id=candidate.digest[:32],
            name=f"{candidate.card.variant}-{candidate.digest[:8]}",
            resume="allow" if online else None,
            tags=[candidate.decision],
            config=_config(spec, candidate),
            dir=folder,
            settings=quiet,
        )
        try:
            for epoch, losses in enumerate(_curves(candidate), start=1):
                run.log({"epoch": epoch, **losses})
            run.summary.update({**candidate.metrics, **_known(candidate.measurements), "decision": candidate.decision})
            if settings.wandb_examples:
                found = _examples(spec, candidate, windows[-1], settings.wandb_examples)
                run.log({"examples": wandb.Table(columns=COLUMNS, data=found)})
        finally:
            run.finish()
    except (wandb.Error, CohobateError, OSError, TypeError, ValueError) as error:
        log.warning("%s: Weights & Biases has no run of %s: %s", spec.name, candidate.digest[:12], error)
    finally:
        wandb.teardown()


def _config(spec: Spec, candidate: Candidate) -> dict[str, Any]:
    card: dict[str, Any] = msgspec.to_builtins(candidate.card)
    return {"card": card, "recipe": candidate.card.recipe, "variant": candidate.card.variant, "spec": spec.digest}


def _curves(candidate: Candidate) -> list[dict[str, float]]:
    """The losses of each epoch: the whole, and each term's part."""
    parts: Sequence[dict[str, float]] = candidate.terms or [{}] * len(candidate.history)
    return [
        {"training_loss": loss, **{f"loss_{name}": part for name, part in own.items()}}
        for loss, own in zip(candidate.history, parts, strict=True)
    ]


def _known(measurements: dict[str, float | None]) -> dict[str, float]:
    return {k: v for k, v in measurements.items() if v is not None and math.isfinite(v)}


def _examples(spec: Spec, candidate: Candidate, window: WindowRow, most: int) -> list[list[Any]]:
    """Held out inputs with what the teacher, the truth and the student say: those first that the two differ about."""
    rows = window_rows(window, "holdout", spec.task, declared_teacher(spec, [window]))
    answers = Student.load(get_bytes(candidate.uri, candidate.digest), source=spec.source).predict(rows.payloads)
    found: list[tuple[float, int, list[Any]]] = []
    for payload, soft, truth, answer in zip(rows.payloads, rows.soft, rows.truth, answers, strict=True):
        text = payload.decode(errors="replace")[:LONGEST]
        if spec.task == "regression":
            off, said = abs((answer.value or 0.0) - (soft.value or 0.0)), [soft.value, truth, answer.value, None]
        elif spec.task == "embedding":
            off, said = distance(answer.vector, soft.vector), [None, None, None, answer.confidence]
        else:
            sure = answer.confidence
            off, said = sure if answer.label != soft.label else 0.0, [soft.label, truth, answer.label, sure]
        found.append((-off, len(found), [text, *said]))
    return [example for _, _, example in sorted(found)[:most]]
