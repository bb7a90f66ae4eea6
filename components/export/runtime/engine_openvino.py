"""OpenVINO on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

LEAST = 16
"""The shortest that an axis of no fixed size is made."""


class Engine:
    """A model that is compiled. Safe to call from several threads: each has a request of its own."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], threads: int) -> None:
        import openvino

        told = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "0", **manifest["model"]["options"]}
        # No stream: a request is run by the thread that asks, and none is woken for it.
        # Without a precision of its own some processors reckon in bfloat16, and answer otherwise.
        self._compiled = openvino.Core().compile_model(path, "CPU", {**told, "INFERENCE_NUM_THREADS": str(threads)})
        self._inputs = [i.any_name for i in self._compiled.inputs]
        self._named = {
            name: [n for n, axis in enumerate(spec["shape"]) if n and isinstance(axis, str)]
            for name, spec in manifest["model"]["inputs"].items()
        }
        self._own = threading.local()

    def run(self, features: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """The named outputs for a batch."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        given = {name: self._padded(name, features[name]) for name in self._inputs}
        self._own.request.infer(given, share_inputs=True)
        return [self._own.request.get_tensor(name).data.copy() for name in outputs]

    def _padded(self, name: str, array: Any) -> Any:
        """An array whose axes of no fixed size end at a power of two: each new shape costs OpenVINO milliseconds.

        Zeros are what a batch's shorter inputs are padded with anyway, and change no answer.
        """
        more = [(0, 0)] * array.ndim
        for n in self._named[name]:
            more[n] = (0, max(LEAST, 1 << (array.shape[n] - 1).bit_length()) - array.shape[n])
        return numpy.pad(array, more) if any(after for _, after in more) else array
