"""A teacher behind the OpenAI embeddings form (OpenAI, vLLM, TEI, llama.cpp, Ollama, ...): its vectors are the answers.

https://platform.openai.com/docs/api-reference/embeddings. A server gives a vector alone and not how sure it is of it,
so the distance that is expected from one is declared: ``scale``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from components.contracts.errors import ConfigError, RecordError, TeacherError
from components.contracts.records import SoftLabel, Task
from components.teachers.contract import Outcome, TeacherChangedError, check_texts, identity_digest, soft_labels
from components.teachers.http import Endpoint, Http, RefusedError, Remote
from components.teachers.minilm_embedding import SCALE, check_scale
from components.teachers.openai_chat import CHARACTERS_PER_TOKEN, INPUT_STATUS, PROBE


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    model: str = ""
    usage: _Usage | None = None


class EmbeddingTeacher(Remote):
    """A model of embeddings of texts.

    ``url`` up to and with ``/v1``; ``model`` as the server names it. ``scale``: the cosine distance that is expected of
    an answer that is as good as the teacher's own: a student agrees within three of them
    (:mod:`components.contracts.vectors`). ``prefix``: what stands before each text, which some models ask for
    (``"query: "``). ``max_characters``: where a text is cut. ``max_batch``: texts in one request. ``body``: more fields
    of the request (``dimensions``). ``on_change``: ``error`` labels nothing once the server reports another model;
    ``report`` goes on and shows it in :attr:`changed`. ``price_per_million_tokens`` in any one currency. ``http``: see
    :class:`components.teachers.http.Http`.

    The digest covers the model that the server reports, the dimension, the space, and all options that decide an
    answer; the URL is not part of it.

    Raises:
        ConfigError: an option is wrong.
        UnavailableError: the server does not answer.
        TeacherError: it answers no embeddings.

    """

    task: Task = "embedding"
    classes: tuple[str, ...] = ()

    def __init__(
        self,
        url: str,
        model: str,
        space: str,
        *,
        scale: float = SCALE,
        prefix: str = "",
        max_characters: int = 20_000,
        max_batch: int = 64,
        body: Mapping[str, Any] | None = None,
        name: str = "",
        size_bytes: int = 0,
        on_change: Literal["error", "report"] = "error",
        price_per_million_tokens: float = 0.0,
        http: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.space, self.size_bytes, self.scale = name or model, space, size_bytes, check_scale(scale)
        if on_change not in ("error", "report"):
            raise ConfigError("on_change", on_change, "must be one of error, report")
        if max_batch < 1:
            raise ConfigError("max_batch", max_batch, "must be at least 1")
        self.on_change, self._price = on_change, price_per_million_tokens
        self._prefix, self._max_characters, self._max_batch = prefix, max_characters, max_batch
        self._fields = {"model": model, "encoding_format": "float", **(body or {})}
        self._endpoint = Endpoint(self.name, url, Http.of(http))
        self._lock = threading.Lock()
        self._tokens = 0
        self.changed: dict[str, Any] | None = None
        with self._endpoint.closed_on_error():
            self.reported = self._reported(self._embedded([PROBE]))
        self.digest = identity_digest(
            {
                "kind": "openai_embeddings", "reported": self.reported, "prefix": prefix, "scale": scale,
                "max_characters": max_characters, "fields": self._fields, "space": space,
            }
        )  # fmt: skip

    def label(self, payloads: Sequence[str]) -> list[SoftLabel]:
        """Soft labels of texts.

        Raises:
            TeacherError: an answer is no vector, or the server refuses an input.
            TeacherChangedError: the server reports another model, or gives vectors of another dimension.
            UnavailableError: the server does not answer.

        """
        return soft_labels(self.name, self.outcomes(payloads))

    def outcomes(self, payloads: Sequence[str]) -> list[Outcome]:
        """As :meth:`label`, with a dead letter (``teacher_refused``) for an input that the server refuses."""
        check_texts(self.name, payloads)
        chunks = [list(payloads[i : i + self._max_batch]) for i in range(0, len(payloads), self._max_batch)]
        return [one for found in self._endpoint.each(self._outcomes, chunks, payloads=tuple) for one in found]

    def cost(self, payloads: Sequence[str]) -> float:
        """The most that labelling these can cost: a token has at least one byte."""
        return sum(len(self._text(p).encode()) + 2 for p in payloads) * self._price / 1e6

    def state(self) -> dict[str, Any]:
        """The endpoint's state with tokens, money spent, and the identity."""
        with self._lock:
            return self._endpoint.state() | {
                "prompt_tokens_total": self._tokens,
                "spent_total": self._tokens * self._price / 1e6,
                "reported": dict(self.reported),
                "changed": self.changed,
            }

    def _outcomes(self, texts: list[str]) -> list[Outcome]:
        """What became of the texts of one request; where the server refuses it, each is asked about by itself."""
        try:
            found = self._embedded(texts)
        except RefusedError as error:
            if error.status not in INPUT_STATUS:
                raise
            if len(texts) == 1:
                return [RecordError("teacher_refused", error.detail)]
            return [one for text in texts for one in self._outcomes([text])]
        self._compare(self._reported(found))
        return [self._soft(one.embedding) for one in found.data]

    def _soft(self, vector: list[float]) -> SoftLabel:
        try:
            return SoftLabel(task="embedding", space=self.space, vector=tuple(vector), scale=self.scale)
        except ValueError as error:
            raise TeacherError(self.name, f"answered a vector that is none: {error}") from error

    def _text(self, text: str) -> str:
        return self._prefix + text[: self._max_characters]

    def _embedded(self, texts: list[str]) -> _Embeddings:
        """The server's answer, in the order of the texts."""
        asked = [self._text(text) for text in texts]
        estimate = sum(len(text) // CHARACTERS_PER_TOKEN + 2 for text in asked)
        answer = self._endpoint.post(
            "embeddings", self._fields | {"input": asked}, tokens=estimate, inputs=len(texts)
        )  # fmt: skip
        try:
            found = msgspec.convert(answer, _Embeddings)
        except msgspec.ValidationError as error:
            raise TeacherError(self.name, f"answered no embeddings: {error}; does url end in /v1?") from error
        found.data.sort(key=lambda one: one.index)
        if [one.index for one in found.data] != list(range(len(texts))):
            raise TeacherError(self.name, f"answered {len(found.data)} embeddings for {len(texts)} texts")
        if len({len(one.embedding) for one in found.data}) != 1:
            raise TeacherError(self.name, "answered vectors of several dimensions")
        used = estimate if found.usage is None or found.usage.prompt_tokens is None else found.usage.prompt_tokens
        self._endpoint.settle(estimate, used)
        with self._lock:
            self._tokens += used
        return found

    def _reported(self, found: _Embeddings) -> dict[str, Any]:
        return {"model": found.model, "dimension": len(found.data[0].embedding)}

    def _compare(self, found: dict[str, Any]) -> None:
        if found == self.reported:
            return
        self.changed = found
        if self.on_change == "error" or found["dimension"] != self.reported["dimension"]:
            raise TeacherChangedError(self.name, self.reported, found)
