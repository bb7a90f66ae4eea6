"""Word pieces of a pretrained tokenizer, by the library tokenizers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from components.contracts.errors import ConfigError
from components.contracts.spec import located
from components.student.arrays import BATCH, Features
from components.student.features import Signature, TensorSpec
from components.student.text_descriptors import describe_text

FILE = "tokenizer.json"

CUT = ("WordPiece", "WordLevel")
"""Kinds of models whose vocabulary can be cut: what is left of it still splits every word."""


class Tokens:
    """Ids of a text's tokens in order, with a mask that is 1 where there is one and 0 where there is padding.

    ``tokenizer``: a ``tokenizer.json``, or a folder that has one: a path that is absolute or relative to the spec, or
    ``package/folder`` within an installed Python package. The file travels in the artifact: where a student serves, it
    is not read from there. ``length``: tokens at most, with those that the tokenizer adds; ``vocabulary``: ids that are
    kept, those below it, where the embedding table is to be small: a word whose token is left out is split into smaller
    ones; None keeps all. ``head``: characters that are read.
    """

    def __init__(
        self,
        tokenizer: str,
        length: int = 128,
        vocabulary: int | None = None,
        head: int = 4_000,
        spec_folder: str = "",
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        if length < 4 or head < 1:
            raise ConfigError("features.options", {"length": length, "head": head}, "length >= 4 and head >= 1")
        self.length, self.head = length, head
        whole = files[FILE] if files and FILE in files else _read(tokenizer, spec_folder)
        described = _cut(whole, vocabulary)
        self.files = {FILE: described}
        self._tokenizer = _made(described, tokenizer)
        self._tokenizer.enable_truncation(max_length=length)
        self._tokenizer.no_padding()

    @cached_property
    def signature(self) -> Signature:
        """``ids`` and ``mask``, (B, L) each."""
        shape = (BATCH, "length")
        below = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        return {
            "ids": TensorSpec(dtype="int64", shape=shape, below=below),
            "mask": TensorSpec(dtype="int64", shape=shape, below=2),
        }

    def encode(self, payloads: Sequence[str]) -> Features:
        """``ids`` and ``mask``, (B, L) each."""
        texts = [text[: self.head] for text in payloads]
        # One text needs no second thread, which the library would start.
        found = [self._tokenizer.encode(texts[0])] if len(texts) == 1 else self._tokenizer.encode_batch(texts)
        longest = max([1, *(len(e.ids) for e in found)])
        ids, mask = (np.zeros((len(texts), longest), dtype=np.int64) for _ in range(2))
        for i, encoding in enumerate(found):
            ids[i, : len(encoding.ids)], mask[i, : len(encoding.ids)] = encoding.ids, 1
        return {"ids": ids, "mask": mask}

    def describe(self, payload: str) -> dict[str, float | str]:
        """What :class:`components.student.text.TextNgrams` tells of a text."""
        return describe_text(payload, self.head)


def _read(tokenizer: str, spec_folder: str) -> bytes:
    field = "features.options.tokenizer"
    path = located(tokenizer, spec_folder, field)
    if path.is_dir():
        path = path / FILE
    if not path.is_file():
        raise ConfigError(field, tokenizer, f"has no {FILE}: name the file, or save the tokenizer in that form")
    return path.read_bytes()


def _made(described: bytes, name: str) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(described.decode())
    except Exception as error:  # the library raises its errors as plain exceptions
        raise ConfigError("features.options.tokenizer", name, f"is no {FILE} of tokenizers: {error}") from error


def _cut(whole: bytes, vocabulary: int | None) -> bytes:
    """The description of a tokenizer that knows the ids below ``vocabulary`` alone."""
    if vocabulary is None:
        return whole
    field = "features.options.vocabulary"
    try:
        described = json.loads(whole)
        kind, known = described["model"]["type"], described["model"]["vocab"]
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(field, vocabulary, f"can be cut of a {FILE} alone: {error}") from error
    if kind not in CUT:
        raise ConfigError(field, vocabulary, f"can be cut of {' and '.join(CUT)} tokenizers, and this is a {kind}")
    special = [token["id"] for token in described.get("added_tokens", [])]
    least = max([known.get(described["model"].get("unk_token"), 0), *special]) + 1
    if vocabulary < least:
        raise ConfigError(field, vocabulary, f"must be >= {least}, to keep the tokenizer's special tokens")
    described["model"]["vocab"] = {token: i for token, i in known.items() if i < vocabulary}
    return json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
