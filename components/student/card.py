"""The student's card: all that is needed to run and to judge an artifact, stored inside the ONNX file itself.

The card travels in the ONNX model's ``metadata_props`` under :data:`CARD_KEY`, so that one file with one digest is
the whole artifact: what is evaluated is what is served.
"""

from __future__ import annotations

import msgspec

from components.contracts.records import Task
from components.contracts.spec import Factory, Form, Payload

CARD_KEY = "cohobate.card"


class StudentCard(msgspec.Struct, frozen=True, kw_only=True):
    """What a student is.

    ``classes``: class names in the order of the model's output (empty for regression); ``space``: the label space
    with its version, or the unit; ``features`` and ``payload``: how a payload becomes the model's input;
    ``buckets``: rows of the embedding table; ``snapshots``: content hashes it was trained on, newest first;
    ``teacher``: ``name@digest``; ``parent``: registry version it was warm-started from; ``code``: version of this
    code; ``precision``: ``float32`` or ``int8``; ``weights``: SHA-256 of the trainable weights that lie beside it;
    ``pruned_to``: the dimensions and hidden units of a pruned export, of the ``dim`` and ``hidden`` that its weights
    have.
    """

    workload: str
    task: Task
    space: str
    classes: tuple[str, ...]
    features: Factory
    payload: Payload
    buckets: int
    dim: int
    hidden: int
    variant: str
    snapshots: tuple[str, ...]
    teacher: str
    parent: str | None
    code: str
    precision: str = "float32"
    weights: str | None = None
    pruned_to: tuple[int, int] | None = None

    @property
    def form(self) -> Form:
        """Which export of its weights this is."""
        if self.pruned_to is None:
            return "int8" if self.precision == "int8" else "float32"
        return "pruned_int8" if self.precision == "int8" else "pruned"


def export_uri(folder: str, form: Form) -> str:
    """Where an export lies that the spec names beside the artifact to serve, in the folder of that artifact."""
    return f"{folder}/{form}.onnx"
