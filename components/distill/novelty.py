"""Novelty: how unlike the data that a student has learnt from an input is, as a further output of its graph.

The score is the distance of the input's inner state to the nearest class (:mod:`drift.novelty`). The state is the one
that the network's graph names (:class:`components.distill.graph.Body`), else what its head is fed, else its logits.
Means and covariance are those of the rows that it learnt from, by the teacher's classes; what a distance is worth is
read off rows that it did not learn from, by :func:`unlearnt`, of each export for itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from components.contracts.records import CLASSED, Task, content_hash
from components.contracts.sampling import bucket
from components.contracts.spec import Spec
from components.control.tables import WindowRow
from components.distill.columns import taken
from components.distill.data import NONE, Learnt, Rows, TrainingSet, held_rows
from components.distill.export import Body, resealed
from components.student.features import Features
from components.student.runtime import NOVELTY, Student
from drift.novelty import Nearness
from drift.reweight import thinned

log = logging.getLogger(__name__)

MOST_KNOWN = 999
"""Scores of a group that a card keeps: the least p-value is then 0.001. A sample of exchangeable scores is one too."""

MOST_LEARNT = 20_000
"""Rows that means and covariance are taken of."""

BATCH_ROWS = 256
"""Rows whose states are taken together."""


def unlearnt(spec: Spec, windows: Sequence[WindowRow], learnt: Learnt) -> Rows:
    """Rows of all windows that nothing was learnt from, and that may tell what is usual.

    They are half of what is held out, and the calibration rows where those are not learnt from too; on the other half
    the gate sees whether p-values are as they should be (:func:`judges`). Audited rows stay held out also where their
    content was learnt in an older window: they are as the traffic is.

    Raises:
        ProvenanceError: a row's label was not made by the declared teacher.
        ArtifactError: a snapshot is missing or not what was frozen.

    """
    found = sum((_free(rows) for _, rows in held_rows(spec, windows)), NONE)
    return found if spec.student.crossfits else found + learnt.calibration


def judges(payload: bytes) -> bool:
    """Whether a row that is held out is one that novelty is judged on, and not calibrated on: half of the contents."""
    return bucket("", NOVELTY, content_hash(payload)) < 0.5


def _free(rows: Rows) -> Rows:
    return rows.take([i for i, payload in enumerate(rows.payloads) if not judges(payload)])


def groups(rows: Rows) -> list[list[bytes]]:
    """Inputs whose scores are compared with each other: those of all windows, which are what a version knows.

    One group, since of several the largest p-value counts: measured on files, with the newest window apart 1 % of the
    known inputs were deferred at 5 %, and 78 % of a new kind instead of 95. Rows stand for the traffic alike: of those
    that were drawn with other chances some are left out.
    """
    kept = thinned(list(rows.weights))
    some = np.random.default_rng(0).permutation(len(kept))[:MOST_KNOWN]
    return [[rows.payloads[kept[i]] for i in sorted(some.tolist())]] if len(some) else []


def nearness(made: Body, data: TrainingSet, task: Task) -> Nearness | None:
    """Where rows lie that a network has learnt from, by the states of its graph; None where they do not differ.

    Rows are told apart by the teacher's most probable class, of multilabel those that have none apart; other tasks have
    one kind of rows. Of very many rows some are taken.
    """
    rows = np.random.default_rng(0).permutation(len(data))[:MOST_LEARNT]
    if not len(rows):
        return None
    found = states(made, {name: taken(array, rows) for name, array in data.features.items()})
    if task not in CLASSED or data.soft is None:
        return Nearness.fit(found, np.zeros(len(rows), dtype=np.int64))
    soft = taken(data.soft, rows)
    classes = soft.argmax(1)
    if task == "multilabel":
        classes[soft.max(1) < 0.5] = -1
    return Nearness.fit(found, classes)


def states(made: Body, features: Features) -> npt.NDArray[np.float32]:
    """The states of inputs by the graph itself, (N, D)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    model = made.model.SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    taken, count = [i.name for i in session.get_inputs()], len(next(iter(features.values())))
    parts = (
        {name: features[name][first : first + BATCH_ROWS] for name in taken} for first in range(0, count, BATCH_ROWS)
    )
    return np.concatenate([session.run([made.state], part)[0] for part in parts])


def calibrated(spec: Spec, artifact: bytes, groups: Sequence[Sequence[bytes]], files: Mapping[str, bytes]) -> bytes:
    """The artifact with what its own scores of ``groups`` of inputs are on its card."""
    student = Student.load(artifact, source=spec.source)
    scores = [student.scores(group) for group in groups]
    known = tuple(tuple(sorted(float(f"{s:.6g}") for s in group)) for group in scores)
    if not all(math.isfinite(s) for group in known for s in group):
        log.warning("%s: a student tells no novelty: some of its states are no finite numbers", spec.name)
        known = ()
    return resealed(artifact, msgspec.structs.replace(student.card, novelty=known), files)
