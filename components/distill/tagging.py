"""What is particular to students that tag: targets by token, their temperature, and what they are scored by.

Shapes: N texts, L tokens of the longest one, C tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.contracts.errors import ConfigError
from components.contracts.payload import decoder
from components.contracts.records import OUTSIDE, SoftLabel
from components.contracts.spec import Spec
from components.contracts.tagging import Distribution, Place, aligned, spans_in, tagged, tags_of
from components.student.features import placer

Arrays = dict[str, npt.NDArray[Any]]


def tags_seen(soft: Sequence[SoftLabel], before: Sequence[str]) -> tuple[str, ...]:
    """The tags of a student's head: those it had, then the teacher's new ones in alphabetical order, and ``O``."""
    found = {OUTSIDE}
    for label in soft:
        found |= tags_of(label)
    return (*before, *sorted(found - set(before)))


def places_of(spec: Spec, payloads: Sequence[bytes]) -> list[Sequence[Place]]:
    """Where the student's tokens stand in inputs as they came.

    Raises:
        ConfigError: the featuriser does not say.

    """
    decode, tokens = decoder(spec.payload, spec.source), placer(spec.features, spec.source)
    return [tokens(decode(payload)) for payload in payloads]


def token_targets(
    soft: Sequence[SoftLabel],
    truth: Sequence[Any],
    places: Sequence[Sequence[Place]],
    head: Mapping[str, int],
    length: int,
    unknown: int,
) -> Arrays:
    """``soft`` (N, ``length``, C), zero where there is no token, and ``truth`` (N, ``length``), else ``unknown``.

    Teacher and truth go over to the student's tokens by :func:`components.contracts.tagging.aligned` and
    :func:`components.contracts.tagging.tagged`. Probability of tags that the head does not have is spread over those
    that it has, in proportion; where all of it is of such tags, the token is taken for one outside of spans.
    """
    shares = np.zeros((len(soft), length, len(head)), dtype=np.float32)
    true = np.full((len(soft), length), unknown, dtype=np.int64)
    for i, (label, known, tokens) in enumerate(zip(soft, truth, places, strict=True)):
        if len(tokens) > length:
            remedy = f"says that a text has {len(tokens)} tokens, and makes arrays of {length}"
            raise ConfigError("features.factory", "tokens", remedy)
        for j, distribution in enumerate(aligned(label, tokens)):
            _share(shares[i, j], distribution, head)
        if known is not None:
            for j, tag in enumerate(tagged(spans_in(str(known)), tokens, head)):
                true[i, j] = unknown if tag is None else head[tag]
    return {"soft": shares, "truth": true}


def _share(row: npt.NDArray[np.float32], distribution: Distribution, head: Mapping[str, int]) -> None:
    for tag, share in distribution.items():
        if tag in head:
            row[head[tag]] = share
    total = row.sum()
    if total > 0:
        row /= total
    else:
        row[head[OUTSIDE]] = 1.0


def token_rows(
    logits: npt.NDArray[Any], soft: npt.NDArray[Any], truth: npt.NDArray[Any], least: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Logits and wanted distributions of tokens, (T, C) each, that a temperature is fitted on; None of too few texts.

    Those of texts whose truth is known are taken where there are ``least`` of them, else the teacher's distributions
    stand in for it. Of n true tags each counts as one less 1 / (n + 2), as in :mod:`components.distill.temperature`.
    """
    there, known = soft.sum(axis=2) > 0, truth >= 0
    told = known.any(axis=1)
    if told.sum() >= least:
        said, wanted = logits[known], np.eye(soft.shape[2])[truth[known]]
        doubt = 1.0 / (len(wanted) + 2.0)
        wanted = wanted * (1.0 - doubt) + doubt / wanted.shape[1]
    elif there.any(axis=1).sum() >= least:
        said, wanted = logits[there], soft[there].astype(np.float64)
    else:
        return None
    z = said.astype(np.float64)
    return z, wanted


def token_accuracy(logits: npt.NDArray[Any], soft: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """The share of tokens that are tagged right: by the truth where it is known, else by the teacher; 1 of none."""
    there = soft.sum(axis=2) > 0
    wanted = np.where(truth >= 0, truth, soft.argmax(axis=2))
    return float((logits.argmax(axis=2) == wanted)[there].mean()) if there.any() else 1.0
