"""The student's card: all that is needed to run and to judge an artifact, stored inside the ONNX file itself.

The card travels in the ONNX model's ``metadata_props`` under :data:`CARD_KEY`, so that one file with one digest is
the whole artifact: what is evaluated is what is served. Files that its featuriser needs (a tokenizer's, say) travel
beside it under :data:`FILES_KEY`.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping

import msgspec

from components.contracts.records import NAMED, Task
from components.contracts.spec import Factory, Features, Form, Payload, PrivacyUnit
from components.contracts.spec.student import BAG
from components.student.features import TensorSpec, bag_signature

CARD_KEY, FILES_KEY = "cohobate.card", "cohobate.files"

MAX_FILES_BYTES = 64 << 20
"""What the files of one artifact may unpack to: a tokenizer's are a few megabytes."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What a student's weights may tell of one ``unit`` of the rows that its lineage has learnt from.

    They are (``epsilon``, ``delta``)-differentially private: ``epsilon`` is what has been spent, all updates since the
    fresh student composed. ``history``: what they were, the first one first, as (deviation of the noise in multiples of
    the clipping length, chance of a row to be in a step, steps).
    """

    epsilon: float
    delta: float
    unit: PrivacyUnit
    history: tuple[tuple[float, float, int], ...]


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed what: the id of a key, and SHA-256 of the statement."""

    key: str
    statement: str


class Begun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The student of a federation that a lineage began with, by the ``digest`` of its artifact.

    ``given``: by whom it was handed on, in which ``round`` of which ``federation``; ``taken``: by whom it was taken
    here; both None where nobody signed it whose key counted.
    """

    digest: str
    federation: str = ""
    round: int = 0
    given: Signature | None = None
    taken: Signature | None = None


class StudentCard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a student is.

    ``classes``: class names in the order of the model's output (of tagging the tags; empty for regression and
    embedding); ``dimension``: of an embedding's vectors, else 0; ``space``: the label space with its version, or the
    unit; ``features`` and ``payload``: how a payload becomes the model's inputs; ``inputs``: their types and shapes by
    name; ``network``: what was trained, with the options of its variant; ``snapshots``: content hashes it was trained
    on, newest first; ``teacher``: ``name@digest``; ``parent``: registry version it was warm-started from; ``code``:
    version of this code; ``precision``: ``float32`` or ``int8``; ``weights``: SHA-256 of the trainable weights that lie
    beside it; ``pruned``: whether units of the network that its weights have are left out; ``recipe``: the one of the
    spec that it learnt by (empty: the spec's objective); ``unlabelled``: SHA-256 of the inputs that it learnt from
    without labels; ``privacy``: the account of a lineage that was trained in private from the first (None: nothing
    bounds what the weights tell); ``labels``: how many labels its windows have, and how many of them its line may have
    ``learnt`` from by now. ``novelty``: scores of inputs that it did not learn from, in rising order, in groups: what
    its scores of novelty are worth (:func:`drift.novelty.conformal_p`); empty: it tells of none. ``synthetic``: labels
    of its windows whose inputs were made up, by how (``method;seed=0``). ``attribution``: the sentences that the terms
    of its teacher and data ask for. ``start``: the student of a federation that its lineage began with, None where it
    began here.
    """

    workload: str
    task: Task
    space: str
    classes: tuple[str, ...]
    features: Features
    payload: Payload
    inputs: dict[str, TensorSpec]
    network: Factory
    variant: str
    snapshots: tuple[str, ...]
    teacher: str
    parent: str | None
    code: str
    precision: str = "float32"
    weights: str | None = None
    pruned: bool = False
    recipe: str = ""
    unlabelled: str = ""
    privacy: Account | None = None
    labels: int = 0
    learnt: int = 0
    novelty: tuple[tuple[float, ...], ...] = ()
    synthetic: dict[str, int] = {}
    attribution: tuple[str, ...] = ()
    dimension: int = 0
    start: Begun | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "features", Features.of(self.features))

    @property
    def form(self) -> Form:
        """Which export of its weights this is."""
        if not self.pruned:
            return "int8" if self.precision == "int8" else "float32"
        return "pruned_int8" if self.precision == "int8" else "pruned"

    @property
    def outputs(self) -> int:
        """Numbers that the network gives for an input or token: one a class, or a value or vector and its scale."""
        if self.task == "embedding":
            return self.dimension + 1
        return len(self.classes) if self.task in NAMED else 2


def read_card(text: str | bytes) -> StudentCard:
    """A card from its JSON; one from before networks could be chosen names the shape of its bag of features.

    Raises:
        msgspec.MsgspecError: it is no card.

    """
    found = msgspec.json.decode(text)
    if isinstance(found, dict) and "buckets" in found and "network" not in found:
        shape = {name: found.pop(name, None) for name in ("buckets", "dim", "hidden", "pruned_to")}
        options = {"dim": shape["dim"], "hidden": shape["hidden"]}
        found["network"] = {"factory": BAG, "options": options}
        found["inputs"] = msgspec.to_builtins(bag_signature(shape["buckets"]))
        found["pruned"] = shape["pruned_to"] is not None
    return msgspec.convert(found, StudentCard)


def pack(files: Mapping[str, bytes]) -> str:
    """Files as text for an artifact's metadata; equal files give equal text."""
    held = {name: base64.b64encode(zlib.compress(data, 9)).decode() for name, data in sorted(files.items())}
    return msgspec.json.encode(held).decode()


def unpack(text: str) -> dict[str, bytes]:
    """The files of an artifact.

    Raises:
        ValueError: it is no such text, or unpacks to more than :data:`MAX_FILES_BYTES`.

    """
    files, left = {}, MAX_FILES_BYTES
    for name, held in msgspec.json.decode(text, type=dict[str, str]).items():
        opened = zlib.decompressobj()
        try:
            files[name] = opened.decompress(base64.b64decode(held, validate=True), max(left, 1))
        except zlib.error as error:
            raise ValueError(f"the file {name!r} is broken: {error}") from error
        left -= len(files[name])
        if opened.unconsumed_tail or left < 0:
            raise ValueError(f"its files unpack to more than {MAX_FILES_BYTES} bytes")
    return files


def export_uri(folder: str, form: Form) -> str:
    """Where an export lies that the spec names beside the artifact to serve, in the folder of that artifact."""
    return f"{folder}/{form}.onnx"
