"""A local text classifier of transformers and PyTorch: a folder with weights, configuration and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.contracts.errors import ArtifactError, ConfigError, TeacherError
from components.contracts.records import SoftLabel, Task
from components.contracts.spec import class_names
from components.contracts.storage import digest_of
from components.teachers.answers import distributions
from components.teachers.contract import States, check_texts, identity_digest
from components.teachers.inner import EMBEDDING, inner_states, words_of

FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""What decides an answer: weights, configuration, tokenizer. Only safetensors are loaded: a pickle can run code."""

NO_PART = ("README*", "training_args*", "trainer_state*", "optimizer*")
"""Files that lie beside a model and decide nothing."""


class TransformersTeacher:
    """A sequence classifier in ``folder``, as ``save_pretrained`` of model and tokenizer writes it.

    ``classes`` are in the order of the model's outputs; empty: the names in its configuration. ``max_tokens``: where a
    text is cut. ``batch``: texts per forward pass, sorted by length first. ``threads`` of PyTorch, which are the whole
    process's. ``device``: ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        ConfigError: an option is wrong, or the classes are not as many as the model's outputs.
        ArtifactError: the folder holds no such model.

    """

    task: Task = "classification"
    kind, auto, what = "transformers", "AutoModelForSequenceClassification", "text classifier"
    """What its digest says that it is, the class of transformers that loads it, and what that is called."""

    def __init__(
        self,
        folder: str,
        space: str,
        classes: Sequence[str] = (),
        *,
        name: str = "",
        max_tokens: int = 256,
        batch: int = 16,
        threads: int = 1,
        device: str = "cpu",
    ) -> None:
        if max_tokens < 2 or batch < 1 or threads < 1:
            raise ConfigError("max_tokens, batch, threads", (max_tokens, batch, threads), "at least 2, 1 and 1")
        declared = class_names(classes)
        self.folder = Path(folder).resolve()
        files = self._files()
        self.size_bytes = sum(p.stat().st_size for p in files.values() if p.suffix == ".safetensors")
        self._max_tokens, self._batch, self._device = max_tokens, batch, device
        self._torch, self._tokenizer, self._model = self._load(threads)
        self.classes = self._classes(declared)
        self.name, self.space = name or self.folder.name, space
        self.digest = identity_digest(
            {
                "kind": self.kind, "files": {n: digest_of(p.read_bytes()) for n, p in files.items()},
                "max_tokens": max_tokens, "space": space, "classes": list(self.classes),
            }
        )  # fmt: skip

    def label(self, payloads: Sequence[str]) -> list[SoftLabel]:
        """Soft labels of texts.

        Raises:
            TeacherError: PyTorch failed, or gave numbers that are no logits.

        """
        check_texts(self.name, payloads)
        order = sorted(range(len(payloads)), key=lambda i: len(payloads[i]))
        logits_BC = np.zeros((len(payloads), len(self.classes)))
        for start in range(0, len(order), self._batch):
            some = order[start : start + self._batch]
            logits_BC[some] = self._forward([payloads[i] for i in some])
        return distributions(self.name, self.space, self.classes, logits_BC, len(payloads), "logits")

    def vocabulary(self) -> tuple[str, ...]:
        """The whole words that the tokenizer knows."""
        return words_of(self._tokenizer.get_vocab())

    def states(self, payloads: Sequence[str], names: Sequence[str]) -> States:
        """Inner states of texts: ``embedding``, or those of a module of the model by its path.

        Raises:
            ConfigError: the model has no such module.
            TeacherError: PyTorch failed.

        """
        self._model.config.output_hidden_states = EMBEDDING in names
        try:
            return inner_states(self._model, self._encode, payloads, names, self._batch)
        except RuntimeError as error:  # what PyTorch raises
            raise TeacherError(self.name, f"PyTorch failed: {error}; a smaller batch needs less memory") from error
        finally:
            self._model.config.output_hidden_states = False

    def _encode(self, texts: list[str]) -> Any:
        return self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._device)

    def _forward(self, texts: list[str]) -> npt.NDArray[np.float64]:
        try:
            encoded = self._encode(texts)
            with self._torch.inference_mode():
                logits: npt.NDArray[np.float64] = self._model(**encoded).logits.double().cpu().numpy()
        except RuntimeError as error:  # what PyTorch raises
            raise TeacherError(self.name, f"PyTorch failed: {error}; a smaller batch needs less memory") from error
        return logits

    def _files(self) -> Mapping[str, Path]:
        left_out = {p for pattern in NO_PART for p in self.folder.glob(pattern)}
        found = {p.name: p for pattern in FILES for p in sorted(self.folder.glob(pattern)) if p not in left_out}
        if not any(n.endswith(".safetensors") for n in found) or "config.json" not in found:
            raise ArtifactError(
                self.folder.as_uri(), "needs config.json and *.safetensors: write it with save_pretrained"
            )
        return found

    def _load(self, threads: int) -> tuple[Any, Any, Any]:
        try:
            import torch
            import transformers
            from transformers.utils import logging
        except ImportError as error:
            raise ConfigError(
                "teacher", type(self).__name__, f"needs transformers: pip install transformers ({error})"
            ) from error
        chatter: Any = logging
        chatter.disable_progress_bar()
        torch.set_num_threads(threads)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)
            model = getattr(transformers, self.auto).from_pretrained(
                str(self.folder), local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise ArtifactError(self.folder.as_uri(), f"is no {self.what} that can be loaded: {error}") from error
        try:
            return torch, tokenizer, model.to(self._device).eval()
        except (RuntimeError, AssertionError) as error:  # what PyTorch raises without that device
            raise ConfigError("device", self._device, f"cannot be used here: {error}") from error

    def _classes(self, declared: tuple[str, ...]) -> tuple[str, ...]:
        config = self._model.config
        own = tuple(str(config.id2label[i]) for i in range(config.num_labels))
        found = declared or own
        if len(found) != len(own) or len(set(found)) != len(found):
            raise ConfigError("classes", found, f"must be {len(own)} different names: the model has {', '.join(own)}")
        return found
