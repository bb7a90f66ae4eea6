"""A teacher of embeddings of texts: the pooled vectors of MiniLM-L6 (:mod:`components.teachers.minilm`), offline."""

from __future__ import annotations

import math
from collections.abc import Sequence

from components.contracts.errors import ConfigError
from components.contracts.records import SoftLabel, Task
from components.contracts.storage import digest_of
from components.teachers.contract import check_texts
from components.teachers.minilm import MiniLM, OverMiniLM

SCALE = 0.1
"""The cosine distance that is expected of an answer as good as the teacher's own, where nobody declares one: within
three of them, a cosine of 0.7, what MiniLM finds for a text are its paraphrases."""


class MiniLMEmbedding(OverMiniLM):
    """The transformer's vectors, of 384 numbers and length 1. ``max_tokens`` and ``threads``: see :class:`.MiniLM`.

    ``space`` names the vectors with their version. ``scale``: the cosine distance that is expected of an answer that is
    as good as the teacher's own: a student agrees within three of them (:mod:`components.contracts.vectors`).

    Raises:
        ConfigError: an option is wrong, or the extra ``mail`` is not installed.
        ArtifactError: the weights are not the pinned ones.

    """

    name = "minilm-l6-embedding"
    task: Task = "embedding"
    classes: tuple[str, ...] = ()

    def __init__(self, space: str, max_tokens: int = 64, scale: float = SCALE, threads: int = 1) -> None:
        self.space, self.scale = space, check_scale(scale)
        self._encoder = MiniLM(max_tokens, threads)
        self.size_bytes = self._encoder.size_bytes
        self.digest = digest_of(f"{self._encoder.digest} {max_tokens} {scale!r} {space}".encode())

    def label(self, payloads: Sequence[str]) -> list[SoftLabel]:
        """Soft labels of texts.

        Raises:
            TeacherError: a payload is no text, or PyTorch failed.

        """
        check_texts(self.name, payloads)
        if not payloads:
            return []
        vectors = self.embed(payloads)
        return [
            SoftLabel(task="embedding", space=self.space, vector=tuple(row), scale=self.scale)
            for row in vectors.astype(float).tolist()
        ]


def check_scale(scale: float) -> float:
    """Refuse a distance that cannot be expected.

    Raises:
        ConfigError: it is none between 0 and 2.

    """
    if not (math.isfinite(scale) and 0.0 < scale <= 2.0):
        raise ConfigError("scale", scale, "must be a cosine distance above 0 and at most 2")
    return scale
