"""Magika as a teacher: content-type detection by Google's ONNX model, with its whole softmax.

Source: Fratantonio et al., "Magika: AI-Powered Content-Type Detection" (ICSE 2025, arXiv 2409.13768).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.contracts.errors import ConfigError, TeacherError
from components.contracts.records import SoftLabel, Task
from components.contracts.storage import digest_of

RULE_CONFIDENCE = 1.0
"""Files of a few bytes are named by Magika's own rule, which has no probability: its label gets all the mass."""


RULE_LABELS = ("empty", "txt", "unknown")
"""The labels that the rule gives."""


class MagikaTeacher:
    """Magika's standard model.

    ``threads``: ONNX Runtime threads within one call. ``merge`` renames labels; labels with the same new name become
    one class whose probability is their sum (C and C++ headers, say, which no extension tells apart).
    """

    name = "magika"
    task: Task = "classification"

    def __init__(self, threads: int = 1, merge: Mapping[str, str] | None = None) -> None:
        import onnxruntime
        from magika import Magika

        self._magika: Any = Magika()
        folder = Path(self._magika._model_dir)
        model, config = (folder / "model.onnx").read_bytes(), (folder / "config.min.json").read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._config: Any = self._magika._model_config
        merge = dict(merge or {})
        overwritten = {str(a): str(b) for a, b in self._config.overwrite_map.items()}
        labels = [overwritten.get(str(label), str(label)) for label in self._config.target_labels_space]
        if unknown := sorted(set(merge) - set(labels)):
            raise ConfigError("merge", unknown, "must be names of Magika's labels")
        labels = [merge.get(label, label) for label in labels]
        self.classes: tuple[str, ...] = tuple(dict.fromkeys([*labels, *RULE_LABELS]))
        self._columns = np.array([self.classes.index(label) for label in labels])
        merged = digest_of(json.dumps(merge, sort_keys=True).encode())
        self.space = f"magika-{folder.name}{'-' + merged[:8] if merge else ''}@1"
        self.size_bytes = len(model)
        self.digest = digest_of(model + config + merged.encode())

    def label(self, payloads: Sequence[bytes]) -> list[SoftLabel]:
        """Soft labels of files given as bytes.

        Raises:
            TeacherError: the model failed.
        """
        ruled: dict[int, SoftLabel] = {}
        features: list[list[int]] = []
        for index, payload in enumerate(payloads):
            found = self._features(bytes(payload))
            if isinstance(found, str):
                ruled[index] = SoftLabel(task=self.task, space=self.space, distribution={found: RULE_CONFIDENCE})
            else:
                features.append(found)
        rows = iter(self._softmax(features))
        return [
            ruled[i] if i in ruled else SoftLabel.of(self.space, self.classes, next(rows)) for i in range(len(payloads))
        ]

    def _features(self, payload: bytes) -> list[int] | str:
        """The model's input for one file, or the label that Magika's rule gives it."""
        from magika.types.seekable import Seekable

        result, features = self._magika._get_result_or_features_from_seekable(Seekable(io.BytesIO(payload)))
        if features is None:
            return str(result.prediction.output.label)
        return [*features.beg, *features.end]

    def _softmax(self, features: list[list[int]]) -> list[list[float]]:
        if not features:
            return []
        try:
            (rows,) = self._session.run(["target_label"], {"bytes": np.asarray(features, dtype=np.int32)})
        except Exception as error:  # ONNX Runtime raises its own unexported classes
            raise TeacherError(self.name, f"ONNX Runtime failed: {error}") from error
        merged = np.zeros((len(rows), len(self.classes)))
        np.add.at(merged.T, self._columns, np.asarray(rows, dtype=np.float64).T)
        return [[float(p) for p in row] for row in merged]
