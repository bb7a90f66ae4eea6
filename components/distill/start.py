"""What an update starts from: a parent, its weights with a head grown by the new classes, and a regression's unit."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.records import NAMED
from components.contracts.spec import Factory, Privacy, Spec, Variant
from components.contracts.spec.student import BAG
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.distill.artifact import weights_uri
from components.distill.data import Rows, Unit, unit_of
from components.distill.grow import Arrays, grow_head
from components.student.card import StudentCard
from components.student.features import featuriser, files_of
from components.student.runtime import Student

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Start:
    """A parent to start from. ``state``: its weights, of a network of the same shape; None where that has changed."""

    student: Student
    state: Arrays | None

    @property
    def card(self) -> StudentCard:
        """The parent's card."""
        return self.student.card


def read_start(parent: ModelRef, spec: Spec, variant: Variant, dimension: int = 0) -> Start | None:
    """What to start from; None where the parent has another task, or vectors of another ``dimension``.

    Raises:
        ArtifactError: the parent or its weights are missing or were changed.

    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    student = Student.load(get_bytes(parent.uri, parent.digest), source=spec.source)
    card = student.card
    name = f"version {parent.version}" if parent.version else parent.uri
    if card.task != spec.task:
        log.warning("%s: %s has another task: starting afresh", spec.name, name)
        return None
    if card.dimension != dimension:
        log.warning("%s: %s gives vectors of %d numbers, not %d: starting afresh", spec.name, name, card.dimension,
                    dimension)  # fmt: skip
        return None
    wanted = wanted_of(spec, card, variant)
    files = files_of(featuriser(spec.features, spec.source))
    if (wanted, spec.features.learnt_from, files) != (card.network, card.features, files_of(student.featuriser)):
        log.info("%s: a network of another shape first learns what %s answers", spec.name, name)
        return Start(student=student, state=None)
    uri = weights_uri(parent.uri)
    if card.weights is None:
        raise ArtifactError(parent.uri, "names no trainable weights: it cannot be updated; train without a parent")
    try:
        return Start(student=student, state=load(get_bytes(uri, card.weights)))
    except SafetensorError as error:
        raise ArtifactError(uri, f"is not a file of weights: {error}") from error


def variant_of(spec: Spec, card: StudentCard, otherwise: Variant) -> Variant:
    """The variant that a student was made of, as the spec has it now."""
    return next((v for v in spec.student.variants if v.name == card.variant), otherwise)


def wanted_of(spec: Spec, card: StudentCard, variant: Variant) -> Factory:
    """The network of an update that starts from a student, whose widths are kept where the spec leaves them open."""
    chosen = variant_of(spec, card, variant)
    if spec.student.network is None and card.network.factory == BAG and chosen.name == card.variant:
        was = card.network.options
        chosen = msgspec.structs.replace(
            chosen, dim=chosen.dim or was.get("dim"), hidden=chosen.hidden or was.get("hidden")
        )
    return spec.student.network_of(chosen)


def grown(
    start: Start | None, card: StudentCard, head: str, rows: Rows, seed: int, privacy: Privacy | None
) -> tuple[Arrays | None, Unit | None]:
    """The weights to start from, and the unit of a regression."""
    if card.task == "embedding":
        return (start.state if start else None), None
    if start is None or start.state is None:
        return None, _unit(rows, privacy) if card.task == "regression" else None
    if card.task in NAMED:
        return grow_head(start.state, head, start.card.classes, card.classes, seed), None
    mean, scale = start.state["unit"].tolist()
    return {k: v for k, v in start.state.items() if k != "unit"}, Unit(mean=mean, scale=scale)


def _unit(rows: Rows, privacy: Privacy | None) -> Unit:
    """The unit of a fresh regression; in private it is declared, since that of the rows would tell of them."""
    if privacy is None:
        return unit_of(rows)
    if privacy.centre is None or privacy.spread is None:
        raise ConfigError("student.privacy.centre", privacy.centre, "and spread go with a regression")
    return Unit(mean=privacy.centre, scale=privacy.spread)
