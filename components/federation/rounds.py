"""A round of a federation: the files of the sites, verified, become one recorded mixture that a teacher answers from.

The record is a file of JSON lines: a :class:`Header`, then a :class:`Row` for each input that enough sites answered,
by its id, with the answer and the weight of each site in it. It is a pure function of the agreement, the round, the
public inputs and the sites' files: made again it is the same file, and whoever has those files can make it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from components.contracts.attestation import verifier
from components.contracts.errors import ArtifactError, ConfigError, UntrustedError
from components.contracts.records import MASS_TOLERANCE
from components.contracts.storage import digest_of
from components.federation import exchange
from components.federation.agreement import Agreement, Rule, site_of_key
from components.federation.exchange import Answers, Distribution
from components.federation.mixture import Bools, Floats, distances, mix, sharpened

SCHEMA = 2

DIGITS = 9
"""Digits of shares and weights that are written: the last ones hang on how a processor adds up."""

ABSENT = "absent"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A site's part in a round.

    ``left_out``: why it has none, a stable code: ``absent``, ``forged``, ``other_kind``, ``other_subject``,
    ``unreadable``, ``other_federation``, ``other_site``, ``other_round``, ``other_space``, ``other_public`` (it
    answered another set of inputs), ``no_answers`` (to any of them), ``unknown_classes`` (others than the agreement has
    of it), ``twice`` (it signed two different ones) or ``distant``; under masks ``absent`` or ``dropped``; None: it has
    one. ``distance``: :func:`components.federation.mixture.distances` from the others that were compared, 0 to 1.
    ``statement``: SHA-256 of what it signed; ``student``, ``privacy``: as it says.
    """

    weight: float
    left_out: str | None = None
    distance: float | None = None
    statement: str = ""
    student: str = ""
    rows: int = 0
    privacy: dict[str, Any] | None = None


class _Versioned(msgspec.Struct, frozen=True):
    schema: int


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a mixture is, of a ``round`` of the ``federation``.

    ``public``: the digest of the set of public inputs, ``inputs`` of them. ``masked``: it was summed under masks;
    ``temperature``: what it was sharpened by; both are left out where they are nothing special.
    """

    schema: int = SCHEMA
    federation: str
    round: int
    space: str
    classes: tuple[str, ...]
    rule: Rule
    min_sites: int
    most_distance: float | None
    public: str
    inputs: int
    sites: dict[str, Part]
    masked: bool | msgspec.UnsetType = msgspec.UNSET
    temperature: float | msgspec.UnsetType = msgspec.UNSET


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a public input, and the weight of each site in it; those that have none are left out."""

    id: str
    distribution: Distribution
    weights: dict[str, float]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A mixture as it was read. ``digest``: SHA-256 of the file."""

    header: Header
    rows: dict[str, Row]
    digest: str


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What a round gave: the record as a file, its header, how many rows it has, and why files have no part in it."""

    data: bytes
    header: Header
    rows: int
    refused: dict[str, str]


def mixed(agreement: Agreement, number: int, ids: Iterable[str], files: Mapping[str, bytes]) -> Round:
    """The mixture of round ``number`` over the public inputs with these ids, from the files of the sites by their URIs.

    1. Verify each file by the key of the site that signed it; what does not hold is left out, and why is recorded.
    2. Leave out the site that is furthest from the others while it is too far, one after the other.
    3. Mix what is left; an input that fewer than ``min_sites`` answered has no row.

    Raises:
        ConfigError: fewer than ``min_sites`` sites are left, no input has a row, or a key of the agreement cannot be
            read.

    """
    public = sorted(set(ids))
    # Step 1
    parts, answers, refused = _gathered(agreement, number, public, files)
    _require(agreement, number, parts, answers)
    # Step 2
    parts, kept = _near(agreement, public, parts, answers)
    _require(agreement, number, parts, kept)
    # Step 3
    header = Header(
        federation=agreement.name, round=number, space=agreement.space, classes=agreement.classes, rule=agreement.rule,
        min_sites=agreement.min_sites, most_distance=agreement.most_distance,
        public=exchange.set_digest(public), inputs=len(public), sites=parts,
        temperature=told_of(agreement.temperature),
    )  # fmt: skip
    rows = _rows(agreement, public, kept)
    if not rows:
        allowed = f"but no public input was answered by as many sites in round {number}: let the sites answer all of it"
        raise ConfigError("min_sites", agreement.min_sites, allowed)
    data = b"".join(msgspec.json.encode(line) + b"\n" for line in (header, *rows))
    return Round(data=data, header=header, rows=len(rows), refused=refused)


def told_of(temperature: float) -> float | msgspec.UnsetType:
    """What a header tells of a mixture's temperature."""
    return temperature if temperature != 1.0 else msgspec.UNSET


def read(data: bytes, uri: str) -> Record:
    """A mixture from its file.

    Raises:
        ArtifactError: it is none.

    """
    lines = data.splitlines()
    first = lines[0] if lines else b""
    try:
        schema = msgspec.json.decode(first, type=_Versioned).schema
        if schema != SCHEMA:
            raise ArtifactError(
                uri, f"is a mixture of schema {schema}; this version reads {SCHEMA}: mix the round again"
            )
        header = msgspec.json.decode(first, type=Header)
        rows = [msgspec.json.decode(line, type=Row) for line in lines[1:]]
    except msgspec.MsgspecError as error:
        raise ArtifactError(uri, f"is no mixture of 'cohobate federate mix': {error}") from error
    if (fault := _fault(header, rows)) is not None:
        raise ArtifactError(uri, f"is no mixture that 'cohobate federate mix' wrote: {fault}")
    return Record(header=header, rows={row.id: row for row in rows}, digest=digest_of(data))


def _fault(header: Header, rows: list[Row]) -> str | None:
    """What of a mixture's rows does not go with its header, or with each other."""
    classes, sites = set(header.classes), {name for name, part in header.sites.items() if part.left_out is None}
    if len({row.id for row in rows}) != len(rows):
        return "it has an answer twice"
    if len(rows) > header.inputs:
        return f"it has {len(rows)} answers to {header.inputs} inputs"
    for row in rows:
        if unknown := sorted(row.distribution.keys() - classes):
            return f"{row.id[:12]} has classes that its first line does not: {unknown}"
        if unknown := sorted(row.weights.keys() - sites):
            return f"{row.id[:12]} has sites that have no part in it: {unknown}"
        for shares in (row.distribution.values(), row.weights.values()):
            if min(shares, default=-1.0) < 0 or abs(sum(shares) - 1.0) > MASS_TOLERANCE:
                return f"{row.id[:12]} has shares that do not sum to one"
    return None


def _gathered(
    agreement: Agreement, number: int, ids: Sequence[str], files: Mapping[str, bytes]
) -> tuple[dict[str, Part], dict[str, Answers], dict[str, str]]:
    """The sites' parts, the answers of those that have one, and the files that have none, with why.

    A file that does not hold takes nothing from another of the same site that does: anybody may have made it.
    """
    sites, refused = site_of_key(agreement), {}
    holding: dict[str, dict[str, Answers]] = {name: {} for name in agreement.sites}
    faults: dict[str, list[str]] = {name: [] for name in agreement.sites}
    for uri in sorted(files):
        try:
            name = next((sites[key] for key in exchange.signed_by(files[uri], uri) if key in sites), None)
        except ArtifactError as error:
            refused[uri] = str(error)
            continue
        if name is None:
            refused[uri] = "is signed by no site of the agreement"
            continue
        found = _verified(agreement, name, number, ids, uri, files[uri])
        if isinstance(found, Answers):
            holding[name][found.statement] = found
        else:
            refused[uri] = f"{found.reason}: {found.detail}"
            faults[name].append(found.reason)
    parts, answers = {}, {}
    for name, site in sorted(agreement.sites.items()):
        if len(holding[name]) == 1:
            (answers[name],) = holding[name].values()
            parts[name] = _part(site.weight, answers[name])
        else:
            why = "twice" if holding[name] else min(faults[name], default=ABSENT)
            parts[name] = Part(weight=site.weight, left_out=why)
    return parts, answers, refused


def _part(weight: float, found: Answers) -> Part:
    said = found.said
    return Part(
        weight=weight, statement=found.statement, student=said.student, rows=len(found.by_id), privacy=said.privacy
    )  # fmt: skip


def _verified(
    agreement: Agreement, name: str, number: int, ids: Sequence[str], uri: str, data: bytes
) -> Answers | UntrustedError:
    """The answers in a file that a site signed, or why they are left out."""
    try:
        found = exchange.read(data, uri, verifier(Path(agreement.sites[name].key)), agreement.name)
    except UntrustedError as error:
        return error
    except ArtifactError as error:
        return UntrustedError(uri, "unreadable", error.detail)
    said = found.said
    allowed = agreement.sites[name].classes or agreement.classes
    wrong = (
        ("other_site", said.site != name, f"says that it is of {said.site!r}"),
        ("other_round", said.round != number, f"is of round {said.round}"),
        ("other_space", said.space != agreement.space, f"is in {said.space!r}"),
        ("other_public", said.public != exchange.set_digest(ids), "answers another set of inputs"),
        ("no_answers", not said.classes or found.by_id.keys().isdisjoint(ids), "answers none of the inputs"),
        ("unknown_classes", not set(said.classes) <= set(allowed), f"claims {', '.join(said.classes)}"),
    )
    return next((UntrustedError(uri, why, told) for why, is_so, told in wrong if is_so), found)


def _require(agreement: Agreement, number: int, parts: Mapping[str, Part], answers: Mapping[str, Answers]) -> None:
    if len(answers) >= agreement.min_sites:
        return
    out = ", ".join(f"{name} {part.left_out}" for name, part in parts.items() if part.left_out is not None)
    remedy = "wait for more, or agree on less"
    if any(part.left_out == "other_public" for part in parts.values()):
        remedy = "other_public: the file of public inputs here, or the decoder of the spec, is not that of the site"
    allowed = f"but {len(answers)} of {len(parts)} sites count in round {number} ({out}): {remedy}"
    raise ConfigError("min_sites", agreement.min_sites, allowed)


def _arrays(agreement: Agreement, public: list[str], answers: Mapping[str, Answers]) -> tuple[Floats, Bools, Bools]:
    """Shares (S, N, C) with zeros where there is no answer, what was answered (S, N), and what is known (S, C)."""
    place = {name: i for i, name in enumerate(agreement.classes)}
    shares = np.zeros((len(answers), len(public), len(place)))
    answered = np.zeros(shares.shape[:2], dtype=np.bool_)
    knows = np.zeros((len(answers), len(place)), dtype=np.bool_)
    for s, name in enumerate(sorted(answers)):
        knows[s, [place[c] for c in answers[name].said.classes]] = True
        for n, row in enumerate(public):
            if (found := answers[name].by_id.get(row)) is not None:
                answered[s, n] = True
                shares[s, n, [place[c] for c in found]] = list(found.values())
    return shares, answered, knows


def _weights(agreement: Agreement, names: Iterable[str]) -> Floats:
    return np.array([agreement.sites[name].weight for name in sorted(names)])


def _near(
    agreement: Agreement, public: list[str], parts: dict[str, Part], answers: Mapping[str, Answers]
) -> tuple[dict[str, Part], dict[str, Answers]]:
    """Parts and answers without the sites that are too far from the others."""
    left = dict(answers)
    while True:
        found = distances(*_arrays(agreement, public, left), _weights(agreement, left))
        away = {name: float(d) for name, d in zip(sorted(left), found, strict=True) if np.isfinite(d)}
        parts = parts | {n: msgspec.structs.replace(parts[n], distance=round(d, DIGITS)) for n, d in away.items()}
        furthest = max(away, key=lambda n: away[n], default=None)
        if furthest is None or agreement.most_distance is None or away[furthest] <= agreement.most_distance:
            return parts, left
        parts[furthest] = msgspec.structs.replace(parts[furthest], left_out="distant")
        del left[furthest]
        if len(left) < agreement.min_sites:
            return parts, left


def _rows(agreement: Agreement, public: list[str], answers: Mapping[str, Answers]) -> list[Row]:
    names = sorted(answers)
    shares, answered, knows = _arrays(agreement, public, answers)
    done = mix(shares, answered, knows, _weights(agreement, names), agreement.rule)
    shares_NC = sharpened(done.shares_NC, agreement.temperature)
    rows = []
    for n, row in enumerate(public):
        if answered[:, n].sum() < agreement.min_sites:
            continue
        given = {c: round(float(p), DIGITS) for c, p in zip(agreement.classes, shares_NC[n], strict=True)}
        weights = {name: round(float(w), DIGITS) for name, w in zip(names, done.weights_SN[:, n], strict=True)}
        rows.append(
            Row(
                id=row,
                distribution={c: p for c, p in given.items() if p > 0},
                weights={name: w for name, w in weights.items() if w > 0},
            )
        )
    return rows
