"""A service of BentoML: ``bentoml serve service:Service`` in the bundle's folder."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import bentoml

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

import cohobate_student  # noqa: E402  # it is beside this file


@bentoml.service(name=json.loads((FOLDER / "manifest.json").read_bytes())["workload"])
class Service:
    """``POST /predict`` with ``{"inputs": [...]}``: texts, ``{"b64": "..."}``, or any other JSON, each an input."""

    def __init__(self) -> None:
        self.student = cohobate_student.load(FOLDER)

    @bentoml.api
    def predict(self, inputs: list[Any]) -> list[dict[str, Any]]:
        """The answers, one for each input, in order."""
        said = self.student.predict_each([_payload(one) for one in inputs])
        return [a.as_dict() if isinstance(a, cohobate_student.Answer) else {"error": str(a)} for a in said]


def _payload(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    return json.dumps(value).encode()
