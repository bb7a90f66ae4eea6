"""The artifacts of an update: what is served, its float form, and the trainable weights, in one folder."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np

from components.contracts.spec import Spec
from components.contracts.storage import digest_of, put_bytes
from components.distill.data import Rows
from components.distill.export import to_int8, to_onnx
from components.distill.grow import Arrays
from components.distill.temperature import fit
from components.student.card import StudentCard
from components.student.parity import Parity, parity
from components.student.runtime import Student


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A trained student. ``uri`` and ``digest`` are the artifact to serve: int8 where its parity allows, else float32.

    ``parity_gap``: share of the holdout inputs of all its windows that the served artifact and the float model label
    differently, in [0, 1]; ``history``: mean loss of each epoch; ``metrics``: rows, bytes and parities by name.
    """

    uri: str
    digest: str
    float_uri: str
    float_digest: str
    weights_uri: str
    card: StudentCard
    parity_gap: float
    metrics: dict[str, float] = field(default_factory=dict)
    history: tuple[float, ...] = ()


def weights_uri(artifact_uri: str) -> str:
    """Where the trainable weights of an artifact lie: beside it."""
    return f"{artifact_uri.rsplit('/', 1)[0]}/student.safetensors"


def export(
    spec: Spec,
    state: Arrays,
    card: StudentCard,
    holdout: list[bytes],
    calibration: Rows,
    artifacts: str,
    counts: dict[str, float],
    history: tuple[float, ...],
) -> Distilled:
    """Write the artifact to serve, its float form and the trainable weights into the folder of its digest.

    The quantised model is served where it answers the ``holdout`` as the float model does, else the float model. The
    temperature that both are calibrated by is fitted on ``calibration``.
    """
    from safetensors.numpy import save

    weights = save({k: np.ascontiguousarray(v) for k, v in state.items()})
    card = msgspec.structs.replace(card, weights=digest_of(weights))
    temperature = _temperature(spec, to_onnx(state, card), calibration)
    float_model = to_onnx(state, card, temperature)
    int8_model = to_int8(float_model, card)
    found = _parity(spec, float_model, int8_model, holdout)
    exact = not allowed(found, spec.limits.max_parity_gap)
    served = float_model if exact else int8_model
    folder = f"{artifacts}/{spec.name}/students/{digest_of(served)}"
    for name, data in (("student.safetensors", weights), ("float.onnx", float_model), ("model.onnx", served)):
        put_bytes(f"{folder}/{name}", data)
    measured = {"int8_parity_gap": found.gap, "int8_largest_difference": found.largest} if found else {}
    return Distilled(
        uri=f"{folder}/model.onnx",
        digest=digest_of(served),
        float_uri=f"{folder}/float.onnx",
        float_digest=digest_of(float_model),
        weights_uri=f"{folder}/student.safetensors",
        card=msgspec.structs.replace(card, precision="float32" if exact else "int8"),
        parity_gap=0.0 if exact or found is None else found.gap,
        history=history,
        metrics={
            **counts,
            **measured,
            "temperature": temperature,
            "calibration_rows": float(len(calibration)),
            "float_bytes": float(len(float_model)),
            "int8_bytes": float(len(int8_model)),
        },
    )


def _temperature(spec: Spec, model: bytes, rows: Rows) -> float:
    return fit(Student.load(model, source=spec.source).predict(rows.payloads), rows.soft, rows.truth)


def _parity(spec: Spec, float_model: bytes, int8_model: bytes, holdout: list[bytes]) -> Parity | None:
    full, small = (Student.load(m, source=spec.source) for m in (float_model, int8_model))
    return parity(full.predict(holdout), small.predict(holdout))


def allowed(found: Parity | None, most: float | None) -> bool:
    """Whether the quantised model may serve: without a holdout nothing is known of it, and it may not."""
    return found is not None and (most is None or found.gap <= most)
