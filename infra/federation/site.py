"""A site's part in a round: its student answers the public inputs, and what that tells of its own rows is accounted.

Whatever is computed from weights that were learnt in private tells no more than they do (post-processing), so that the
answers of one student cost nothing beyond its account, however many inputs and rounds they are of. Of several students
the accounts add up: those of one lineage share what their ancestors spent. The ledger has what was published, and the
sum stays within ``student.privacy.epsilon``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.contracts.errors import ConfigError
from components.contracts.payload import decoder
from components.contracts.settings import Settings
from components.contracts.spec import Privacy, Spec
from components.contracts.spec.declared import check_training
from components.contracts.spec.privacy import FIELD
from components.contracts.storage import get_bytes
from components.control.store import ControlStore
from components.control.tables import LedgerRow
from components.federation import exchange
from components.federation.exchange import Said
from components.label.history_file import read_history
from components.ledger import signatures
from components.ledger.ledger import append_if
from components.student.card import Account, StudentCard
from components.student.runtime import Student
from infra.federation import masked

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from components.registry.registry import Registry, VersionInfo

ACTION = "federate answer"
"""The ledger's action of answers that were made to be handed on."""

GIVEN = "federate give"
"""The ledger's action of a student that was made to be handed on with its weights, which tell what answers do."""

Spent = tuple[float, float, int]
"""As in :mod:`components.distill.account`."""


def public_inputs(spec: Spec, uri: str) -> dict[str, Any]:
    """The decoded payloads of a public set (a history's file) by their ids.

    Raises:
        ConfigError: it has no entries, one that cannot be read, or a decoder whose payloads have no id.
        RecordError: a payload cannot be decoded.

    """
    decode = decoder(spec.payload, spec.source)
    decoded = [decode(entry.input.payload) for entry in read_history(uri, spec)]
    return {exchange.row_id(one): one for one in decoded}


def answer(
    settings: Settings,
    registry: Registry,
    store: ControlStore,
    spec: Spec,
    version: str,
    *,
    public: str,
    federation: str,
    site: str,
    number: int,
    by: Signer,
    classes: Sequence[str] = (),
    under: masked.Round | None = None,
) -> bytes:
    """The file of a site's answers to the public inputs at ``public`` in a federation's round, by a registered version.

    ``classes``: those that the site answers for; empty: all that the student knows, those included that it has from the
    student of an earlier round, or that its teacher named by mistake. ``under``: the round whose answers are summed
    under masks; None: they are handed on as they are.

    Asked again it answers the same, and spends and records nothing more; the file is the same where the signatures of
    the key are (Ed25519).

    1. See that the version may answer: terms, signature, task, and where the spec asks for privacy, its account.
    2. Answer.
    3. Record in the ledger what that publishes, unless it would pass the spec's epsilon; only then hand it out.

    Raises:
        ConfigError: terms forbid it, it is no classification, or it would tell more than ``student.privacy`` allows;
            under masks as :func:`infra.federation.masked.answers`, or it answered under others before.
        NotFoundError: there is no such version.
        UntrustedError: the policy asks for signatures, and the version's does not count.

    """
    # Step 1
    check_training(spec, settings.licence_policy)
    info = registry.info(spec.name, version)
    signatures.require(settings, store, spec.name, [(info.ref.uri, info.ref.digest)], signatures.PROVENANCE)
    model = get_bytes(info.ref.uri, info.ref.digest)
    student = Student.load(model, source=spec.source)
    if student.card.task != "classification":
        raise ConfigError("task", student.card.task, "cannot be federated: mixtures are of class probabilities")
    account = promised(spec, student.card, model)
    lineage = ancestors(registry, spec.name, info)
    # Step 2
    inputs = public_inputs(spec, public)
    ids = sorted(inputs)
    soft = student.predict_decoded([inputs[i] for i in ids])
    known = answered_for(student.card.classes, classes)
    said = Said(
        federation=federation, site=site, round=number, space=student.card.space, classes=known,
        public=exchange.set_digest(ids), student=info.ref.digest, privacy=told_of(account),
    )  # fmt: skip
    by_id = {i: s.distribution for i, s in zip(ids, soft, strict=True)}
    by_id = exchange.limited(by_id, known) if classes else by_id
    peers: dict[str, str] = {}
    if under is None:
        made = exchange.write(said, by_id, by)
    else:
        made, peers = masked.answers(under, said, by_id, by)
    # Step 3
    detail = {
        "federation": federation, "site": site, "round": number, "public": said.public, "rows": len(ids),
        "student": info.ref.digest, "version": info.version, "statement": made.statement,
        "privacy": told_of(account), **({"peers": peers} if peers else {}),
        **({"classes": list(known)} if classes else {}),
    }  # fmt: skip
    again = ("federation", "site", "round", "public", "student", "peers", "classes")
    record(settings, store, spec, ACTION, detail, account, lineage, again=again)
    return made.data


def answered_for(known: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The classes of a student that its site answers for, in the student's order.

    Raises:
        ConfigError: it knows none of those that are wanted.

    """
    found = tuple(name for name in known if not wanted or name in wanted)
    if not found:
        raise ConfigError("classes", list(wanted), f"are none that the student knows: {', '.join(known)}")
    return found


def record(
    settings: Settings,
    store: ControlStore,
    spec: Spec,
    action: str,
    detail: dict[str, Any],
    account: Account | None,
    lineage: Sequence[str],
    again: Sequence[str],
) -> None:
    """Put into the ledger what is published, and in private what it spends; once for equal values of ``again``.

    Raises:
        ConfigError: as :func:`spending`, also where it was published before: the spec may ask for more by now.

    """

    def decide(rows: Sequence[LedgerRow]) -> dict[str, Any] | None:
        if "peers" in detail:
            masked.once(detail, [row.detail for row in rows if row.action == ACTION])
        mine = [row for row in rows if row.workload == spec.name]
        before = [row.detail for row in mine if row.action in (ACTION, GIVEN)]
        known = any(row.action == action and all(row.detail.get(n) == detail.get(n) for n in again) for row in mine)
        told: dict[str, Any] = {}
        if spec.student.privacy is not None and account is not None:
            told = spending(spec.student.privacy, account, detail["student"], lineage, before)
        return None if known else {**detail, **told}

    append_if(store, spec.name, settings.actor, action, decide, everybodys=(ACTION,) if "peers" in detail else ())


def promised(spec: Spec, card: StudentCard, model: bytes) -> Account | None:
    """The account of a student (``model``: its artifact) that is to be published; None where there is none to ask for.

    Raises:
        ConfigError: the spec asks for one, and the student has none, of a unit that protects less, or was made with
            the help of rows that the account does not count.

    """
    from components.distill.export import temperature_of

    privacy = spec.student.privacy
    if privacy is None:
        return card.privacy
    if card.privacy is None:
        raise ConfigError(FIELD, privacy.epsilon, "promises nothing of a student that was trained without it")
    if card.privacy.unit != privacy.unit == "key":
        raise ConfigError(f"{FIELD}.unit", privacy.unit, f"protects more than one {card.privacy.unit} of the student's")
    if spec.student.calibration_share:
        remedy = "fits the temperature of the answers on rows that the account does not count: write 0, and train anew"
        raise ConfigError("student.calibration_share", spec.student.calibration_share, remedy)
    if card.task == "classification" and (found := temperature_of(model)) != 1.0:
        remedy = f"was not 0 when the student was made: its answers have the temperature {found}; train anew"
        raise ConfigError("student.calibration_share", spec.student.calibration_share, remedy)
    if card.precision != "float32":
        remedy = "export has ranges of rows that the account does not count: write serve: float32, and train anew"
        raise ConfigError("student.export.serve", card.precision, remedy)
    return card.privacy


def ancestors(registry: Registry, workload: str, info: VersionInfo) -> tuple[str, ...]:
    """The digests of the students that a version was started from, the nearest first."""
    found: list[str] = []
    seen, parent = {info.version}, info.parent
    while parent is not None and parent not in seen:
        seen.add(parent)
        before = registry.info(workload, parent)
        found.append(before.ref.digest)
        parent = before.parent
    return tuple(found)


def spending(
    privacy: Privacy, account: Account, digest: str, lineage: Sequence[str], before: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the ledger has of a publication: what it ``spent`` beyond those ``before``, and the site's ``epsilon`` then.

    Raises:
        ConfigError: the site would have told more than the spec allows, or has told what no account counts.

    """
    from components.distill.account import epsilon_of

    for d in before:
        told = d.get("privacy")
        if told is None or "history" not in d or told["unit"] != privacy.unit == "key":
            kept = f"with an account of one {told['unit']}" if told is not None else "without an account"
            if told is not None and "history" not in d:
                kept = "by a spec without privacy"
            allowed = (
                f"promises nothing of a site whose version {d['version']} was published {kept} in round {d['round']}: "
                "federate a workload of another name, of rows that were not learnt from then"
            )
            raise ConfigError(FIELD, privacy.epsilon, allowed)
    known = {d["student"]: _history(d["history"]) for d in before if "history" in d}
    nearest = next((known[name] for name in (digest, *lineage) if name in known), ())
    spent = beyond(account.history, nearest)
    already = [step for d in before for step in _history(d.get("spent", ()))]
    epsilon = epsilon_of((*already, *spent), privacy.delta)
    if not epsilon <= privacy.epsilon:
        allowed = (
            f"would be exceeded: the site's answers have spent {epsilon_of(already, privacy.delta):.3f} by now, and "
            f"with this student's it would be {epsilon:.3f}: let a student answer that answered before, or allow more"
        )
        raise ConfigError(f"{FIELD}.epsilon", privacy.epsilon, allowed)
    return {"history": list(map(list, account.history)), "spent": list(map(list, spent)), "epsilon": epsilon}


def beyond(history: Sequence[Spent], before: Sequence[Spent]) -> tuple[Spent, ...]:
    """What a history has on top of another that it begins with; all of it where it does not begin so.

    >>> beyond([(1.0, 0.1, 8), (2.0, 0.1, 3)], [(1.0, 0.1, 5)])
    ((1.0, 0.1, 3), (2.0, 0.1, 3))
    >>> beyond([(1.0, 0.1, 8)], [(2.0, 0.1, 3)])
    ((1.0, 0.1, 8),)
    """
    left = list(history)
    for noise, rate, steps in before:
        if not left or left[0][:2] != (noise, rate) or left[0][2] < steps:
            return tuple(history)
        rest = left.pop(0)[2] - steps
        if rest:
            left.insert(0, (noise, rate, rest))
    return tuple(left)


def _history(found: Sequence[Sequence[Any]]) -> tuple[Spent, ...]:
    return tuple((float(noise), float(rate), int(steps)) for noise, rate, steps in found)


def told_of(account: Account | None) -> dict[str, Any] | None:
    """What is told of an account."""
    return None if account is None else {"epsilon": account.epsilon, "delta": account.delta, "unit": account.unit}
