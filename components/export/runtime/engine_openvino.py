"""OpenVINO on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Engine:
    """A model that is compiled. Safe to call from several threads: each has a request of its own."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], threads: int) -> None:
        import openvino

        told = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", **manifest["model"]["options"]}
        # Without a precision of its own some processors reckon in bfloat16, and answer otherwise.
        self._compiled = openvino.Core().compile_model(path, "CPU", {**told, "INFERENCE_NUM_THREADS": str(threads)})
        self._inputs = [i.any_name for i in self._compiled.inputs]
        self._own = threading.local()

    def run(self, features: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """The named outputs for a batch."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        self._own.request.infer({name: features[name] for name in self._inputs}, share_inputs=True)
        return [self._own.request.get_tensor(name).data.copy() for name in outputs]
