"""A round whose answers are summed under masks (:mod:`components.federation.secure_sum`): its files, and its mixture.

1. Each site *joins*: it hands every other one a public key that is made for this round.
2. Each site answers behind its masks. Which sites they count on, its *peers*, is part of what it signs.
3. Who mixes says whose answers have come. Each of these sites *unmasks*: it tells the seed of its own mask, and the
   seeds that it shares with peers that have dropped out. It does so for one set of sites alone.
4. Who mixes adds up, and sees the sum.

The files are signed as those of :mod:`components.federation.exchange` are, and the mixture is a round's as ever, but
that the weights are the sites' own in every row, and nobody can say how far one is from the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from components.contracts import attestation, bundle
from components.contracts.attestation import verifier
from components.contracts.errors import ArtifactError, ConfigError, UntrustedError
from components.contracts.storage import digest_of
from components.federation import secure_sum
from components.federation.agreement import Agreement, site_of_key
from components.federation.exchange import STATEMENT, Distribution, Said, Written, check_federation, packed, set_digest
from components.federation.mixture import sharpened
from components.federation.rounds import ABSENT, DIGITS, Header, Part, Round, Row, told_of
from components.federation.secure_sum import Floats, Ring

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

DROPPED = "dropped"
"""Why a site that had joined has no part: its answers were not there when the others unmasked."""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What a site says of its key for a round, and signs. ``public``: the digest of the set of public inputs."""

    federation: str
    site: str
    round: int
    public: str


class Masked(Said, frozen=True, kw_only=True):
    """What a site says of answers behind masks. ``peers``: what it and the others signed when they joined, by name."""

    peers: dict[str, str]


class Unmasked(Joined, frozen=True, kw_only=True):
    """What a site says of the seeds that it tells. ``sites``: what those in the sum signed of their answers."""

    sites: dict[str, str]


class Seeds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seeds in hex: of a site's ``own`` mask, and of those that it shares with peers that have ``dropped`` out."""

    own: str
    dropped: dict[str, str]


S = TypeVar("S", Joined, Masked, Unmasked)


class Kind(NamedTuple, Generic[S]):
    """A kind of file: what is signed, of which file, and what is said of it."""

    predicate: str
    member: str
    said: type[S]


JOIN = Kind("urn:cohobate:federated-join:v1", "mask.pub", Joined)
ANSWER = Kind("urn:cohobate:federated-masked-answers:v1", "answers.u64", Masked)
UNMASK = Kind("urn:cohobate:federated-unmasking:v1", "seeds.json", Unmasked)


class Opened(NamedTuple, Generic[S]):
    """A file that was verified: what is said, the content of its member, and the digest of what was signed."""

    said: S
    content: bytes
    statement: str


def write(kind: Kind[S], said: S, content: bytes, by: Signer) -> Written:
    """A file of a kind.

    Raises:
        UnavailableError: the key's holder does not sign.

    """
    return packed({kind.member: content}, kind.predicate, said, by)


def kind_of(data: bytes, uri: str) -> str:
    """The name of the member that a file has beside the statement.

    Raises:
        ArtifactError: it is no file of a round under masks.

    """
    members = bundle.members(data, uri).keys() - {STATEMENT}
    for kind in (JOIN, ANSWER, UNMASK):
        if members == {kind.member}:
            return kind.member
    raise ArtifactError(uri, "is no file of a round under masks: it must hold a key, masked answers or seeds alone")


def opened(agreement: Agreement, number: int, public: str, kind: Kind[S], data: bytes, uri: str) -> Opened[S]:
    """A file of a kind, that one of the sites signed for this round over this set of public inputs.

    Raises:
        ArtifactError: it is no file of that kind.
        UntrustedError: no site signed it, or one did of something else, or for something else.

    """
    files, sites = bundle.members(data, uri), site_of_key(agreement)
    if files.keys() != {kind.member, STATEMENT}:
        raise ArtifactError(uri, f"must hold {kind.member} and {STATEMENT} alone")
    name = next((sites[key] for key in attestation.signed_by(files[STATEMENT]) if key in sites), None)
    if name is None:
        raise UntrustedError(uri, "unknown_signer", "is signed by no site of the agreement")
    content = files[kind.member]
    key = verifier(Path(agreement.sites[name].key))
    found = attestation.opened(files[STATEMENT], key, kind.predicate, {kind.member: digest_of(content)}, uri)
    try:
        said = msgspec.convert(found.predicate, kind.said)
    except msgspec.ValidationError as error:
        raise ArtifactError(uri, f"says nothing of a round under masks: {error}") from error
    check_federation(uri, said.federation, agreement.name)
    for why, is_so, told in (
        ("other_site", said.site != name, f"says that it is of {said.site!r}"),
        ("other_round", said.round != number, f"is of round {said.round}, not {number}"),
        ("other_public", said.public != public, "is about another set of public inputs"),
    ):
        if is_so:
            raise UntrustedError(uri, why, told)
    return Opened(said, content, attestation.digest(found))


def peers_of(
    agreement: Agreement, number: int, public: str, files: Mapping[str, bytes]
) -> tuple[dict[str, X25519PublicKey], dict[str, str]]:
    """The keys of the sites that joined, and what each signed, by their names; ``files``: theirs, by their URIs.

    Files of other rounds are left aside: a site keeps them in one folder.

    Raises:
        ArtifactError, UntrustedError: one of the files does not hold.
        ConfigError: a site joined twice with different keys, two with one, or fewer than ``min_sites`` joined.

    """
    keys: dict[str, X25519PublicKey] = {}
    signed: dict[str, str] = {}
    for uri in sorted(files):
        try:
            found = opened(agreement, number, public, JOIN, files[uri], uri)
        except UntrustedError as error:
            if error.reason == "other_round":
                continue
            raise
        name = found.said.site
        if signed.setdefault(name, found.statement) != found.statement:
            raise ConfigError("--joined", uri, f"is a second key of {name} in round {number}: let it send one")
        try:
            keys[name] = X25519PublicKey.from_public_bytes(bytes.fromhex(found.content.decode()))
            X25519PrivateKey.generate().exchange(keys[name])
        except ValueError as error:
            why = "holds no X25519 key in hex, or one by which anybody would know the masks (a point of small order)"
            raise ArtifactError(uri, why) from error
        if other := next((n for n, key in keys.items() if n != name and key == keys[name]), None):
            raise ConfigError(
                "--joined", uri, f"has the key of {other}, whose masks would be those of {name}: join anew"
            )
    if len(keys) < agreement.min_sites:
        allowed = f"but {len(keys)} sites have joined round {number} ({', '.join(sorted(keys))}): wait for more"
        raise ConfigError("min_sites", agreement.min_sites, allowed)
    return keys, signed


def context_of(said: Masked) -> bytes:
    """What the seeds of a site's masks are made for."""
    return secure_sum.context(said.federation, str(said.round), said.space, said.public, peers=said.peers.items())


def weight_of(agreement: Agreement, name: str) -> float:
    """A site's weight against the largest of the agreement."""
    return agreement.sites[name].weight / max(site.weight for site in agreement.sites.values())


def part_of(agreement: Agreement, name: str, by_id: Mapping[str, Distribution]) -> Ring:
    """What a site adds to the sum, without masks: its weighted answers, by the ids of the inputs in their order.

    Columns are the classes in the order of their names: in their copies sites may have them in another.
    """
    classes = sorted(agreement.classes)
    shares = np.array([[by_id[i].get(c, 0.0) for c in classes] for i in sorted(by_id)], dtype=np.float64)
    return secure_sum.encoded(shares, weight_of(agreement, name))


def mixed(agreement: Agreement, number: int, ids: Iterable[str], files: Mapping[str, bytes]) -> Round:
    """The mixture of a round under masks, from the files of the sites by their URIs: answers and what unmasks them.

    1. Verify each file; one that does not hold is left aside, and why is told.
    2. Find the set of sites that have all told their seeds for that very set.
    3. Add up, take the masks off, and see that what is left are distributions.

    Raises:
        ConfigError: the files do not unmask the sum of any set of sites; or the sum is none of distributions: one of
            the sites has sent something else, and nobody can tell which.

    """
    public = sorted(set(ids))
    # Step 1
    answers, seeds, refused = _gathered(agreement, number, public, files)
    # Step 2
    sites, told = _survivors(agreement, number, answers, seeds)
    # Step 3
    parts = {name: answers[statement] for name, statement in sites.items()}
    shares_NC = sharpened(_sum(agreement, number, public, parts, told), agreement.temperature)
    header = Header(
        federation=agreement.name, round=number, space=agreement.space, classes=agreement.classes, rule=agreement.rule,
        min_sites=agreement.min_sites, most_distance=None, public=set_digest(public), inputs=len(public),
        sites=_parts(agreement, public, parts), masked=True, temperature=told_of(agreement.temperature),
    )  # fmt: skip
    weights = {name: weight_of(agreement, name) for name in sites}
    part = {name: round(weight / sum(weights.values()), DIGITS) for name, weight in weights.items()}
    rows = [_row(agreement, row, shares, part) for row, shares in zip(public, shares_NC, strict=True)]
    data = b"".join(msgspec.json.encode(line) + b"\n" for line in (header, *rows))
    return Round(data=data, header=header, rows=len(rows), refused=refused)


def _row(agreement: Agreement, row: str, shares_C: Floats, weights: dict[str, float]) -> Row:
    given = {c: round(float(p), DIGITS) for c, p in zip(sorted(agreement.classes), shares_C, strict=True)}
    return Row(id=row, distribution={c: p for c, p in given.items() if p > 0}, weights=weights)


def _gathered(
    agreement: Agreement, number: int, public: list[str], files: Mapping[str, bytes]
) -> tuple[dict[str, Opened[Masked]], list[tuple[Unmasked, Seeds]], dict[str, str]]:
    """Masked answers by what was signed of them, what unmasks them, and which files do not hold, with why."""
    answers, seeds, refused, digest = {}, [], {}, set_digest(public)
    for uri in sorted(files):
        try:
            member = kind_of(files[uri], uri)
            if member == ANSWER.member:
                found = opened(agreement, number, digest, ANSWER, files[uri], uri)
                _check(agreement, public, found, uri)
                answers[found.statement] = found
            elif member == UNMASK.member:
                told = opened(agreement, number, digest, UNMASK, files[uri], uri)
                seeds.append((told.said, _seeds(told.content, uri)))
        except UntrustedError as error:
            refused[uri] = f"{error.reason}: {error.detail}"
        except ArtifactError as error:
            refused[uri] = str(error)
    return answers, seeds, refused


def _seeds(content: bytes, uri: str) -> Seeds:
    try:
        found = msgspec.json.decode(content, type=Seeds)
        if all(len(bytes.fromhex(s)) == secure_sum.SEED_BYTES for s in (found.own, *found.dropped.values())):
            return found
    except ValueError as error:  # msgspec's are of these
        raise ArtifactError(uri, f"holds no seeds: {error}") from error
    raise ArtifactError(uri, f"holds no seeds of {secure_sum.SEED_BYTES} bytes")


def _check(agreement: Agreement, public: list[str], found: Opened[Masked], uri: str) -> None:
    """Refuse masked answers that do not fit the agreement.

    Raises:
        ArtifactError, UntrustedError: they do not.

    """
    said = found.said
    wrong = (
        ("other_space", said.space != agreement.space, f"is in {said.space!r}"),
        ("unknown_classes", set(said.classes) != set(agreement.classes), "is not about all classes of the agreement"),
        ("other_peers", said.site not in said.peers or not said.peers.keys() <= agreement.sites.keys(),
         f"counts on {', '.join(sorted(said.peers))}"),
    )  # fmt: skip
    for why, is_so, told in wrong:
        if is_so:
            raise UntrustedError(uri, why, told)
    if len(found.content) != len(public) * len(agreement.classes) * secure_sum.WORD.itemsize:
        raise ArtifactError(uri, f"does not hold {len(agreement.classes)} numbers for each of {len(public)} inputs")


def _survivors(
    agreement: Agreement, number: int, answers: Mapping[str, Opened[Masked]], seeds: list[tuple[Unmasked, Seeds]]
) -> tuple[dict[str, str], dict[str, Seeds]]:
    """The sites whose sum is made, by what they signed of their answers, and what each of them told."""
    missing = []
    for sites in sorted({tuple(sorted(said.sites.items())) for said, _ in seeds}):
        wanted = dict(sites)
        told = {said.site: found for said, found in seeds if said.sites == wanted and said.site in wanted}
        absent = sorted(name for name, statement in sites if name not in told or statement not in answers)
        if not absent and len(wanted) >= agreement.min_sites and _fits(wanted, answers, told):
            return wanted, told
        missing.append(f"of {', '.join(wanted)} those of {', '.join(absent) or 'none'} are missing")
    why = "; ".join(missing) or "no site has told its seeds ('cohobate federate unmask')"
    allowed = (
        f"but no sum of as many sites can be unmasked in round {number}: {why}. If a site is gone for good, the round "
        "is lost: let newer students answer in a new round, which all join anew"
    )
    raise ConfigError("min_sites", agreement.min_sites, allowed)


def _fits(sites: Mapping[str, str], answers: Mapping[str, Opened[Masked]], told: Mapping[str, Seeds]) -> bool:
    """Whether answers are of one set of peers, and the seeds those of all that dropped out."""
    said = [answers[statement].said for statement in sites.values()]
    dropped = said[0].peers.keys() - sites.keys()
    return (
        all(s.peers == said[0].peers and s.site == name for s, name in zip(said, sites, strict=True))
        and sites.keys() <= said[0].peers.keys()
        and all(found.dropped.keys() == dropped for found in told.values())
    )


def _sum(
    agreement: Agreement, number: int, public: list[str], parts: Mapping[str, Opened[Masked]], told: Mapping[str, Seeds]
) -> Floats:
    """The mean of the answers, (N, C), each row summing to one."""
    shape = (len(public), len(agreement.classes))
    total_NC = secure_sum.total(
        {name: secure_sum.unpacked(found.content, shape) for name, found in parts.items()},
        {name: bytes.fromhex(told[name].own) for name in parts},
        {name: {p: bytes.fromhex(seed) for p, seed in told[name].dropped.items()} for name in parts},
    )
    found_NC = secure_sum.decoded(total_NC)
    mass = sum(weight_of(agreement, name) for name in parts)
    sums_N = found_NC.sum(axis=1)
    if np.abs(sums_N - mass).max(initial=0.0) > mass * MASS:
        allowed = (
            f"give no sum of distributions in round {number}: one of {', '.join(sorted(parts))} has sent something "
            "else, and under masks nobody can tell which. Ask the round without masks (masked: false) to find it"
        )
        raise ConfigError("masked", True, allowed)
    return np.asarray(found_NC / sums_N[:, None])


MASS = 1e-5
"""How far, of their weight, the sums of rows may be from it: rounding, and what the students' own sums are off by."""


def _parts(agreement: Agreement, public: list[str], parts: Mapping[str, Opened[Masked]]) -> dict[str, Part]:
    peers = next(iter(parts.values())).said.peers
    found = {}
    for name, site in sorted(agreement.sites.items()):
        if name in parts:
            said = parts[name].said
            found[name] = Part(
                weight=site.weight, statement=parts[name].statement, student=said.student, rows=len(public),
                privacy=said.privacy,
            )  # fmt: skip
        else:
            found[name] = Part(weight=site.weight, left_out=DROPPED if name in peers else ABSENT)
    return found
