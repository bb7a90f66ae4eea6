"""Groups of held-out rows, between which a student is to make no difference: which rows are of them, and how far apart.

A group is told by what is known of an input, never by what a student says of it (:class:`components.contracts.spec.
Groups`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components.contracts.payload import bare, decoder, entity_of, knowing
from components.contracts.records import EXACT
from components.contracts.spec import Groups, Spec
from components.evaluate.evidence import Evidence, Row
from components.evaluate.share import agrees, known, right, sampled, says, share_of
from components.student.features import featuriser
from drift.gap import Gap
from drift.gate import Measurement
from drift.measured import Share


def grouped(spec: Spec, payloads: Sequence[bytes]) -> list[dict[str, str]]:
    """The group of each input, by what the spec groups them by; left out where it is of none.

    Raises:
        RecordError: a payload cannot be decoded.
        ConfigError: the featuriser or the decoder does not exist here.

    """
    declared = spec.limits.groups
    if not declared:
        return [{} for _ in payloads]
    decode = knowing(decoder(spec.payload, spec.source))
    describe = featuriser(spec.features, spec.source).describe
    described = any(groups.descriptor is not None for groups in declared.values())
    found = []
    for payload in payloads:
        decoded = decode(payload)
        descriptors = describe(decoded) if described else {}
        of = {
            name: group_of(groups, _value(groups, bare(decoded), entity_of(decoded), descriptors))
            for name, groups in declared.items()
        }
        found.append({name: group for name, group in of.items() if group is not None})
    return found


def _value(groups: Groups, payload: Any, entity: Mapping[str, Any], descriptors: Mapping[str, Any]) -> Any:
    if groups.feature is not None:
        return entity.get(groups.feature)
    if groups.descriptor is not None:
        return descriptors.get(groups.descriptor)
    found = payload
    for step in str(groups.field).split("."):
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list | tuple) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def group_of(groups: Groups, value: Any) -> str | None:
    """The group that a value puts an input into; None: it is of none.

    >>> ages = Groups(field="age", edges=(30, 60))
    >>> [group_of(ages, v) for v in (29.9, 30, 60, "30", None)]
    ['below 30', '30 to 60', '60 and above', None, None]
    >>> group_of(Groups(field="member", values=("true", "false")), True)
    'true'
    """
    if groups.edges:
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return None
        return groups.names[sum(value >= edge for edge in groups.edges)]
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return text if value is not None and text in groups.values else None


def of_groups(evidence: Evidence, new: Sequence[Row]) -> dict[str, Measurement]:
    """The measures of groups on the newest holdout; none where no groups are declared.

    Of each group, as ``NAME[BY=GROUP]``: ``group_rows`` and ``group_truth_rows``, ``group_accuracy`` (of classes),
    ``group_agreement`` with the teacher, and ``group_deferral``, the share of answers that would be deferred; all
    shares None of fewer rows than it needs. Where the rows are looked at repeatedly, those are counted that shares rest
    on: a group that has others alone has not rows enough. ``ungrouped_rows[BY]`` are of no group. ``accuracy_gap[BY]``
    and its like are the largest difference between two groups that have rows enough, None of fewer than two.
    """
    found: dict[str, Measurement] = {}
    for by, compared in evidence.judgement.groups.items():
        parts = {name: [row for row in new if row.groups.get(by) == name] for name in compared.names}
        found[f"ungrouped_rows[{by}]"] = float(len(new) - sum(map(len, parts.values())))
        shares: dict[str, list[Share]] = {}
        for name, rows in parts.items():
            found[f"group_rows[{by}={name}]"] = float(len(_counted(evidence, rows)))
            found[f"group_truth_rows[{by}={name}]"] = float(len(_counted(evidence, known(rows))))
            for measure, (used, hit) in _of_rows(evidence, rows).items():
                share = share_of(evidence, used, hit, compared.min_rows)
                found[f"group_{measure}[{by}={name}]"] = share
                shares.setdefault(measure, []).extend([share] if share is not None else [])
        for measure, some in shares.items():
            found[f"{measure}_gap[{by}]"] = Gap(groups=tuple(some)) if len(some) > 1 else None
    return found


def _counted(evidence: Evidence, rows: Sequence[Row]) -> Sequence[Row]:
    return sampled(evidence, rows) if evidence.judgement.throughout else rows


def _of_rows(evidence: Evidence, rows: Sequence[Row]) -> dict[str, tuple[list[Row], Callable[[Row], bool]]]:
    """The rows that each share of a group is of, and what counts as a hit."""
    made: dict[str, tuple[list[Row], Callable[[Row], bool]]] = {
        "agreement": ([r for r in rows if says(r.teacher)], lambda r: agrees(r.candidate, r.teacher)),
        "deferral": ([r for r in rows if r.deferred is not None], lambda r: bool(r.deferred)),
    }
    if evidence.judgement.task in EXACT:
        made["accuracy"] = (known(rows), lambda r: right(r.candidate, r.truth))
    return made
