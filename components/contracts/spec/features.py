"""The featuriser, and what is known of an input's entity beside its payload."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from components.contracts.spec.fields import Factory, Positive, Section
from components.contracts.spec.privacy import Privacy

Of = Literal["count", "since_last", "last_label", "label_share", "view"]

MOST_RECENT = 64
"""Labelled inputs of an entity that are remembered: no ``count`` is larger."""

FEATURE_NAME = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,40}$")]

PLACES: dict[str, tuple[str, ...]] = {
    "count": ("seconds",), "since_last": (), "last_label": (), "label_share": ("label",), "view": ("view",),
}  # fmt: skip
"""The fields that a feature must have by what it is of; ``feature`` may go with ``view``."""


class EntityFeature(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One number or category that is known of an entity when its input comes.

    ``of``: what it is. The platform's own, of the entity's labelled inputs before this one (the newest
    :data:`MOST_RECENT` of them): ``count`` of those in the last ``seconds``; ``since_last``, seconds since the newest;
    ``last_label``, what the teacher said last; ``label_share``, the share that it labelled ``label``. A label counts
    from when the teacher gave it. ``view``: a ``feature`` (left out: the one of this ``name``) of a view of Feast's.

    ``default``: the value where nothing is known, or not in time. A number is used as (value - ``mean``) / ``scale``,
    with ``log`` of log(1 + value) in its place; a category is one of ``values``, and any other counts as unseen.
    """

    name: FEATURE_NAME
    default: float | str
    of: Of = "view"
    type: Literal["number", "category"] = "number"
    seconds: Positive | None = None
    label: str | None = None
    view: str | None = None
    feature: str | None = None
    mean: float = 0.0
    scale: Positive = 1.0
    log: bool = False
    values: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The feature of Feast's that it is read from, as ``view:feature``."""
        return f"{self.view}:{self.feature or self.name}" if self.of == "view" else RECENT


RECENT = "recent:recent"
"""The feature of Feast's that all of the platform's own are read from."""


class Entity(Section, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is known of the entity, the input's ``key``.

    ``objects``: a list of Feast's objects in a Python file beside the spec (``file.py:NAME``), whose views are joined,
    materialised and read here; ``repository``: the absolute path of a folder with a ``feature_store.yaml``, whose views
    are joined and read by what that says, and which somebody else fills. ``timeout_ms``: how long an
    answer waits for the online store. ``cache_seconds``: how long a replica knows what it read; 0 asks each time.
    ``max_skew``: share of inputs, in [0, 1], for which a feature may have been served otherwise than it is joined
    afterwards, beyond which the platform is not in order.
    """

    features: tuple[EntityFeature, ...]
    objects: str | None = None
    repository: str | None = None
    timeout_ms: Annotated[float, Meta(gt=0.0, le=10_000.0)] = 50.0
    cache_seconds: Annotated[float, Meta(ge=0.0)] = 1.0
    max_skew: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class Features(Factory, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The featuriser of payloads, and ``entity``: features of the input's entity that the student is fed beside it."""

    entity: Entity | None = None

    @classmethod
    def of(cls, factory: Factory) -> Features:
        """A featuriser that is named without features of the entity."""
        return factory if isinstance(factory, cls) else cls(factory=factory.factory, options=factory.options)

    @property
    def learnt_from(self) -> Features:
        """What a student hangs on of it, and not how it is looked up."""
        entity = None if self.entity is None else Entity(features=self.entity.features)
        return Features(factory=self.factory, options=self.options, entity=entity)


def check_entity(entity: Entity, task: Task, privacy: Privacy | None = None) -> None:
    """Refuse features of the entity that contradict themselves; what Feast has is looked at where it is opened.

    Raises:
        ConfigError: which feature, and what about it.

    """
    field = "features.entity"
    if task == "tagging":
        raise ConfigError(field, [f.name for f in entity.features], "does not know answers of tagging: leave it out")
    if not entity.features:
        raise ConfigError(f"{field}.features", (), "must name at least one feature")
    names = [f.name for f in entity.features]
    if len(set(names)) < len(names):
        raise ConfigError(f"{field}.features", names, "must name every feature once")
    if entity.objects and entity.repository:
        raise ConfigError(f"{field}.repository", entity.repository, "goes without objects: name one of both")
    if entity.repository and not Path(entity.repository).is_absolute():
        allowed = "must be an absolute path, as platforms work with a copy of the spec"
        raise ConfigError(f"{field}.repository", entity.repository, allowed)
    if any(f.of == "view" for f in entity.features) != bool(entity.objects or entity.repository):
        allowed = "or a repository goes with features of a view, and they with one of both"
        raise ConfigError(f"{field}.objects", entity.objects or entity.repository, allowed)
    if privacy is not None and privacy.unit == "input" and any(f.of != "view" for f in entity.features):
        allowed = "must be key beside features of the entity's other inputs: one input would be told of in many rows"
        raise ConfigError("student.privacy.unit", privacy.unit, allowed)
    for feature in entity.features:
        _check_feature(feature, f"{field}.{feature.name}", task)


def _check_feature(feature: EntityFeature, field: str, task: Task) -> None:
    wanted, own = PLACES[feature.of], ("seconds", "label", "view")
    for place in own:
        if (getattr(feature, place) is not None) != (place in wanted):
            allowed = "is needed" if place in wanted else "has no meaning"
            raise ConfigError(f"{field}.{place}", getattr(feature, place), f"{allowed} with of: {feature.of}")
    if feature.feature is not None and feature.of != "view":
        raise ConfigError(f"{field}.feature", feature.feature, f"has no meaning with of: {feature.of}")
    number = feature.type == "number"
    if feature.of in ("count", "since_last", "label_share") and not number:
        raise ConfigError(f"{field}.type", feature.type, f"must be number with of: {feature.of}")
    if feature.of == "label_share" and task == "regression":
        raise ConfigError(f"{field}.of", feature.of, "needs classes: a regression has none")
    if feature.of in ("label_share", "last_label") and task not in ("classification", "regression"):
        raise ConfigError(f"{field}.of", feature.of, f"does not know answers of {task}: take count, since_last or view")
    if feature.of == "last_label" and number != (task == "regression"):
        raise ConfigError(f"{field}.type", feature.type, f"of the last label of a {task} must be the other one")
    if isinstance(feature.default, str) == number or (number and not math.isfinite(float(feature.default))):
        kind = "a finite number" if number else "text (quote it)"
        raise ConfigError(f"{field}.default", feature.default, f"must be {kind}, as its type is {feature.type}")
    if number and feature.values:
        raise ConfigError(f"{field}.values", feature.values, "go with type: category")
    if not number and (not feature.values or len(set(feature.values)) < len(feature.values)):
        raise ConfigError(f"{field}.values", feature.values, "of a category must name its values, each once")
    if not number and (feature.mean, feature.scale, feature.log) != (0.0, 1.0, False):
        raise ConfigError(f"{field}.scale", feature.scale, "and mean and log go with type: number")
