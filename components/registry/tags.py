"""The tags of a registered version: its lineage, and of its verdict and measures what fits.

MLflow's databases hold 5,000 characters a tag before its migration ``bda7b8c39065``, then MySQL's 65,535
bytes or, elsewhere, the 100,000 characters that its API takes: what is longer than the least of them lies whole in the
version's run (:data:`VERDICT_FILE`, ``card.json`` and its metrics).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.contracts.spec import Spec
from components.student.card import StudentCard

TAG_CHARACTERS = 5_000
"""The longest value of a tag, in ASCII characters: the least that a database of MLflow's holds."""

VERDICT_FILE = "verdict.json"
"""The artifact of a version's run that holds its whole verdict."""

WHOLE = "whole"
"""The key of a shortened verdict that names :data:`VERDICT_FILE`."""


def tags_of(
    spec: Spec, uri: str, digest: str, card: StudentCard, verdict: Mapping[str, Any], metrics: Mapping[str, float]
) -> dict[str, str]:
    """All tags of a version."""
    return {
        "workload": spec.name,
        "uri": uri,
        "digest": digest,
        "snapshots": _newest(card.snapshots),
        "teacher": card.teacher,
        "parent": card.parent or "",
        "code": card.code,
        "variant": card.variant,
        "precision": card.precision,
        "export": card.form,
        "verdict": verdict_tag(verdict),
        "metrics": _metrics(metrics),
    }


def verdict_tag(verdict: Mapping[str, Any]) -> str:
    """A verdict as JSON: whole where it fits, else its decision, and the first of its reasons, what decided before."""
    whole = _json(verdict)
    if len(whole) <= TAG_CHARACTERS:
        return whole
    kept = {name: verdict[name] for name in ("decision", "forced") if name in verdict} | {WHOLE: VERDICT_FILE}
    reasons: list[Any] = []
    for reason in verdict.get("reasons", ()):
        if len(_json({**kept, "reasons": [*reasons, reason]})) > TAG_CHARACTERS:
            break
        reasons.append(reason)
    return _json({**kept, "reasons": reasons})


def _metrics(metrics: Mapping[str, float]) -> str:
    """The metrics that fit, those that routing needs before all others."""
    found: dict[str, float] = {}
    for name in sorted(metrics, key=lambda n: (n != "defer_below", n)):
        if len(_json({**found, name: metrics[name]})) > TAG_CHARACTERS:
            break
        found[name] = metrics[name]
    return _json(found)


def _newest(snapshots: Sequence[str]) -> str:
    """The digests that fit, the newest first, as a card has them."""
    found = ""
    for snapshot in snapshots:
        longer = f"{found},{snapshot}" if found else snapshot
        if len(longer) > TAG_CHARACTERS:
            break
        found = longer
    return found


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True)
