"""A local token classifier of transformers and PyTorch, such as one that recognises named entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.contracts.errors import ConfigError, TeacherError
from components.contracts.records import OUTSIDE, SoftLabel, Task
from components.contracts.tagging import tagging
from components.teachers.contract import check_texts
from components.teachers.torch_module import TransformersTeacher


class TokenTeacher(TransformersTeacher):
    """A token classifier in ``folder``, as ``save_pretrained`` of model and tokenizer writes it; it tags words.

    A word is what the tokenizer splits a text into before it makes pieces of it, and has the tags of its first piece,
    as such models are trained (J. Devlin et al., NAACL 2019, arXiv 1810.04805, section 5.3). Text behind ``max_tokens``
    pieces is in no span. ``classes``: tags in the order of the model's outputs, ``O`` among them; empty: the names in
    its configuration. The other options are those of
    :class:`components.teachers.torch_module.TransformersTeacher`.

    Raises:
        ConfigError: an option is wrong, the tags are not as many as the model's outputs, or ``O`` is none of them; or
            the tokenizer does not say where its pieces stand.
        ArtifactError: the folder holds no such model.

    """

    task: Task = "tagging"
    kind, auto, what = "transformers tokens", "AutoModelForTokenClassification", "token classifier"

    def __init__(self, folder: str, space: str, classes: Sequence[str] = (), **options: Any) -> None:
        super().__init__(folder, space, classes, **options)
        if OUTSIDE not in self.classes:
            allowed = f"must have {OUTSIDE}, the tag of what is in no span: name the model's outputs in their order"
            raise ConfigError("classes", self.classes, allowed)
        if not self._tokenizer.is_fast:
            allowed = "has a tokenizer that does not say where its pieces stand: save it as tokenizer.json"
            raise ConfigError("folder", str(self.folder), allowed)

    def label(self, payloads: Sequence[str]) -> list[SoftLabel]:
        """Soft labels of texts, with the words of each.

        Raises:
            TeacherError: PyTorch failed, or gave numbers that are no logits.

        """
        check_texts(self.name, payloads)
        order = sorted(range(len(payloads)), key=lambda i: len(payloads[i]))
        found: dict[int, SoftLabel] = {}
        for start in range(0, len(order), self._batch):
            some = order[start : start + self._batch]
            found |= dict(zip(some, self._tagged([payloads[i] for i in some]), strict=True))
        return [found[i] for i in range(len(payloads))]

    def _tagged(self, texts: list[str]) -> list[SoftLabel]:
        logits_BLC = self._forward(texts)
        encoded = self._encode(texts)
        if not np.isfinite(logits_BLC).all():
            raise TeacherError(self.name, "gave logits that are no finite numbers")
        shifted = np.exp(logits_BLC - logits_BLC.max(axis=2, keepdims=True))
        shares_BLC = shifted / shifted.sum(axis=2, keepdims=True)
        return [self._of_words(encoded[i], shares_BLC[i]) for i in range(len(texts))]

    def _of_words(self, pieces: Any, shares_LC: Any) -> SoftLabel:
        """A text's soft label: the pieces of a word stand together."""
        places: list[tuple[int, int]] = []
        firsts: list[int] = []
        last = None
        for at, (word, (start, end)) in enumerate(zip(pieces.word_ids, pieces.offsets, strict=True)):
            if word is None or start == end:
                continue
            if word == last:
                places[-1] = (places[-1][0], end)
            else:
                places.append((start, end))
                firsts.append(at)
            last = word
        return tagging(self.space, self.classes, places, [shares_LC[at].tolist() for at in firsts])
