"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Engine:
    """A graph that is loaded. Safe to call from several threads."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self._inputs = [i.name for i in self._session.get_inputs()]

    def run(self, features: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """The named outputs for a batch."""
        out: list[Any] = self._session.run(list(outputs), {name: features[name] for name in self._inputs})
        return out
