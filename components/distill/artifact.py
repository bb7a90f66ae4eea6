"""The artifacts of an update: what is served, its other exports, and the trainable weights, in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from torch import nn

from components.contracts.spec import Form, Spec
from components.contracts.storage import digest_of, put_bytes
from components.distill.columns import sample
from components.distill.data import Rows, TrainingSet, Unit, arrays, encoded
from components.distill.export import Body, answers, body, to_int8, to_onnx
from components.distill.networks.contract import state_of
from components.distill.novelty import calibrated, nearness
from components.distill.prune import answers as logits_of
from components.distill.temperature import fit, fit_tokens
from components.student.card import StudentCard, export_uri
from components.student.features import Features, featuriser, files_of
from components.student.parity import Parity, served_parity
from components.student.runtime import Student
from drift.novelty import Nearness

MOST_CALIBRATING = 5_000
"""Rows that a temperature and the ranges of activations are fitted on: more of them change neither by a hundredth."""


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A trained student. ``uri`` and ``digest`` are the artifact to serve: the export that the spec declares.

    ``parity_gap``: share of the holdout inputs of all its windows that the served artifact and the float model label
    differently, in [0, 1], or None where there are none; ``history``: mean loss of each epoch; ``terms``: each term's
    part of it; ``metrics``: rows, bytes and parities by name.
    """

    uri: str
    digest: str
    float_uri: str
    float_digest: str
    weights_uri: str
    card: StudentCard
    parity_gap: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    history: tuple[float, ...] = ()
    terms: tuple[dict[str, float], ...] = ()


def weights_uri(artifact_uri: str) -> str:
    """Where the trainable weights of an artifact lie: beside it."""
    return f"{artifact_uri.rsplit('/', 1)[0]}/student.safetensors"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network, of a regression with its ``unit``; and the smaller one that it was pruned to, where one is.

    ``learnt``: the rows that it learnt from, which novelty is told by; None: it tells of none. ``unlearnt``: groups of
    inputs that it did not learn from, which say what novelty is usual (:mod:`components.distill.novelty`).
    """

    net: nn.Module
    unit: Unit | None = None
    pruned: nn.Module | None = None
    learnt: TrainingSet | None = None
    unlearnt: Sequence[Sequence[bytes]] = ()


def export(
    spec: Spec,
    trained: Trained,
    twin: Trained,
    card: StudentCard,
    holdout: Sequence[bytes],
    calibration: Rows,
    artifacts: str,
    counts: dict[str, float],
    history: tuple[float, ...],
) -> Distilled:
    """Write the artifact to serve, the other exports and the trainable weights into the folder of its digest.

    What serves is what the spec declares; where it leaves the choice, the quantised model if it answers the ``holdout``
    as the float model does, else the float model. The temperatures that exports are calibrated by, one for each
    network, are fitted on ``calibration`` by the answers of the ``twin``, which has learnt from none of its rows: the
    networks themselves, or others that were trained alike.
    """
    from safetensors.numpy import save

    state = state_of(trained.net)
    if trained.unit is not None:
        state["unit"] = np.array([trained.unit.mean, trained.unit.scale])
    weights = save({k: np.ascontiguousarray(v) for k, v in state.items()})
    card = msgspec.structs.replace(card, weights=digest_of(weights))
    calibration = calibration.take(sample(len(calibration), MOST_CALIBRATING))
    made, temperatures = _exports(spec, trained, twin, card, calibration)
    found = _parities(spec, made, holdout)
    form = _served(spec, found)
    folder = f"{artifacts}/{spec.name}/students/{digest_of(made[form])}"
    put_bytes(f"{folder}/student.safetensors", weights)
    put_bytes(f"{folder}/float.onnx", made["float32"])
    for also in spec.student.export.also:
        put_bytes(export_uri(folder, also), made[also])
    put_bytes(f"{folder}/model.onnx", made[form])
    return Distilled(
        uri=f"{folder}/model.onnx",
        digest=digest_of(made[form]),
        float_uri=f"{folder}/float.onnx",
        float_digest=digest_of(made["float32"]),
        weights_uri=f"{folder}/student.safetensors",
        card=Student.load(made[form], source=spec.source).card,
        parity_gap=0.0 if form == "float32" else found[form].gap if form in found else None,
        history=history,
        metrics={
            **counts,
            **{f"{f}_parity_gap": p.gap for f, p in found.items()},
            **{f"{f}_largest_difference": p.largest for f, p in found.items()},
            **{f"{f}_novelty_gap": p.novelty for f, p in found.items() if p.novelty is not None},
            "novelty_rows": float(sum(map(len, trained.unlearnt)) if trained.learnt is not None else 0),
            **temperatures,
            "calibration_rows": float(len(calibration)),
            "float_bytes": float(len(made["float32"])),
            **{f"{f}_bytes": float(len(data)) for f, data in made.items() if f != "float32"},
        },
    )


def _exports(
    spec: Spec, trained: Trained, twin: Trained, card: StudentCard, calibration: Rows
) -> tuple[dict[Form, bytes], dict[str, float]]:
    """The float model and the exports that are wanted, by form, and the temperatures."""
    rows = encoded(spec, calibration.payloads) if len(calibration) else None
    files = files_of(featuriser(spec.features, spec.source))
    made: dict[Form, bytes] = {}
    temperatures = {}
    for prefix, net, other in (("", trained.net, twin.net), ("pruned_", trained.pruned, twin.pruned)):
        if net is None or other is None:
            continue
        of = msgspec.structs.replace(card, pruned=bool(prefix))
        graph = body(net, card.inputs, files)
        temperature = _temperature(spec, other, of, calibration, rows, trained.unit)
        known = _known(trained, graph, card)
        full = to_onnx(graph, of, temperature, trained.unit, known)
        small = to_int8(full, graph, of, rows)
        if known is not None:
            full, small = (calibrated(spec, data, trained.unlearnt, files) for data in (full, small))
        made |= {"pruned": full, "pruned_int8": small} if prefix else {"float32": full, "int8": small}
        temperatures[f"{prefix}temperature"] = temperature
    wanted: set[Form] = {"float32", "int8", *spec.student.export.declared}
    return {form: data for form, data in made.items() if form in wanted}, temperatures


def _temperature(
    spec: Spec, net: nn.Module, card: StudentCard, calibration: Rows, rows: Features | None, unit: Unit | None
) -> float:
    """What the answers of a network are to be softened by; 1 without rows."""
    if rows is None:
        return 1.0
    if card.task == "tagging":
        data = arrays(spec, calibration, card.classes)
        return fit_tokens(logits_of(net.cpu().eval(), data.features).numpy(), data)
    return fit(answers(net, card, rows, unit), calibration.soft, calibration.truth, card.classes)


def _known(trained: Trained, graph: Body, card: StudentCard) -> Nearness | None:
    """Where what a network has learnt from lies; None where nothing is there that could say what is usual."""
    if trained.learnt is None or not trained.unlearnt:
        return None
    if card.task == "tagging" and graph.state == "logits":  # of tokens, and no state of a text
        return None
    return nearness(graph, trained.learnt, card.task)


def _parities(spec: Spec, made: dict[Form, bytes], holdout: Sequence[bytes]) -> dict[Form, Parity]:
    """How far each export's answers are from the float model's; empty of no inputs."""
    said = {form: Student.load(data, source=spec.source) for form, data in made.items()}
    found = {form: served_parity(said["float32"], other, holdout) for form, other in said.items() if form != "float32"}
    return {form: p for form, p in found.items() if p is not None}


def _served(spec: Spec, found: dict[Form, Parity]) -> Form:
    form = spec.student.export.serve
    if form != "auto":
        return form
    return "int8" if allowed(found.get("int8"), spec.limits.max_parity_gap) else "float32"


def allowed(found: Parity | None, most: float | None) -> bool:
    """Whether the quantised model may serve: without a holdout nothing is known of it, and it may not."""
    return found is not None and (most is None or found.gap <= most)
