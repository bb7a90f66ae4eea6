"""The student of a bundle: decodes payloads, makes features of them, runs the model, and says what it is unsure of."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import math
import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .decoders import decoder
from .errors import BundleError, RecordError

MANIFEST, MAJOR = "manifest.json", "1"
"""The file that describes a bundle, and the major version of its schema that this code reads."""

CHUNK = 256
"""Inputs that are run at a time: each is padded to the longest of them."""

FLOOR = 1e-6
"""Classes below this probability are left out of a soft label."""


class Answer(NamedTuple):
    """What the student says of one input, as Cohobate's gateway says it.

    ``label``: the class, the value, of multilabel the JSON array of the classes that are more likely than not, of
    tagging the one of the spans (``[start, end, label]`` each), of an embedding the vector as float16 in base64.
    ``soft_label``: probabilities by class; of a regression its ``value`` and ``scale``; of an embedding its ``vector``,
    of length 1, and ``scale``; of tagging nothing. ``novelty``: p-value of the input's likeness to what the student
    knows, None where it tells none. ``defer``: it is not sure enough, and ``defer_reason`` says why: ask somebody else.
    ``spans`` of tagging are parts of the text and their kinds, ``tokens`` the tags' probabilities; both say characters
    (Unicode code points) from ``start`` to ``end``, which is excluded. None: it is another task.
    """

    label: str
    confidence: float
    soft_label: dict[str, Any]
    defer: bool = False
    defer_reason: str | None = None
    novelty: float | None = None
    spans: list[dict[str, Any]] | None = None
    tokens: list[dict[str, Any]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As it goes into JSON: spans and tokens of tagging alone."""
        return dict(zip(self._fields if self.spans is not None else self._fields[:-2], self, strict=False))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle.

    Raises:
        BundleError: there is none, or it is of another major version.

    """
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
        schema = found["schema"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BundleError(f"{folder} has no {MANIFEST} that can be read: {error}") from error
    if str(schema).partition(".")[0] != MAJOR:
        raise BundleError(f"{folder}: its schema is {schema}; this code reads {MAJOR}: use the code beside it")
    manifest: dict[str, Any] = found
    return manifest


def check(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare every file that a manifest names with its digest.

    Raises:
        BundleError: one is missing or was changed.

    """
    for name, said in sorted(manifest["files"].items()):
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise BundleError(f"{folder / name} cannot be read: {error}") from error
        if found != said["sha256"]:
            raise BundleError(f"{folder / name} was changed: its SHA-256 is {found[:12]}, not {said['sha256'][:12]}")


def load(folder: str | Path | None = None, *, threads: int = 1, verify: bool = True) -> Student:
    """The student of a bundle; None: of the one that this code lies in.

    ``threads``: of the runtime. ``verify``: compare all files with the manifest first.

    Raises:
        BundleError: it is no bundle, or a file was changed.

    """
    return Student(Path(folder) if folder is not None else Path(__file__).parents[1], threads=threads, verify=verify)


class Student:
    """A loaded student. Safe to call from several threads. See :func:`load`."""

    def __init__(self, folder: Path, *, threads: int = 1, verify: bool = True) -> None:
        self.manifest = read_manifest(folder)
        if verify:
            check(folder, self.manifest)
        model, given = self.manifest["model"], self.manifest["input"]
        self._decode = decoder(given)
        made = getattr(_beside(given["featuriser"]["module"]), given["featuriser"]["name"])
        options = dict(given["featuriser"]["options"])
        if files := given["featuriser"]["files"]:
            options["files"] = {name: (folder / path).read_bytes() for name, path in files.items()}
        featuriser = made(**options)
        self.soft_field = "tokens" if self.manifest["task"] == "tagging" else "soft_label"
        """The field of an answer that has its probabilities."""
        if self.manifest["task"] == "tagging":
            self._places = featuriser.tokens
        self._encode = featuriser.encode if hasattr(featuriser, "signature") else _pairs(featuriser)
        engine = _beside(f"engine_{model['format']}").Engine
        self._engine = engine(folder / model["path"], self.manifest, threads)
        self._outputs = list(model["outputs"])
        self._classes = list(self.manifest["classes"])
        self._answer = getattr(self, f"_{self.manifest['task']}")
        self._below, self._novel = self.manifest["defer"]["below"], self.manifest["defer"]["novelty"]
        self._known = self.manifest["defer"]["known"] if len(self._outputs) > len(_own(self.manifest)) else []

    def predict(self, payloads: Sequence[bytes]) -> list[Answer]:
        """The answers to payloads as they came, one for each, in order.

        Raises:
            RecordError: one cannot be decoded.

        """
        return self.predict_decoded([self._decode(p) for p in payloads])

    def predict_each(self, payloads: Sequence[bytes]) -> list[Answer | RecordError]:
        """The same, with the error in the place of an input that cannot be answered."""
        try:
            return list(self.predict(payloads))
        except RecordError:
            return self._each(payloads)

    def _each(self, payloads: Sequence[bytes]) -> list[Answer | RecordError]:
        out: list[Answer | RecordError] = []
        good: list[int] = []
        decoded = []
        for n, payload in enumerate(payloads):
            try:
                decoded.append(self._decode(payload))
            except RecordError as error:
                out.append(error)
                continue
            good.append(n)
            out.append(RecordError("unanswered", "not yet"))
        try:
            said: list[Answer | RecordError] = list(self.predict_decoded(decoded))
        except RecordError:  # one of them has no features: each alone
            said = [self._alone(one) for one in decoded]
        for n, answer in zip(good, said, strict=True):
            out[n] = answer
        return out

    def _alone(self, decoded: Any) -> Answer | RecordError:
        try:
            return self.predict_decoded([decoded])[0]
        except RecordError as error:
            return error

    def predict_decoded(self, payloads: Sequence[Any]) -> list[Answer]:
        """The answers to decoded payloads: text, bytes, or JSON's values.

        Raises:
            RecordError: one has no features.

        """
        found = []
        for first in range(0, len(payloads), CHUNK):
            some = payloads[first : first + CHUNK]
            rows = [array.tolist() for array in self._engine.run(self._encode(some), self._outputs)]
            for n, payload in enumerate(some):
                found.append(self._answer([row[n] for row in rows], payload))
        return found

    def _regression(self, row: list[Any], _payload: Any) -> Answer:
        value, scale, *score = row
        if not (math.isfinite(value) and math.isfinite(scale) and scale > 0):
            raise BundleError(f"the model answers {value!r} with the scale {scale!r}")
        return self._deferred(repr(value), 1.0 / (1.0 + scale), {"value": value, "scale": scale}, score)

    def _embedding(self, row: list[Any], _payload: Any) -> Answer:
        vector, scale, *score = row
        length = math.hypot(*vector)
        if not (math.isfinite(length) and length > 0 and math.isfinite(scale) and scale > 0):
            raise BundleError(f"the model answers a vector of length {length!r} with the scale {scale!r}")
        packed = struct.pack(f"<{len(vector)}e", *(v / length for v in vector))
        text, soft = base64.b64encode(packed).decode(), {"vector": vector, "scale": scale}
        return self._deferred(text, 1.0 / (1.0 + scale), soft, score)

    def _classification(self, row: list[Any], _payload: Any) -> Answer:
        shares, *score = row
        soft = self._soft(shares)
        most = max(soft.values())
        return self._deferred(min([c for c, p in soft.items() if p == most]), most, soft, score)

    def _soft(self, shares: list[float]) -> dict[str, float]:
        """The classes, or a token's tags, that have a share, and what is left adds up to one."""
        kept = {c: p for c, p in zip(self._classes, shares, strict=True) if not p < FLOOR}
        mass = math.fsum(kept.values())
        if not math.isfinite(mass) or mass <= 0.0:
            raise BundleError(f"the model's probabilities sum to {mass!r}")
        return {c: p / mass for c, p in kept.items()}

    def _tagging(self, row: list[Any], payload: Any) -> Answer:
        """Rows behind those of the tokens are padding."""
        rows, *score = row
        places = self._places(payload)
        if len(rows) < len(places):
            raise BundleError(f"of {len(places)} tokens the model tags {len(rows)}")
        tokens: list[dict[str, Any]] = [
            {"start": start, "end": end, "distribution": self._soft(row)}
            for (start, end), row in zip(places, rows, strict=False)
        ]
        written = _beside("spans")
        spans = written.spans_of(tokens)
        sure = math.prod(max(token["distribution"].values()) for token in tokens)
        return self._deferred(written.text_of(spans), sure, {}, score)._replace(spans=spans, tokens=tokens)

    def _multilabel(self, row: list[Any], _payload: Any) -> Answer:
        shares, *score = row
        if not all(0.0 <= p <= 1.0 for p in shares):
            raise BundleError(f"the model answers the probabilities {shares!r:.200}")
        soft = {c: p for c, p in zip(self._classes, shares, strict=True) if not p < FLOOR}
        label = json.dumps(sorted(c for c, p in soft.items() if p >= 0.5), ensure_ascii=False)
        return self._deferred(label, math.prod(max(p, 1.0 - p) for p in soft.values()), soft, score)

    def _deferred(self, label: str, confidence: float, soft: dict[str, Any], score: list[float]) -> Answer:
        novelty, reasons = conformal_p(score[0], self._known) if self._known else None, []
        if confidence < self._below:
            reasons.append(
                f"confidence {confidence:.3f} is below {self._below:g}"
                if self._below <= 1.0
                else "no limit of confidence could be certified for this version: every answer is deferred"
            )
        if novelty is not None and self._novel is not None and novelty <= self._novel:
            reasons.append(f"the input is unlike what the student knows: {novelty:.3f} is not above {self._novel:g}")
        return Answer(label, confidence, soft, bool(reasons), "; ".join(reasons) or None, novelty)


def conformal_p(score: float, groups: Sequence[Sequence[float]]) -> float:
    """The p-value of a score of novelty by known scores, in groups, each in rising order: the largest of them."""
    if math.isnan(score):
        score = math.inf
    return max((1 + len(known) - bisect_left(known, score)) / (len(known) + 1) for known in groups)


def _own(manifest: Mapping[str, Any]) -> list[str]:
    of_numbers = {"regression": ["value", "scale"], "embedding": ["vector", "scale"]}
    return of_numbers.get(manifest["task"], ["probabilities"])


def _beside(module: str) -> Any:
    return importlib.import_module(f".{module}", __package__)


def _pairs(featuriser: Any) -> Any:
    def encode(payloads: Sequence[Any]) -> dict[str, Any]:
        ids, weights = featuriser.encode(payloads)
        return {"ids": ids, "weights": weights}

    return encode
