"""Verifying an evidence bundle: by a stranger, from the bundle and a public key alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from components.contracts import attestation
from components.contracts.errors import CohobateError
from components.contracts.storage import digest_of
from components.control.chain import entry_hash
from components.control.tables import LedgerRow
from components.evaluate import judge
from components.forget.order import ACTION, successors
from infra.evidence.archive import PREDICATE, digests, unpack
from infra.evidence.write import CARD, FIELDS, LEDGER, STUDENT, VERDICT, WINDOWS, card_of
from serving.rollout import replay
from serving.rollout.state import Action

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

Files = Mapping[str, bytes]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``wrong``: what does not hold; empty where all does."""

    name: str
    wrong: tuple[str, ...]
    told: str = ""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it: ``of`` is what the signed statement says the bundle is of."""

    of: dict[str, Any]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not any(check.wrong for check in self.checks)


def verify(path: Path, key: SSlibKey) -> Verified:
    """Look at everything, and go on where something does not hold.

    What is not signed by the key, or is another bundle, is not looked into: nothing that it says can be believed.

    Raises:
        ConfigError: it is no bundle.

    """
    envelope, files = unpack(path)
    try:
        said = attestation.verify(envelope, key)
    except attestation.UnattestedError as error:
        return Verified(of={}, checks=(Check(name="signature", wrong=(str(error),)),))
    if said.predicate_type != PREDICATE:
        wrong = (f"the statement is of {said.predicate_type!r}, not {PREDICATE}",)
        return Verified(of={}, checks=(Check(name="signature", wrong=wrong),))
    whole = Check(name="files", wrong=tuple(attestation.differing(said, digests(files))), told=f"{len(files)} files")
    checks = [Check(name="signature", wrong=()), whole]
    if not whole.wrong:
        looks: tuple[tuple[str, Callable[[Files, Mapping[str, Any]], Check]], ...] = (
            ("student", _student), ("gate", _gate), ("ledger", _ledger), ("rollouts", _rollouts),
        )  # fmt: skip
        checks += [_looked(name, look, files, said.predicate) for name, look in looks]
    return Verified(of=said.predicate, checks=tuple(checks))


def _looked(name: str, look: Callable[[Files, Mapping[str, Any]], Check], files: Files, of: Mapping[str, Any]) -> Check:
    """A look at signed files that are not what they should be is a finding, not a failure of the verification."""
    try:
        return look(files, of)
    except (CohobateError, msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        return Check(name=name, wrong=(f"cannot be read: {type(error).__name__}: {error}",))


def _student(files: Files, of: Mapping[str, Any]) -> Check:
    """The artifact is the one that was attested, and its card is the one that is shown; the windows are known."""
    wrong, artifact = [], files.get(STUDENT)
    if artifact is not None and digest_of(artifact) != of["student"]:
        wrong.append(f"{STUDENT} is another artifact than the statement names")
    if artifact is not None and card_of(artifact) != files[CARD]:
        wrong.append(f"{CARD} is not the card inside {STUDENT}")
    card = msgspec.json.decode(files[CARD])
    windows = msgspec.json.decode(files[WINDOWS]).values()
    known = {digest for window in windows for digest in (window["digest"], *window.get("replaces", ()))}
    wrong += [
        f"it learnt from snapshot {digest[:12]}, which no window is"
        for digest in card["snapshots"]
        if digest not in known
    ]
    told = f"{of['student'][:12]} of teacher {card['teacher']}, from {len(card['snapshots'])} snapshots"
    return Check(name="student", wrong=tuple(wrong), told=told)


def _gate(files: Files, of: Mapping[str, Any]) -> Check:
    """Each evaluation leads to its verdict again, byte for byte, and the registered verdict is one of them."""
    wrong, said = [], []
    for name in sorted(n for n in files if n.startswith("gate/")):
        lines = files[name].splitlines()
        done = judge.replay(lines)
        if msgspec.json.decode(lines[0])["digest"] != of["student"]:
            wrong.append(f"{name} is of another student")
        if not done.same:
            wrong.append(f"{name} leads to another verdict than the one that it holds")
        said.append(done.verdict.as_dict())
    registered = msgspec.json.decode(files[VERDICT])
    forced = bool(registered.pop("forced", False))
    if registered not in [msgspec.to_builtins(one) for one in said]:
        wrong.append("the registered verdict is none of those that the evidence leads to")
    told = f"{registered.get('decision')}{', forced' if forced else ''}; {len(said)} evaluations replayed"
    return Check(name="gate", wrong=tuple(wrong), told=told)


def _rows(files: Files) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in files[LEDGER].splitlines()]


def _ledger(files: Files, of: Mapping[str, Any]) -> Check:
    """The chain is whole from the first entry on, and the registration of this version stands in it."""
    wrong: list[str] = []
    rows = _rows(files)
    own = [row for row in rows if "action" in row]
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and (row["seq"], row["previous"]) != (before["seq"] + 1, before["hash"]):
            wrong.append(f"entry {row['seq']} does not follow the one before it")
    for row in own:
        if entry_hash(LedgerRow(**{name: row[name] for name in FIELDS})) != row["hash"]:
            wrong.append(f"entry {row['seq']} was changed after it was written")
    registrations = [row["detail"] for row in own if row["action"] == "register"]
    if (of["version"], of["student"]) not in [(d.get("version"), d.get("digest")) for d in registrations]:
        wrong.append(f"no entry registers version {of['version']} with this student")
    told = f"entries {rows[0]['seq']} to {rows[-1]['seq']}, {len(own)} of the workload" if rows else "empty"
    return Check(name="ledger", wrong=tuple(wrong), told=told)


def _rollouts(files: Files, of: Mapping[str, Any]) -> Check:
    """Each journal leads to the decisions that the ledger has, and is the file that the ledger names by its digest."""
    wrong, count = [], 0
    ledger: dict[str, dict[str, dict[str, Any]]] = {}
    """The entries of the version's rollouts: by the rollout, and then by the key of the decision."""
    for row in _rows(files):
        detail = row.get("detail", {})
        if detail.get("version") == of["version"] and "rollout" in detail:
            ledger.setdefault(detail["rollout"], {})[detail["key"]] = row
    since = successors(row["detail"] for row in _rows(files) if row.get("action") == ACTION)
    journals = {n.removeprefix("rollouts/").removesuffix(".jsonl"): n for n in files if n.startswith("rollouts/")}
    wrong += [f"{rollout}: its journal is missing" for rollout in sorted(ledger.keys() - journals.keys())]
    for rollout, name in sorted(journals.items()):
        decisions = replay.replay(files[name].splitlines()).decisions
        count += len(decisions)
        recorded = ledger.get(rollout, {})
        wrong += [f"{rollout}: {what}" for what in _unlike(rollout, decisions, recorded, files[name], since)]
    return Check(name="rollouts", wrong=tuple(wrong), told=f"{len(journals)} rollouts, {count} decisions replayed")


def _unlike(
    rollout: str, decisions: Sequence[Action], recorded: Mapping[str, dict[str, Any]], journal: bytes,
    since: Mapping[str, str],
) -> Iterator[str]:  # fmt: skip
    """What the decisions of a journal and the entries of the ledger do not have alike.

    ``since``: which digest a file has since ids in it were forgotten, by the one that it had.
    """
    decided = {f"{rollout}/{action.number}": action for action in decisions}
    for key in sorted(decided.keys() | recorded.keys()):
        action, row = decided.get(key), recorded.get(key)
        if row is None:
            yield f"decision {key} is not in the ledger"
        elif action is None:
            yield f"the journal does not lead to decision {key} ({row['action']})"
        elif (f"rollout {action.verb}", action.reason, action.actor) != (
            row["action"], row["detail"]["reason"], row["actor"],
        ):  # fmt: skip
            yield f"decision {key} is {action.verb}, and the ledger says {row['action']}"
    published = [row["detail"]["journal_sha256"] for row in recorded.values() if "journal_sha256" in row["detail"]]
    named = published[-1] if published else ""
    while named in since:
        named = since[named]
    if named and named != digest_of(journal):
        yield "its journal is not the one that the ledger names"
