"""Students that are not signed as the policy asks are refused with a code and an entry, and traffic does not notice."""

import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from sqlalchemy import update

from components.contracts import attestation
from components.contracts.settings import Settings
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.tables import LedgerRow
from components.ledger import signatures
from components.ledger.keys import add, revoke
from components.ledger.ledger import entries, verify
from components.registry import provenance
from serving.gateway.app import Gateway, create_app
from serving.gateway.telemetry import Telemetry
from serving.replica.admission import Admission
from serving.replica.loaded_versions import LoadedVersions
from tests.keys import keys as key_files
from tests.serving.replica.test_admission import changed_card
from tests.serving.running import Running

W = "signs"


@pytest.fixture
def trust(store, registry, model, tmp_path):
    """Versions with their signatures: ``signed("2")``, ``signed("2", by=...)``; and keys to sign with."""

    def key(name, days=None, workloads=(), known=True):
        secret, public = key_files(tmp_path, name)
        made = attestation.signer(str(secret)).public_key.keyid
        if known:
            add(store, "ana", public.read_bytes(), name=name, reason="a test", days=days, workloads=workloads)
        return SimpleNamespace(settings=Settings(artifact_signing_key=str(secret), actor="ana"), id=made, secret=secret)

    def sign(ref, by, **changed):
        info = msgspec.structs.replace(registry.info(W, ref.version), ref=ref)
        made = provenance.of_version(by.settings, store, changed.pop("workload", W), info, {})
        provenance.sign(by.settings, store, made)
        return ref

    own = key("own")
    return SimpleNamespace(
        key=key, own=own, sign=sign, model=model, store=store, signed=lambda v, by=own, **o: sign(model(v), by, **o)
    )


def envelope(ref):
    return Path(ref.uri.removeprefix("file://") + signatures.SUFFIX)


def edited(ref, change):
    found = json.loads(envelope(ref).read_bytes())
    change(found)
    envelope(ref).write_text(json.dumps(found))
    return ref


def other_bytes(ref, change):
    """Other bytes at the same place, and a reference that says so."""
    data = change(get_bytes(ref.uri))
    put_bytes(ref.uri, data)
    return msgspec.structs.replace(ref, digest=digest_of(data))


def flipped(data):
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]


def in_place_of(ref, other):
    """What lies at ``ref``, with the signature of another."""
    shutil.copy(envelope(other), envelope(ref))
    return ref


def bytes_flipped(trust, v):
    ref = trust.signed(v)
    put_bytes(ref.uri, flipped(get_bytes(ref.uri)))
    return ref


def as_if_by_a_known_key(trust, v):
    ref = trust.signed(v, by=trust.key(f"stranger{v}", known=False))
    return edited(ref, lambda e: e["signatures"][0].update(keyid=trust.own.id))


def expired(trust, v):
    clock, trust.store.clock = trust.store.clock, lambda: time.time() - 10 * 86_400
    by = trust.key(f"short{v}", days=1)
    ref = trust.signed(v, by=by)
    trust.store.clock = clock
    return ref


def revoked(trust, v):
    by = trust.key(f"lost{v}")
    ref = trust.signed(v, by=by)
    revoke(trust.store, "ana", by.id, "lost")
    return ref


def other_payload(trust, v):
    from base64 import b64decode, b64encode

    def change(e):
        said = json.loads(b64decode(e["payload"]))
        said["predicate"]["runDetails"]["builder"]["id"] = "urn:somebody"
        e["payload"] = b64encode(json.dumps(said).encode()).decode()

    return edited(trust.signed(v), change)


def replayed(trust, v):
    """An old student with its own good signature, as if it were a new version."""
    old = trust.signed(f"{v}0")
    return msgspec.structs.replace(old, version=v)


def of_another_kind(trust, v):
    ref = trust.model(v)
    said = {"workload": W, "student": ref.digest, "window": "", "decision": "promote"}
    signatures.sign(trust.own.settings, trust.store, ref.uri, {"a": ref.digest}, signatures.EVALUATION, said)
    return ref


def no_envelope(trust, v):
    ref = trust.signed(v)
    envelope(ref).write_bytes(b"\x00 not an envelope")
    return ref


ATTEMPTS = {
    "no signature": (lambda t, v: t.model(v), "unsigned"),
    "no envelope": (no_envelope, "unsigned"),
    "signature taken out of the envelope": (
        lambda t, v: edited(t.signed(v), lambda e: e["signatures"].clear()), "unsigned",
    ),
    "bytes flipped": (bytes_flipped, "ArtifactError"),
    "bytes flipped, and the digest fitted": (lambda t, v: other_bytes(t.signed(v), flipped), "other_subject"),
    "card swapped, and the digest fitted": (
        lambda t, v: other_bytes(t.signed(v), lambda d: changed_card(d, code="9.9")), "other_subject",
    ),
    "signature of another version": (lambda t, v: in_place_of(t.model(v), t.signed(f"{v}1")), "other_subject"),
    "signed by another": (lambda t, v: t.signed(v, by=t.key(f"other{v}", known=False)), "foreign_key"),
    "signed by another in a known key's name": (as_if_by_a_known_key, "forged"),
    "statement edited": (other_payload, "forged"),
    "expired key": (expired, "expired_key"),
    "revoked key": (revoked, "revoked_key"),
    "key of another workload": (lambda t, v: t.signed(v, by=t.key(f"mail{v}", workloads=("mail",))), "foreign_key"),
    "signed for another workload": (lambda t, v: t.signed(v, workload="mail"), "other_workload"),
    "replayed old champion": (replayed, "other_version"),
    "an evaluation's signature": (of_another_kind, "other_kind"),
}  # fmt: skip


class Traffic:
    """Requests, one after the other, from a thread of their own."""

    def __init__(self, running):
        self._running, self._stop = running, threading.Event()
        self.statuses = []
        self._thread = threading.Thread(target=self._ask)

    def _ask(self):
        while not self._stop.is_set():
            said = self._running.call("POST", "/v1/predict", json={"json": {"x": 3}})
            found = said.json().get("predictions") or [said.json()]
            self.statuses.append((said.status_code, found[0].get("model_version")))
            time.sleep(0.005)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def until(condition):
    deadline = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def replica(spec, store, broker, trust):
    """A replica under the policy, with a signed champion, and ``route(...)`` that writes the intent."""
    versions = LoadedVersions(spec, store, "r1", trial=Admission(spec, store, "signed"))
    telemetry = Telemetry(spec, lambda: broker)
    running = Running.__new__(Running)
    running.app, running.spec = create_app(Gateway(spec, versions, telemetry)), spec

    def route(**fields):
        revision, intent = store.intent(W)
        intent = msgspec.structs.replace(intent, lease_until=time.time() + 600, **fields)
        return store.put_intent(W, revision, intent)

    versions.start()
    route(champion=trust.signed("1"))
    until(lambda: versions.routing.champion is not None)
    yield SimpleNamespace(versions=versions, running=running, route=route)
    versions.stop()


def test_every_attempt_is_refused_and_recorded_while_the_champion_goes_on_answering(replica, store, trust):
    table = []
    with Traffic(replica.running) as traffic:
        for number, (name, (attempt, code)) in enumerate(ATTEMPTS.items(), start=2):
            ref = attempt(trust, str(number))
            replica.route(candidate=ref, weight=0.5)
            until(lambda: ref.digest in replica.versions.failed)  # noqa: B023
            answered = len(traffic.statuses)
            until(lambda: len(traffic.statuses) >= answered + 5)  # noqa: B023
            assert replica.versions.routing.candidate is None, name
            of = [e for e in entries(store, W) if e.action == signatures.REFUSED and e.detail["version"] == ref.version]
            assert [e.detail["code"] for e in of] == [code], name
            assert of[0].detail["digest"] == ref.digest and of[0].actor == "replica"
            table.append((name, code, of[0].seq))
        good = trust.signed("99")
        replica.route(candidate=good, weight=0.5)
        until(lambda: replica.versions.routing.candidate is not None)
        until(lambda: "99" in [version for _, version in traffic.statuses[-50:]])
    assert {status for status, _ in traffic.statuses} == {200}
    assert {version for _, version in traffic.statuses} == {"1", "99"}
    assert verify(store) > len(ATTEMPTS)
    print(*(f"{name}: {code}, ledger entry {seq}" for name, code, seq in table), sep="\n")


def test_a_revoked_key_stops_no_champion_that_serves_and_lets_none_in(replica, store, spec, trust):
    with Traffic(replica.running) as traffic:
        until(lambda: len(traffic.statuses) >= 3)
        revoke(store, "ana", trust.own.id, "lost")
        revision = replica.route(previous=None)
        until(lambda: replica.versions.routing.revision == revision)
        before = len(traffic.statuses)
        until(lambda: len(traffic.statuses) >= before + 5)
    assert set(traffic.statuses) == {(200, "1")}
    fresh = LoadedVersions(spec, store, "r2", trial=Admission(spec, store, "signed"))
    fresh.start()
    until(lambda: fresh.failed)
    assert "revoked" in next(iter(fresh.failed.values())) and fresh.routing.champion is None
    fresh.stop()
    anew = trust.key("new")
    trust.sign(store.intent(W)[1].champion, anew)
    again = LoadedVersions(spec, store, "r3", trial=Admission(spec, store, "signed"))
    again.start()
    until(lambda: again.routing.champion is not None)
    again.stop()


def test_a_key_whose_entry_was_edited_counts_for_nothing(store, spec, trust):
    ref = trust.signed("1")
    with store.transaction() as s:
        row = s.get(LedgerRow, 1)
        s.execute(update(LedgerRow).where(LedgerRow.seq == 1).values(detail={**row.detail, "workloads": [W]}))
    versions = LoadedVersions(spec, store, "r1", trial=Admission(spec, store, "signed"))
    store.put_intent(W, 0, msgspec.structs.replace(store.intent(W)[1], champion=ref))
    versions.start()
    until(lambda: versions.failed)
    versions.stop()
    (refused,) = [e for e in entries(store, W) if e.action == signatures.REFUSED]
    assert refused.detail["code"] == "LedgerError" and "entry 1" in refused.detail["why"]


def test_without_the_policy_nothing_is_asked_of_a_signature(store, spec, model):
    Admission(spec, store)(model("1"), spec.source)
