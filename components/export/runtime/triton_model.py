"""A model of Triton's Python backend, which is the bundle that this file lies in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """``payload`` (BYTES, [N]) gives ``label``, ``confidence``, ``defer``, ``novelty`` and ``soft_label`` (JSON).

    Of tagging ``tokens`` (JSON) stands in the place of ``soft_label``.
    """

    def initialize(self, args: dict[str, Any]) -> None:
        """Load the student: each instance has one of its own."""
        folder = Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(folder))
        import cohobate_student

        self._student, self._error = cohobate_student.load(folder), cohobate_student.RecordError

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests, all of their inputs at once; one with an input that is refused is refused whole."""
        asked = [list(pb_utils.get_input_tensor_by_name(r, "payload").as_numpy().ravel()) for r in requests]
        said = iter(self._student.predict_each([payload for some in asked for payload in some]))
        return [self._response([next(said) for _ in some]) for some in asked]

    def _response(self, answers: list[Any]) -> Any:
        for answer in answers:
            if isinstance(answer, self._error):
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(answer)))
        rows, soft = [answer.as_dict() for answer in answers], self._student.soft_field
        columns = {
            "label": np.array([r["label"].encode() for r in rows], dtype=np.object_),
            "confidence": np.array([r["confidence"] for r in rows], dtype=np.float64),
            "defer": np.array([r["defer"] for r in rows], dtype=bool),
            "novelty": np.array([np.nan if r["novelty"] is None else r["novelty"] for r in rows], dtype=np.float64),
            soft: np.array([json.dumps(r[soft]).encode() for r in rows], dtype=np.object_),
        }
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, column) for name, column in columns.items()])
