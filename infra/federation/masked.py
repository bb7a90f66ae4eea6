"""A site's part in a round whose answers are summed under masks: joining, the masks of its answers, taking them off.

What is kept safe is that nobody sees the answers of fewer than ``min_sites`` sites, of whoever keeps to the rounds. Two
sums of which one has a site more would tell what that site said, and so would its masks, once they are off for two
sets of sites; two answers behind the same masks tell what they differ in. So the site itself, by its ledger, answers
once behind the masks of a round, lets a student answer under masks once in a federation, and unmasks for one set. That
is so of all workloads of its platform together, since masks do not hang on the workload.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.contracts.spec import Spec
from components.control.store import ControlStore
from components.control.tables import LedgerRow
from components.federation import masked, secure_sum
from components.federation.agreement import Agreement
from components.federation.exchange import Distribution, Said, Written, set_digest
from components.federation.masked import ANSWER, JOIN, UNMASK, Joined, Masked, Seeds, Unmasked
from components.ledger.ledger import append_if

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from securesystemslib.signer import Signer

ACTION = "federate unmask"
"""The ledger's action of seeds that were told."""

MASKS = ("federation", "site", "round", "public", "peers")
"""The members of an entry that tell masks apart: seeds are made for these, and of a site's own secret."""


class Round(NamedTuple):
    """What a site knows of a round: its own name in the agreement, and who ``joined``, as files by their URIs."""

    agreement: Agreement
    site: str
    number: int
    joined: Mapping[str, bytes]
    secret: X25519PrivateKey


def secret_at(path: Path) -> X25519PrivateKey:
    """The secret of a site's masks.

    Raises:
        ConfigError: there is none.

    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError("--secret", str(path), "must be the file that 'cohobate federate join' wrote") from error
    if not isinstance(found, X25519PrivateKey):
        raise ConfigError("--secret", str(path), "must be an X25519 key, as 'cohobate federate join' makes them")
    return found


def join(agreement: Agreement, site: str, number: int, ids: Sequence[str], secret: Path, by: Signer) -> bytes:
    """The file by which a site joins a round, its key beside it at ``secret``; one that is there is used again.

    Raises:
        ConfigError: the agreement is not about masks, or has no such site.

    """
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    require(agreement, site)
    if not secret.exists():
        made = X25519PrivateKey.generate()
        data = made.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    public = secret_at(secret).public_key().public_bytes_raw().hex().encode()
    said = Joined(federation=agreement.name, site=site, round=number, public=set_digest(ids))
    return masked.write(JOIN, said, public, by).data


def require(agreement: Agreement, site: str) -> None:
    """Refuse a round that is not under masks, and a site that is not in it."""
    if not agreement.masked:
        raise ConfigError(
            "masked", agreement.masked, "must be true in an agreement whose answers are summed under masks"
        )
    require_site(agreement, site)


def require_site(agreement: Agreement, site: str) -> None:
    """Refuse a site that is not in an agreement."""
    if site not in agreement.sites:
        raise ConfigError("--site", site, f"must be one of the agreement's: {', '.join(sorted(agreement.sites))}")


def answers(of: Round, said: Said, by_id: Mapping[str, Distribution], by: Signer) -> tuple[Written, dict[str, str]]:
    """The file of a site's answers behind masks, and its peers by what they signed.

    Raises:
        ConfigError: the answers are of another label space or of other classes than the agreement's, this site has not
            joined, or others are missing.
        ArtifactError, UntrustedError: a file of a site that joined does not hold.

    """
    agreement = of.agreement
    if said.space != agreement.space:
        raise ConfigError("space", said.space, f"must be the agreement's: {agreement.space}")
    if unlike := sorted(set(said.classes) ^ set(agreement.classes)):
        allowed = f"must be just those of the agreement where masked is true: the answers differ in {', '.join(unlike)}"
        raise ConfigError("classes", list(said.classes), allowed)
    keys, signed = masked.peers_of(agreement, of.number, said.public, of.joined)
    if of.site not in keys or keys[of.site] != of.secret.public_key():
        raise ConfigError(
            "--joined", of.site, "must hold this site's own file of 'cohobate federate join', by --secret"
        )
    full = Masked(**msgspec.structs.asdict(said), peers=signed)
    context = masked.context_of(full)
    content = secure_sum.masked(
        of.site,
        masked.part_of(agreement, of.site, by_id),
        secure_sum.own_seed(of.secret, context),
        {name: secure_sum.pair_seed(of.secret, key, context) for name, key in keys.items() if name != of.site},
    )
    return masked.write(ANSWER, full, secure_sum.packed(content), by), signed


def once(detail: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> None:
    """Refuse other answers behind masks that this site used before, and any of a student that answered under others."""
    for d in before:
        if not d.get("peers") or d["federation"] != detail["federation"]:
            continue
        others = f"in round {d['round']}, with {', '.join(sorted(d['peers']))}"
        if any(d[n] != detail[n] for n in MASKS):
            if d["student"] == detail["student"]:
                allowed = (
                    f"answered under masks {others}: the sums of two rounds could tell what one site said, so let a "
                    "newer student answer"
                )
                raise ConfigError("--version", detail["version"], allowed)
        elif d["statement"] != detail["statement"]:
            allowed = (
                f"would answer behind masks that hide other answers of this site {others}, and the two would tell what "
                "they differ in: let a newer student answer in a new round, which all join anew"
            )
            raise ConfigError("--round", detail["round"], allowed)


def unmask(
    settings: Settings,
    store: ControlStore,
    spec: Spec,
    of: Round,
    *,
    ids: Sequence[str],
    files: Mapping[str, bytes],
    by: Signer,
) -> bytes:
    """The seeds of a site's masks, for the sum of those whose answers are in ``files``, by their URIs.

    1. Verify the answers, and that all count on the same peers.
    2. Record in the ledger for whose sum the masks are taken off, unless they were for another; only then hand it out.

    Raises:
        ArtifactError, UntrustedError: a file does not hold.
        ConfigError: this site's own answers are not there, too few are, they count on different peers, or the masks
            were taken off for others before.

    """
    # Step 1
    public = set_digest(ids)
    found = [masked.opened(of.agreement, of.number, public, ANSWER, data, uri) for uri, data in sorted(files.items())]
    sites = {one.said.site: one.statement for one in found}
    mine = next((one for one in found if one.said.site == of.site), None)
    if mine is None:
        raise ConfigError("FILES", sorted(sites), f"must have the answers of {of.site} itself: it is not in this sum")
    if any(one.said.peers != mine.said.peers or sites[one.said.site] != one.statement for one in found):
        raise ConfigError("FILES", sorted(files), "must be one of each site, and count on the same sites that joined")
    if len(sites) < of.agreement.min_sites:
        allowed = f"but the answers of {len(sites)} are here ({', '.join(sorted(sites))}): wait for more"
        raise ConfigError("min_sites", of.agreement.min_sites, allowed)
    keys, signed = masked.peers_of(of.agreement, of.number, public, of.joined)
    if signed != mine.said.peers:
        raise ConfigError("--joined", sorted(signed), "must be the files that this site answered with")
    context = masked.context_of(mine.said)
    seeds = Seeds(
        own=secure_sum.own_seed(of.secret, context).hex(),
        dropped={
            name: secure_sum.pair_seed(of.secret, keys[name], context).hex() for name in sorted(signed.keys() - sites)
        },
    )
    said = Unmasked(federation=of.agreement.name, site=of.site, round=of.number, public=public, sites=sites)
    made = masked.write(UNMASK, said, msgspec.json.encode(seeds), by)
    # Step 2
    detail = {
        "federation": of.agreement.name, "site": of.site, "round": of.number, "statement": made.statement,
        "answers": mine.statement, "sites": sites, "public": public, "peers": signed,
    }  # fmt: skip
    append_if(store, spec.name, settings.actor, ACTION, lambda rows: _unmasking(rows, detail), everybodys=(ACTION,))
    return made.data


def _unmasking(rows: Sequence[LedgerRow], detail: dict[str, Any]) -> dict[str, Any] | None:
    for row in rows:
        if row.action != ACTION or any(row.detail.get(n, detail[n]) != detail[n] for n in MASKS):
            continue
        if row.detail["sites"] == detail["sites"]:
            return None
        allowed = (
            f"were unmasked for the sum of {', '.join(sorted(row.detail['sites']))}: for another set of sites nothing "
            "is told, since the two sums would tell what one site said"
        )
        raise ConfigError("FILES", sorted(detail["sites"]), allowed)
    return detail
