"""Running a student's artifact: one ONNX file with its card inside, by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from components.contracts.errors import ArtifactError
from components.contracts.payload import bare, decoder, knowing
from components.contracts.records import NAMED, SoftLabel
from components.contracts.storage import digest_of
from components.contracts.tagging import tagging
from components.student.card import CARD_KEY, FILES_KEY, StudentCard, read_card, unpack
from components.student.features import Features, Featuriser, Signature, featuriser, tokens_of
from drift.novelty import conformal_p

OUTPUTS = {
    "classification": ["probabilities"], "regression": ["value", "scale"], "multilabel": ["probabilities"],
    "tagging": ["probabilities"], "embedding": ["vector", "scale"],
}  # fmt: skip
"""The graph's outputs by task: (B, C), or (B,) each, a vector (B, D), or (B, L, C) of L tokens of the longest text."""

NOVELTY = "novelty"
"""The further output of graphs that tell how far an input is from what the student has learnt from, (B,)."""

RANGES_OF_A_BATCH = b"DynamicQuantizeLinear"
"""The operator that quantises activations by the range that they have in the batch."""

CHUNK = 256
"""Inputs that are run at a time: each is padded to the longest of them."""


class Reply(NamedTuple):
    """What a student says of one input.

    ``novelty``: p-value in [0, 1] of its likeness to what the student knows (:func:`drift.novelty.conformal_p`);
    None: the artifact is from before students told it, or there was nothing to tell it by.
    """

    soft: SoftLabel
    novelty: float | None


class Student:
    """A loaded student. Safe to call from several threads."""

    def __init__(
        self, session: Any, card: StudentCard, digest: str, source: str, files: Mapping[str, bytes] | None = None
    ) -> None:
        self._session, self.card, self.digest = session, card, digest
        self.featuriser: Featuriser = featuriser(card.features, source, files)
        self._inputs = [i.name for i in session.get_inputs()]
        self.batch_dependent = False
        """Whether an answer hangs on what else is in its batch."""
        self._decode = knowing(decoder(card.payload, source))
        self._outputs = OUTPUTS[card.task]
        self._tokens = tokens_of(self.featuriser, card.features.factory) if card.task == "tagging" else None
        self.scored = NOVELTY in [o.name for o in session.get_outputs()]
        """Whether the graph gives a score of novelty; p-values need the card's scores too."""
        self._known = card.novelty if self.scored else ()

    @classmethod
    def load(cls, data: bytes | Path, *, threads: int = 1, source: str = "") -> Student:
        """Load an artifact; ``source`` is the spec file that the card's ``file.py:name`` references are relative to.

        Raises:
            ArtifactError: it is not an ONNX model, has no card, or its graph or features do not fit the card.
            ConfigError: the card's featuriser or decoder does not exist here.

        """
        where = str(data) if isinstance(data, Path) else "in memory"
        content = data.read_bytes() if isinstance(data, Path) else data
        session = _session(content, where, threads)
        card, files = _card_of(session.get_modelmeta().custom_metadata_map, where)
        _check_graph(session, card, where)
        student = cls(session, card, digest_of(content), source, files)
        student.batch_dependent = RANGES_OF_A_BATCH in content
        if (found := dict(student.featuriser.signature)) != card.inputs:
            told = f"its features are {_shown(found)}, its card says {_shown(card.inputs)}"
            raise ArtifactError(where, f"{told}: it was trained with another version of the featuriser")
        return student

    def predict(self, payloads: Sequence[bytes]) -> list[SoftLabel]:
        """Soft labels of payloads as they came, one for each, in order.

        Raises:
            RecordError: a payload cannot be decoded.
            ArtifactError: the student's answer is not a soft label.

        """
        return self.predict_decoded([self._decode(p) for p in payloads])

    def predict_decoded(self, payloads: Sequence[Any]) -> list[SoftLabel]:
        """Soft labels of decoded payloads, one for each, in order.

        Raises:
            ArtifactError: the student's answer is not a soft label.

        """
        found: list[SoftLabel] = []
        for first in range(0, len(payloads), CHUNK):
            some = payloads[first : first + CHUNK]
            found += self._told(self._run(self._encoded(some), self._outputs), some)
        return found

    @property
    def tells_novelty(self) -> bool:
        """Whether replies have a novelty."""
        return bool(self._known)

    @property
    def least_novelty(self) -> float | None:
        """The least p-value that a reply can have: the fewer inputs it was calibrated on, the larger it is."""
        return max((1.0 / (len(group) + 1) for group in self._known), default=None)

    def reply(self, payloads: Sequence[bytes]) -> list[Reply]:
        """As :meth:`predict`, with the novelty of each input."""
        return self.reply_decoded([self._decode(p) for p in payloads])

    def reply_decoded(self, payloads: Sequence[Any]) -> list[Reply]:
        """As :meth:`predict_decoded`, with the novelty of each input."""
        if not self._known:
            return [Reply(soft, None) for soft in self.predict_decoded(payloads)]
        found: list[Reply] = []
        for first in range(0, len(payloads), CHUNK):
            some = payloads[first : first + CHUNK]
            *out, scores = self._run(self._encoded(some), [*self._outputs, NOVELTY])
            found += [
                Reply(soft, conformal_p(score, self._known))
                for soft, score in zip(self._told(out, some), scores.tolist(), strict=True)
            ]
        return found

    def scores(self, payloads: Sequence[bytes]) -> list[float]:
        """The scores of novelty themselves, larger ones being more unlike; each as it is where it is asked alone.

        Raises:
            RecordError: a payload cannot be decoded.

        """
        size = 1 if self.batch_dependent else CHUNK
        decoded = [self._decode(p) for p in payloads]
        return [
            score
            for first in range(0, len(decoded), size)
            for score in self._run(self._encoded(decoded[first : first + size]), [NOVELTY])[0].tolist()
        ]

    def features(self, payloads: Sequence[bytes]) -> Features:
        """What the network is fed of payloads as they came, as one batch.

        Raises:
            RecordError: a payload cannot be decoded.

        """
        return self._encoded([self._decode(p) for p in payloads])

    def exercise(self, features: Features) -> list[SoftLabel]:
        """Soft labels of features as they are: the arrays of the card's ``inputs``.

        Features do not say where tokens stand: of a student that tags, each is taken for one character of its own.

        Raises:
            ArtifactError: the student's answer is not a soft label.

        """
        return self._told(self._run(features, self._outputs))

    def _encoded(self, decoded: Sequence[Any]) -> Features:
        """Features of decoded payloads; a student that is fed nothing of entities is not told of them."""
        fed = self.card.features.entity is not None
        return self.featuriser.encode(decoded if fed else [bare(d) for d in decoded])

    def _run(self, features: Features, outputs: Sequence[str]) -> list[Any]:
        out: list[Any] = self._session.run(outputs, {name: features[name] for name in self._inputs})
        return out

    def _told(self, out: Sequence[Any], decoded: Sequence[Any] | None = None) -> list[SoftLabel]:
        """Soft labels of the graph's outputs; ``decoded``: the payloads that they are of."""
        try:
            if self._tokens is not None:
                return [
                    self._tagged(row, text) for row, text in zip(out[0], decoded or [None] * len(out[0]), strict=True)
                ]
            return self._soft_labels([np.asarray(o, dtype=np.float64).tolist() for o in out])
        except ValueError as error:
            raise ArtifactError(self.digest[:12], f"answers what is not a soft label: {error}") from error

    def _soft_labels(self, out: list[Any]) -> list[SoftLabel]:
        space = self.card.space
        if self.card.task == "regression":
            return [
                SoftLabel(task="regression", space=space, value=v, scale=s) for v, s in zip(out[0], out[1], strict=True)
            ]
        if self.card.task == "embedding":
            return [
                SoftLabel(task="embedding", space=space, vector=tuple(v), scale=s)
                for v, s in zip(out[0], out[1], strict=True)
            ]
        made = SoftLabel.multilabel if self.card.task == "multilabel" else SoftLabel.of
        return [made(space, self.card.classes, row) for row in out[0]]

    def _tagged(self, rows: npt.NDArray[np.float32], decoded: Any) -> SoftLabel:
        """The soft label of one text; ``rows``: (L, C), of which those behind its tokens are padding."""
        if decoded is None or self._tokens is None:
            places: Sequence[tuple[int, int]] = [(i, i + 1) for i in range(len(rows))]
        else:
            places = self._tokens(bare(decoded))
        shares = rows[: len(places)].astype(np.float64).tolist()
        if len(shares) < len(places):
            raise ValueError(f"of {len(places)} tokens it tags {len(shares)}")
        return tagging(self.card.space, self.card.classes, places, shares)


def card_of(data: bytes, where: str) -> StudentCard:
    """The card of an artifact, whether or not its featuriser is here; ``where``: for the message.

    Raises:
        ArtifactError: it is not an ONNX model, or has no card.

    """
    return _card_of(_session(data, where, threads=1).get_modelmeta().custom_metadata_map, where)[0]


def _session(content: bytes, where: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's classes have no common base of their own
        raise ArtifactError(where, f"is not a model that ONNX Runtime loads: {error}") from error


def _card_of(metadata: dict[str, str], where: str) -> tuple[StudentCard, dict[str, bytes]]:
    if CARD_KEY not in metadata:
        raise ArtifactError(where, f"has no card (metadata {CARD_KEY!r}): it was not exported by Cohobate")
    try:
        return read_card(metadata[CARD_KEY]), unpack(metadata.get(FILES_KEY, "{}"))
    except (msgspec.MsgspecError, ValueError) as error:
        raise ArtifactError(where, f"its card is broken: {error}") from error


def _shown(inputs: Signature) -> str:
    return msgspec.json.encode(inputs).decode()


def _check_graph(session: Any, card: StudentCard, where: str) -> None:
    inputs, outputs = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
    expected = OUTPUTS[card.task]
    if not inputs or not card.inputs.keys() >= set(inputs) or outputs not in (expected, [*expected, NOVELTY]):
        wanted = f"a {card.task} student's takes some of {sorted(card.inputs)} and gives {expected}"
        raise ArtifactError(where, f"its graph is {inputs} -> {outputs}; {wanted}")
    width = session.get_outputs()[0].shape[-1]
    if card.task in NAMED and width != len(card.classes):
        raise ArtifactError(where, f"its graph gives {width} probabilities for the card's {len(card.classes)} classes")
    if card.task == "embedding" and width != card.dimension:
        raise ArtifactError(where, f"its graph gives vectors of {width} numbers, and its card says {card.dimension}")
