"""How well a model that learnt from a student's answers alone says what the student says: model extraction.

F. Tramèr, F. Zhang, A. Juels, M. K. Reiter & T. Ristenpart, "Stealing machine learning models via prediction APIs"
(USENIX Security 2016, arXiv 1609.02943): who attacks asks about inputs of the traffic and fits a *surrogate* to the
answers. *Fidelity* is how often the surrogate says what the student says on inputs that were not asked about
(M. Jagielski et al., "High accuracy and high fidelity extraction of neural networks", USENIX Security 2020, arXiv
1909.01838).
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from components.contracts.records import SoftLabel, content_hash
from components.contracts.spec import Extraction
from components.distill.data import Rows
from components.evaluate.evidence import Answer, Evidence, Row
from components.evaluate.share import agrees, share_of
from components.student.features import Features
from components.student.runtime import CHUNK, Student
from drift.gate import Measurement

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

EXTRACTION = "extraction "
"""Prefix of the sets of rows: the number of questions that the surrogate learnt from, or what it learnt from instead.
The surrogate's answer is in the candidate's place, the student's in the champion's."""

TEACHER, CONSTANT = "teacher", "constant"

JUDGED = 500
"""Inputs that a surrogate is judged on, at most."""

WIDTH = 2_048
"""Columns of a surrogate, at most, for each array that the student is fed."""

LEAST = 1e-3
"""A probability below it is taken for it: a surrogate learns logarithms, as the answers of a network are linear in."""

RIDGE, TREES = 1.0, 50


def extraction_rows(student: Student, rows: Rows, wanted: Extraction, least: int, seed: int) -> list[Row]:
    """What surrogates say of inputs that they did not learn from, beside what the student says.

    They learn from its answers to a quarter, a half and all of ``wanted.questions`` inputs of the holdout, from what
    the teacher says of all of them, and one says the same of every input. Contents are told apart, so that none is both
    asked about and judged; which are asked about is drawn by ``seed``. A content that came several times has the weight
    of all its rows. Empty where fewer than ``least`` are left.
    """
    weights = _weights(rows, seed)
    order = list(weights)
    asked, judged = order[: wanted.questions], order[wanted.questions :][:JUDGED]
    if len(judged) < max(1, least):
        told = "%d held-out contents are too few for limits.extraction.questions %d and %d to judge on"
        log.warning(told, len(order), wanted.questions, max(1, least))
        return []
    places = [*asked, *judged]
    payloads = [rows.payloads[i] for i in places]
    said, table = student.predict(payloads), table_of(student, payloads)
    inside, outside = table[: len(asked)], table[len(asked) :]
    answers, classes = said[: len(asked)], student.card.classes
    found: dict[str, list[Answer]] = {}
    for n in sorted({max(1, len(asked) // 4), max(1, len(asked) // 2), len(asked)}):
        found[str(n)] = _surrogate(inside[:n], answers[:n], outside, classes, wanted)
    found[TEACHER] = _surrogate(inside, [rows.soft[i] for i in asked], outside, classes, wanted)
    found[CONSTANT] = [_constant(answers)] * len(judged)
    return [
        Row(
            set=f"{EXTRACTION}{name}", id=rows.ids[i], weight=weights[i], audit=rows.audit[i], candidate=answer,
            champion=Answer.of(own),
        )
        for name, by in found.items()
        for i, answer, own in zip(judged, by, said[len(asked) :], strict=True)
    ]  # fmt: skip


def _weights(rows: Rows, seed: int) -> dict[int, float]:
    """The weight of each content by its first row, in an order that the seed draws; without what was made up."""
    places: dict[str, int] = {}
    weights: dict[int, float] = {}
    for i, payload in enumerate(rows.payloads):
        if not rows.synthetic[i]:
            first = places.setdefault(hashlib.sha256(f"{seed} {content_hash(payload)}".encode()).hexdigest(), i)
            weights[first] = weights.get(first, 0.0) + rows.weights[i]
    return {places[name]: weights[places[name]] for name in sorted(places)}


def table_of(student: Student, payloads: Sequence[bytes]) -> Floats:
    """What a student is fed of each input as one row of numbers, encoded some inputs at a time.

    Where arrays are as long as the longest input beside them, all are brought to the longest of all, by zeros.
    """
    chunks = [payloads[i : i + CHUNK] for i in range(0, len(payloads), CHUNK)]
    longest: dict[str, tuple[int, ...]] = {}
    if len(chunks) > 1 and any(isinstance(n, str) for spec in student.card.inputs.values() for n in spec.shape[1:]):
        for chunk in chunks:
            for name, array in student.features(chunk).items():
                shape = np.shape(array)[1:]
                longest[name] = tuple(map(max, shape, longest.get(name, shape)))
    return np.concatenate([columns(_as_long(student.features(chunk), longest)) for chunk in chunks])


def _as_long(features: Features, longest: Mapping[str, tuple[int, ...]]) -> Features:
    return {
        name: np.pad(array, [(0, 0), *((0, to - n) for n, to in zip(array.shape[1:], longest[name], strict=True))])
        if name in longest
        else array
        for name, array in features.items()
    }


def columns(features: Features) -> Floats:
    """What a student is fed of each input as one row of numbers: (rows, columns), at most :data:`WIDTH` an array.

    Integers are counted by their value, or weighted, where an array of the same shape weights or masks them; of other
    arrays evenly spaced numbers are taken.
    """
    parts, beside = [], _beside(features)
    for name, array in sorted(features.items()):
        if name in beside.values():
            continue
        flat = np.asarray(array).reshape(len(array), -1)
        if not flat.shape[1]:
            continue
        if np.issubdtype(flat.dtype, np.integer):
            other = beside.get(name)
            weights = np.ones(flat.shape) if other is None else np.asarray(features[other]).reshape(flat.shape)
            counts = np.zeros((len(flat), WIDTH))
            np.add.at(counts, (np.arange(len(flat))[:, None], flat % WIDTH), weights)
            parts.append(counts)
        else:
            parts.append(np.nan_to_num(flat[:, :: -(-flat.shape[1] // WIDTH)].astype(np.float64)))
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(next(iter(features.values()))), 1))


def _beside(features: Mapping[str, Any]) -> dict[str, str]:
    """Which array weights or masks which: one called so, of the same shape, beside one of integers."""
    names = [n for n, a in features.items() if np.issubdtype(np.asarray(a).dtype, np.integer) and n != "mask"]
    found = {}
    for name in names:
        for other in ("weights", "mask"):
            if other in features and other != name and np.shape(features[other]) == np.shape(features[name]):
                found[name] = other
                break
    return found


def _surrogate(
    asked: Floats, answers: Sequence[SoftLabel], judged: Floats, classes: Sequence[str], wanted: Extraction
) -> list[Answer]:
    """What a model says that learnt from these answers."""
    scale = np.abs(asked).max(axis=0)
    scale[scale == 0.0] = 1.0
    model = _model(wanted)
    if answers[0].value is not None:
        model.fit(asked / scale, np.array([float(a.value or 0.0) for a in answers]))
        return [Answer(value=float(v)) for v in np.ravel(model.predict(judged / scale))]
    if wanted.answers == "labels":
        target = np.array([[float(a.label == name) for name in classes] for a in answers])
    else:
        given = np.array([[a.distribution.get(name, 0.0) for name in classes] for a in answers])
        target = np.log(np.maximum(given, LEAST))
    model.fit(asked / scale, target)
    scores = np.reshape(model.predict(judged / scale), (len(judged), len(classes)))
    return [Answer(label=classes[int(best)]) for best in scores.argmax(axis=1)]


def _model(wanted: Extraction) -> Any:
    if wanted.surrogate == "forest":
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(n_estimators=TREES, random_state=0, n_jobs=1)
    from sklearn.linear_model import Ridge

    return Ridge(alpha=RIDGE, solver="cholesky")


def _constant(answers: Sequence[SoftLabel]) -> Answer:
    if answers[0].value is not None:
        return Answer(value=median(float(a.value or 0.0) for a in answers))
    return Answer(label=Counter(a.label for a in answers).most_common(1)[0][0])


def extraction(evidence: Evidence) -> dict[str, Measurement]:
    """``extraction_fidelity`` by the most questions with its bounds; none where no surrogate was asked.

    ``extraction_fidelity[N]`` by fewer, ``extraction_by_teacher`` of the one that learnt from the teacher,
    ``extraction_by_constant`` of the one that says the same of every input, and ``extraction_questions``.

    Where the verdict is asked for again and again, the estimate is told as ``extraction_fidelity_estimate`` and
    ``extraction_fidelity`` is missing, and so a limit on it holds: each look has other questions and another surrogate,
    so that what is judged is no sequence of one share, and no bound that is known here holds at all looks.
    """
    sets = {name.removeprefix(EXTRACTION): rows for name, rows in evidence.sets(EXTRACTION).items()}
    counts = sorted(int(name) for name in sets if name.isdigit())
    if not counts:
        return {}
    most = counts[-1]
    names = {"extraction_fidelity": str(most), "extraction_by_teacher": TEACHER, "extraction_by_constant": CONSTANT}
    names |= {f"extraction_fidelity[{n}]": str(n) for n in counts[:-1]}
    shares = {
        measure: share_of(evidence, sets.get(name, []), lambda r: agrees(r.candidate, r.champion))
        for measure, name in names.items()
    }
    found: dict[str, Measurement] = {**shares}
    if evidence.judgement.throughout:
        told = {name: None if share is None else share.value for name, share in shares.items()}
        found = {**told, "extraction_fidelity": None, "extraction_fidelity_estimate": told["extraction_fidelity"]}
    return found | {"extraction_questions": float(most)}
