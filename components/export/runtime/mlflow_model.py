"""The bundle as a pyfunc model of MLflow: a row an input, and a row an answer.

A row has the column ``text`` (UTF-8), ``payload`` (bytes) or ``json`` (an input of JSON as text), or, where inputs are
objects of JSON, the object's own columns, of which a missing number is null. A list of texts, bytes or objects is taken
as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from .errors import RecordError
from .student import Student, load

WHOLE = ("text", "payload", "json")
"""Columns that hold an input whole."""


def _load_pyfunc(path: str) -> Model:
    return Model(load(path))


class Model:
    """What MLflow calls."""

    def __init__(self, student: Student) -> None:
        self._student = student

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """A data frame: ``label``, ``confidence``, ``soft_label``, ``defer``, ``defer_reason``, ``novelty``, ``error``.

        Of tagging ``spans`` and ``tokens``, too. ``error`` is why an input could not be answered; nothing else is told
        of that one.
        """
        import pandas

        rows = [
            {"label": None, "error": str(said)} if isinstance(said, RecordError) else {**said.as_dict(), "error": None}
            for said in self._student.predict_each([_payload(value) for value in _inputs(data)])
        ]
        names = ["label", "confidence", "soft_label", "defer", "defer_reason", "novelty", "error"]
        if self._student.manifest["task"] == "tagging":
            names += ["spans", "tokens"]
        return pandas.DataFrame(rows, columns=names)


def _inputs(data: Any) -> Iterable[Any]:
    if not hasattr(data, "columns"):
        return list(data)
    names = [name for name in data.columns if name in WHOLE]
    if len(data.columns) == 1 and names:
        return list(data[names[0]])
    return [{name: _plain(value) for name, value in row.items()} for row in data.to_dict("records")]


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value != value else value


def _payload(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return bytes(value) if isinstance(value, bytes | bytearray) else json.dumps(value).encode()
