"""The file that a site hands on: what its student answers to the public inputs, signed, and nothing else.

An archive (:mod:`components.contracts.bundle`) of two files: ``answers.jsonl``, one line an input, in the order of
their ids, and ``statement.dsse``, an in-toto statement of it in a signed envelope. Equal answers give equal bytes, with
keys whose signatures hang on no chance (Ed25519). An input goes by the hash of its content: who has the public inputs
knows which it is, and nobody's own inputs are in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from components.contracts import attestation, bundle
from components.contracts.errors import ArtifactError, ConfigError, UntrustedError
from components.contracts.records import MASS_TOLERANCE, content_hash
from components.contracts.storage import digest_of

if TYPE_CHECKING:
    from securesystemslib.signer import Signer, SSlibKey

PREDICATE = "urn:cohobate:federated-answers:v2"

ANSWERS, STATEMENT = "answers.jsonl", "statement.dsse"

Distribution = dict[str, float]

NO_TEXT = b"\xff"
"""Before JSON that is no string, so that the number 1 is not the text "1": no UTF-8 begins so."""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a site says of its answers, and signs.

    ``federation``: its name in the agreement; ``round``: of it, from 1 on; ``classes``: those that the student knows;
    ``public``: digest of the set of public inputs (:func:`set_digest`); ``student``: digest of the artifact;
    ``privacy``: what the student's account promises, None where nothing bounds what the answers tell.
    """

    federation: str
    site: str
    round: int
    space: str
    classes: tuple[str, ...]
    public: str
    student: str
    privacy: dict[str, Any] | None = None


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """A site's answers, verified. ``by_id``: distributions by the ids of inputs; ``statement``: as :class:`Written`."""

    said: Said
    statement: str
    by_id: dict[str, Distribution]


class Written(NamedTuple):
    """A signed file as it is handed on.

    ``statement``: SHA-256 of what was signed, which has those of the files beside it. What is handed on goes by that,
    and not by the file: anybody can pack the same ones another way, and some kinds of keys sign them otherwise each
    time.
    """

    data: bytes
    statement: str


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    distribution: Distribution


def row_id(decoded: Any) -> str:
    """What a public input goes by: SHA-256 (hex) of its decoded payload, of JSON other than a string with a mark.

    Raises:
        ConfigError: what the workload's decoder gives has no bytes of its own.

    """
    if isinstance(decoded, bytes):
        return content_hash(decoded)
    try:
        if isinstance(decoded, str):
            return content_hash(decoded.encode())
        return content_hash(NO_TEXT + json.dumps(decoded, sort_keys=True, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        allowed = f"gives a {type(decoded).__name__}: public inputs need the decoder raw, text or json"
        raise ConfigError("payload.decoder", "", allowed) from error


def set_digest(ids: Iterable[str]) -> str:
    """What a set of public inputs goes by, whatever their order."""
    return digest_of("\n".join(sorted(set(ids))).encode())


def limited(by_id: Mapping[str, Distribution], classes: Iterable[str]) -> dict[str, Distribution]:
    """Answers over some of the classes alone, each normalised; where they have no share at all, the same of each.

    >>> limited({"x": {"ham": 0.25, "spam": 0.25, "eggs": 0.5}}, ["ham", "spam"])
    {'x': {'ham': 0.5, 'spam': 0.5}}
    """
    known = sorted(classes)
    found = {}
    for row, shares in by_id.items():
        part = {c: shares.get(c, 0.0) for c in known}
        total = sum(part.values())
        found[row] = {c: share / total if total > 0 else 1.0 / len(known) for c, share in part.items()}
    return found


def write(said: Said, by_id: Mapping[str, Distribution], by: Signer) -> Written:
    """The file of a site's answers.

    Raises:
        UnavailableError: the key's holder does not sign.

    """
    lines = [msgspec.json.encode(_Line(id=i, distribution=dict(sorted(by_id[i].items())))) for i in sorted(by_id)]
    answers = b"".join(line + b"\n" for line in lines)
    return packed({ANSWERS: answers}, PREDICATE, said, by)


def packed(files: Mapping[str, bytes], predicate_type: str, said: msgspec.Struct, by: Signer) -> Written:
    """Files and a signed statement of them in one.

    Raises:
        UnavailableError: the key's holder does not sign.

    """
    digests = {name: digest_of(data) for name, data in files.items()}
    statement = attestation.statement(predicate_type, digests, msgspec.to_builtins(said))
    data = bundle.pack({**files, STATEMENT: attestation.sign(statement, by)})
    return Written(data, attestation.digest(statement))


def signed_by(data: bytes, uri: str) -> tuple[str, ...]:
    """The ids of the keys that a file says it is signed by; nothing is verified.

    Raises:
        ArtifactError: it is no file of answers.

    """
    return attestation.signed_by(_members(data, uri)[STATEMENT])


def read(data: bytes, uri: str, key: SSlibKey, federation: str) -> Answers:
    """The answers in a file that ``key`` signed for a federation; ``uri`` is where it came from, for the message.

    Raises:
        ArtifactError: it is no file of answers.
        UntrustedError: its signature does not fit (``forged``), it is of something else (``other_kind``), the answers
            are not those that were signed (``other_subject``), or they are for another federation
            (``other_federation``).

    """
    files = _members(data, uri)
    found = attestation.opened(files[STATEMENT], key, PREDICATE, {ANSWERS: digest_of(files[ANSWERS])}, uri)
    try:
        said = msgspec.convert(found.predicate, Said)
        lines = [msgspec.json.decode(line, type=_Line) for line in files[ANSWERS].splitlines()]
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ArtifactError(uri, f"holds no answers of a site: {error}") from error
    check_federation(uri, said.federation, federation)
    _check(uri, said, lines)
    return Answers(said=said, statement=attestation.digest(found), by_id={line.id: line.distribution for line in lines})


def check_federation(uri: str, found: str, wanted: str) -> None:
    """Refuse what was signed for another federation.

    Raises:
        UntrustedError: it was (``other_federation``).

    """
    if found != wanted:
        raise UntrustedError(uri, "other_federation", f"is signed for the federation {found!r}, not {wanted!r}")


def _members(data: bytes, uri: str) -> dict[str, bytes]:
    files = bundle.members(data, uri)
    if files.keys() != {ANSWERS, STATEMENT}:
        raise ArtifactError(uri, f"is no file of a site's answers: it must hold {ANSWERS} and {STATEMENT} alone")
    return files


def _check(uri: str, said: Said, lines: Sequence[_Line]) -> None:
    """Refuse answers that are no distributions over the classes that the site says it knows."""
    known = set(said.classes)
    if len({line.id for line in lines}) != len(lines):
        raise ArtifactError(uri, "answers an input twice")
    for line in lines:
        if unknown := sorted(line.distribution.keys() - known):
            raise ArtifactError(uri, f"answers {line.id[:12]} with classes that it does not list: {unknown}")
        shares = line.distribution.values()
        if min(shares, default=-1.0) < 0 or abs(sum(shares) - 1.0) > MASS_TOLERANCE:
            raise ArtifactError(uri, f"answers {line.id[:12]} with what is no distribution")
