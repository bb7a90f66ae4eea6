"""LiteRT on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Engine:
    """A model that is loaded. Safe to call from several threads: each has an interpreter of its own."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], threads: int) -> None:
        self._path, self._threads = str(path), threads
        self._outputs = list(manifest["model"]["outputs"])
        self._own = threading.local()
        self._interpreter()

    def run(self, features: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """The named outputs for a batch."""
        try:
            return self._run(self._interpreter(), features, outputs)
        except Exception:
            del self._own.model  # a size that it could not be given would stay
            raise

    def _run(self, model: Any, features: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        inputs = model.get_input_details()
        resized = [i for i in inputs if tuple(i["shape"]) != features[i["name"]].shape]
        for one in resized:
            model.resize_tensor_input(one["index"], features[one["name"]].shape)
        if resized:
            model.allocate_tensors()
        for one in inputs:
            model.set_tensor(one["index"], features[one["name"]])
        model.invoke()
        given = [one["index"] for one in model.get_output_details()]
        return [model.get_tensor(given[self._outputs.index(name)]) for name in outputs]

    def _interpreter(self) -> Any:
        if not hasattr(self._own, "model"):
            from ai_edge_litert.interpreter import Interpreter

            self._own.model = Interpreter(model_path=self._path, num_threads=self._threads)
            self._own.model.allocate_tensors()
        return self._own.model
