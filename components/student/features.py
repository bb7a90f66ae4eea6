"""The contract of featurisers: decoded payloads become named arrays, and each payload a few readable descriptors.

A featuriser says by its ``signature`` which arrays there are, of which type and shape, so that a network can be made
for them, and an artifact tried on arrays of that shape, without an input at hand. Two forms are taken:

* one with a ``signature``, whose ``encode`` gives a dictionary of arrays;
* one with ``buckets``, whose ``encode`` gives the pair (ids, weights): weighted rows of an embedding table of that many
  buckets. Hashed n-grams have weights that sum to one; a table's column *j* has id *j* and its standardised value as
  weight, which makes the first layer an ordinary linear one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from components.contracts.errors import ConfigError
from components.contracts.payload import bare, entity_of
from components.contracts.spec import EntityFeature, Factory, build, placed
from components.contracts.spec import Features as Declared
from components.student.arrays import BATCH as BATCH
from components.student.arrays import TOKENS as TOKENS
from components.student.arrays import Features as Features
from components.student.arrays import Ids as Ids
from components.student.arrays import Row as Row
from components.student.arrays import Weights as Weights
from components.student.arrays import pad as pad
from components.student.entity import ENTITY, EntityColumns


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One array of a featuriser, and one input of a network.

    ``shape``: a number for an axis of that size, a name for one that differs from batch to batch; axes of one name are
    of one size. The first is always ``batch``. ``below``: integers are in [0, below); None where they may be any.
    """

    dtype: Literal["int64", "float32"]
    shape: tuple[str | int, ...]
    below: int | None = None


Signature = Mapping[str, TensorSpec]


class Featuriser(Protocol):
    """Turns decoded payloads into a network's inputs. Stateless: equal options give equal features for good."""

    signature: Signature

    def encode(self, payloads: Sequence[Any]) -> Features:
        """The arrays of a batch, those of ``signature``; axes of a name are as long as the batch needs, at least 1."""

    def describe(self, payload: Any) -> dict[str, float | str]:
        """A few readable descriptors of one payload (numbers or categories), the columns that drift is watched on."""


class WithEntity:
    """A featuriser whose arrays have :data:`ENTITY` beside those of another, which sees the payload alone."""

    def __init__(self, payloads: Featuriser, features: Sequence[EntityFeature]) -> None:
        if ENTITY in payloads.signature:
            raise ConfigError("features.entity", ENTITY, "is the name of an array of the featuriser already")
        self._payloads, self._columns = payloads, EntityColumns(features)
        array = TensorSpec(dtype="float32", shape=(BATCH, self._columns.width))
        self.signature: Signature = {**payloads.signature, ENTITY: array}
        self.files = files_of(payloads)

    def encode(self, payloads: Sequence[Any]) -> Features:
        """The arrays of payloads, or of payloads with what is known of their entities."""
        return {
            **self._payloads.encode([bare(p) for p in payloads]),
            ENTITY: self._columns.encode([entity_of(p) for p in payloads]),
        }

    def describe(self, payload: Any) -> dict[str, float | str]:
        """The descriptors of the payload."""
        return self._payloads.describe(bare(payload))


def bag_signature(buckets: int) -> dict[str, TensorSpec]:
    """The signature of weighted bucket ids."""
    shape = (BATCH, "length")
    return {
        "ids": TensorSpec(dtype="int64", shape=shape, below=buckets),
        "weights": TensorSpec(dtype="float32", shape=shape),
    }


class _Bag:
    """A featuriser of the pair form, in the form of named arrays."""

    def __init__(self, pairs: Any) -> None:
        self._pairs = pairs
        self.signature: Signature = bag_signature(pairs.buckets)
        self.describe = pairs.describe

    def encode(self, payloads: Sequence[Any]) -> Features:
        ids, weights = self._pairs.encode(payloads)
        return {"ids": ids, "weights": weights}


def featuriser(factory: Factory, source: str = "", files: Mapping[str, bytes] | None = None) -> Featuriser:
    """The featuriser that a spec or a card names.

    One whose constructor takes ``spec_folder`` is given the folder of ``source``, the spec file. ``files``: what an
    artifact carries of the files that the featuriser was made from (:func:`files_of`), which its constructor then gets
    as ``files`` and reads none from the disk. Features of the entity stand beside its own
    (:class:`WithEntity`).

    Raises:
        ConfigError: it does not exist, does not take its options, or has neither a signature nor buckets.

    """
    made = _of_payloads(factory, source, files)
    if isinstance(factory, Declared) and factory.entity is not None:
        return WithEntity(made, factory.entity.features)
    return made


def _of_payloads(factory: Factory, source: str, files: Mapping[str, bytes] | None) -> Featuriser:
    wanted = placed(factory, source)
    options = {**wanted.options, "files": files} if files else wanted.options
    made = build(Factory(factory=factory.factory, options=options), source)
    if hasattr(made, "signature"):
        checked: Featuriser = made
        for name, tensor in checked.signature.items():
            if not tensor.shape or tensor.shape[0] != BATCH:
                raise ConfigError("features", factory.factory, f"the shape of {name} must begin with {BATCH!r}")
        return checked
    if hasattr(made, "buckets"):
        return _Bag(made)
    raise ConfigError("features", factory.factory, "needs a `signature` of named arrays, or `buckets` of weighted ids")


def placer(factory: Factory, source: str = "") -> Callable[[Any], Sequence[tuple[int, int]]]:
    """What says where the tokens of a decoded payload stand, for students that tag: :func:`tokens_of` of a factory."""
    return tokens_of(featuriser(factory, source), factory.factory)


def tokens_of(made: Featuriser, name: str) -> Callable[[Any], Sequence[tuple[int, int]]]:
    """The ability of a featuriser, which students that tag ask for, to say where a text's tokens stand.

    ``tokens(payload)`` gives the characters of each, from the first to the second, which is excluded, in the order of
    the text and of the axis :data:`TOKENS` of the arrays.

    Raises:
        ConfigError: it does not say, or none of its arrays has such an axis.

    """
    found = getattr(made, "tokens", None)
    if found is None or not any(TOKENS in tensor.shape[1:2] for tensor in made.signature.values()):
        remedy = f"needs tokens(payload) and an array of shape ({BATCH!r}, {TOKENS!r}, ...) where the task is tagging"
        raise ConfigError("features.factory", name, f"{remedy}: take components.student.tagging:TaggedWords")
    placed_by: Callable[[Any], Sequence[tuple[int, int]]] = found
    return placed_by


def longest(features: Features, signature: Signature) -> int:
    """The length of the axis :data:`TOKENS`."""
    return next(len(features[name][0]) for name, tensor in signature.items() if TOKENS in tensor.shape[1:2])


def files_of(made: Featuriser) -> dict[str, bytes]:
    """The files that a featuriser was made from, and that must go where it goes: its ``files``, if it has any."""
    return dict(getattr(made, "files", {}))


def made_up(signature: Signature, batch: int, length: int, seed: int = 0) -> Features:
    """Arrays that fit a signature: random integers of its range, and numbers in [0, 1 / length).

    ``length``: the size of every axis that has a name, the batch's excepted.
    """
    chance = np.random.default_rng(seed)
    sizes = {BATCH: batch}
    out: Features = {}
    for name, tensor in signature.items():
        shape = tuple(axis if isinstance(axis, int) else sizes.get(axis, length) for axis in tensor.shape)
        if tensor.dtype == "int64":
            out[name] = chance.integers(0, tensor.below or 2, size=shape)
        else:
            out[name] = (chance.random(shape) / length).astype(np.float32)
    return out
