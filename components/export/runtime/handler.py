"""A custom handler of Hugging Face's Inference Endpoints, which their toolkit finds as ``handler.py``."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any


class EndpointHandler:
    """``inputs``: a text, a list of texts, ``{"b64": "…"}``, bytes, or any other JSON, which is an input itself."""

    def __init__(self, path: str = "") -> None:
        folder = Path(path or Path(__file__).parent)
        sys.path.insert(0, str(folder))
        import cohobate_student

        self._student, self._error = cohobate_student.load(folder), cohobate_student.RecordError

    def __call__(self, data: dict[str, Any]) -> list[Any]:
        """The answers, one for each input: ``label``, ``score``, and what else the student says of it."""
        given = data["inputs"]
        inputs = given if isinstance(given, list) else [given]
        return [self._told(said) for said in self._student.predict_each([_payload(one) for one in inputs])]

    def _told(self, said: Any) -> dict[str, Any]:
        if isinstance(said, self._error):
            return {"error": str(said)}
        told = said.as_dict()
        return {"label": told["label"], "score": told["confidence"], **told}


def _payload(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    return json.dumps(value).encode()
