"""OpenVINO's intermediate representation: float32, float16 (weights are kept in halves), or int8 by NNCF.

It is made of the version's float model, whatever form serves in the gateway: OpenVINO answers otherwise than ONNX
Runtime for a model that the latter quantised. What arithmetic is done in is said when the model is compiled, since
OpenVINO takes bfloat16 by itself on processors that have it, and halves weights when it saves.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.contracts.errors import ConfigError
from components.export.manifest import Manifest, Model, Precision
from components.export.targets.contract import IN_PYTHON, Built, Target, Version
from components.student.features import Features

PATH = "model/model.xml"

CALIBRATION_BATCH = 8
"""Inputs at a time that NNCF watches the ranges of activations over."""

APART = ("novelty_.*", "answer_.*", "probabilities", "value", "scale")
"""Nodes that stay in float: p-values of novelty are worth what they are of the float model's scores."""


class Openvino(Target):
    """``--to openvino``."""

    name = "openvino"
    precisions = ("float32", "float16", "int8")
    extra = (("openvino", "openvino"), ("nncf", "openvino"))

    def build(self, version: Version, folder: Path, precision: Precision) -> Built:
        """Convert the float model, and for int8 quantise it."""
        import openvino

        model = openvino.Core().read_model(version.full())
        if precision == "int8":
            model = _quantised(model, version)
        place = folder / PATH
        place.parent.mkdir(parents=True)
        openvino.save_model(model, place, compress_to_fp16=precision == "float16")
        taken = [i.any_name for i in model.inputs]
        described = Model(
            path=PATH,
            format="openvino",
            precision=precision,
            inputs={name: version.card.inputs[name] for name in taken},
            outputs=version.outputs,
            options={"INFERENCE_PRECISION_HINT": "f32"},
        )
        return Built(model=described, runtime="openvino", modules=("engine_openvino",))

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        return f"""{IN_PYTHON}\
The model is `{manifest.model.path}` with its `.bin`. Whoever compiles it otherwise than the package does must give
`INFERENCE_PRECISION_HINT: f32`, or it answers otherwise on some processors.
"""


def _quantised(model: Any, version: Version) -> Any:
    payloads = version.calibration()
    if not payloads:
        raise ConfigError("--precision", "int8", "there are no inputs to calibrate by: export it in float32")
    import nncf

    nncf.set_log_level(logging.ERROR)
    taken = [i.any_name for i in model.inputs]
    some = list(batches(version.features(payloads), taken, len(payloads)))
    with contextlib.redirect_stdout(io.StringIO()):  # it draws its progress, and has no switch for that
        return nncf.quantize(
            model,
            nncf.Dataset(some),
            subset_size=len(some),
            ignored_scope=nncf.IgnoredScope(patterns=list(APART), validate=False),
        )


def batches(features: Features, taken: list[str], count: int) -> Iterator[Features]:
    """Features of inputs, a few at a time, as a calibration reads them."""
    for first in range(0, count, CALIBRATION_BATCH):
        yield {name: features[name][first : first + CALIBRATION_BATCH] for name in taken}
