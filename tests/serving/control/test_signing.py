"""What the controller, and a look at a version, find of verdicts, evidence and snapshots that were changed."""

import json

import msgspec
import pytest
from typer.testing import CliRunner

from components.contracts.errors import ConfigError, LedgerError, UntrustedError
from components.contracts.settings import Settings
from components.contracts.spec import Limits
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.chain import entry_hash
from components.control.tables import LedgerRow, WindowRow
from components.evaluate.evidence import Answer, Evidence, Judgement, Row, encode
from components.evaluate.judge import demanded, judge
from components.ledger import signatures
from components.ledger.anchor import head_of, verify_against
from components.ledger.keys import add, revoke
from components.ledger.ledger import append, entries, verify
from components.steps import evidence_of
from infra import keys as command
from infra.signing import check, sign
from serving.replica.admission import Admission
from tests.keys import keys
from tests.serving.control.test_controller import W, platform
from tests.serving.replica.test_admission import changed_card

__all__ = ["platform"]


@pytest.fixture
def settings(platform, tmp_path):
    """Those of a platform that signs, and uses nothing unsigned."""
    secret, public = keys(tmp_path)
    add(platform.store, "ana", public.read_bytes(), name="own", reason="a test")
    return Settings(
        home=tmp_path, artifact_root=platform.folder, artifact_signing_key=str(secret), artifact_policy="signed",
        actor="ana",
    )  # fmt: skip


@pytest.fixture
def judged(platform, settings):
    """The controller under the policy; versions that were judged on a snapshot, registered and signed."""
    data = b"a snapshot"
    window = WindowRow(
        digest=digest_of(data), workload=W, number=1, uri=f"{platform.folder}/{W}/snapshots/{digest_of(data)}.parquet",
        rows=60, created_at=0.0, manifest={"teacher": "sign@1"},
    )  # fmt: skip
    put_bytes(window.uri, data)
    platform.store.add_window(window)
    admission = Admission(platform.spec, platform.store, "signed")
    platform.controller.vouch = admission.vouch

    def make(version, wrong=0):
        ref = platform.registry.add(msgspec.structs.replace(platform.model(version), snapshot=window.digest))
        rows = tuple(
            Row(
                set="new", id=str(n), teacher=Answer(label="pos"), candidate=Answer(label="neg" if n < wrong else "pos")
            )
            for n in range(60)
        )
        judgement = Judgement(workload=W, task="classification", digest=ref.digest, window=window.digest)
        evidence = demanded(Evidence(judgement=judgement, rows=rows), Limits(min_rows=20, min_agreement=0.8))
        verdict = judge(evidence)
        put_bytes(evidence_of(window, ref.digest), encode(evidence, verdict))
        info = platform.registry.infos[version]
        said = msgspec.to_builtins(verdict.as_dict())
        platform.registry.infos[version] = msgspec.structs.replace(info, verdict=said, snapshots=(window.digest,))
        detail = {"version": version, "digest": ref.digest, "verdict": verdict.decision}
        append(platform.store, W, "ana", "register", detail)
        sign(settings, platform.registry, platform.store, W, version, "looked at")
        return ref

    make.window = window
    return make


def starts_refused(platform):
    return [e.detail["why"] for e in entries(platform.store, W) if e.action == "refused start"]


def test_a_signed_version_starts_and_all_that_belongs_to_it_holds(platform, settings, judged):
    judged("1")
    platform.registry.set_alias(W, "candidate", "1")
    platform.tick()
    assert platform.intent.champion.version == "1" and starts_refused(platform) == []
    found = check(settings, platform.registry, platform.store, W, "1")
    assert set(found) == {"ledger", "registration", "student", "snapshot 1", "evidence 1"}
    assert not any(found.values())
    (signed,) = [e for e in entries(platform.store, W) if e.action == "sign"]
    assert signed.detail["snapshots"] == [judged.window.digest] and signed.detail["reason"] == "looked at"


def test_of_a_snapshot_that_lost_rows_the_successor_is_signed_and_checked(platform, settings, judged):
    """The version goes on naming the digest that it had read."""
    ref, before, data = judged("1"), judged.window, b"a snapshot without somebody"
    uri = f"{platform.folder}/{W}/snapshots/{digest_of(data)}.parquet"
    put_bytes(uri, data)
    with platform.store.transaction() as s:
        row = s.get_one(WindowRow, (before.digest, W))
        row.manifest = {**row.manifest, "replaces": [before.digest]}
        row.digest, row.uri = digest_of(data), uri
    found = check(settings, platform.registry, platform.store, W, "1")
    assert {name for name, wrong in found.items() if wrong} == {"snapshot 1"}, "nobody has signed it yet"
    done = sign(settings, platform.registry, platform.store, W, "1", "somebody was forgotten")
    assert done["snapshots"] == [digest_of(data)]
    assert not any(check(settings, platform.registry, platform.store, W, "1").values())
    said = signatures.student(platform.store, W, ref).predicate["buildDefinition"]["resolvedDependencies"]
    assert {d["name"]: d.get("uri") for d in said}["snapshot 0"] == uri


def test_a_version_without_a_verdict_is_signed_as_one(platform, settings, judged):
    ref = judged("1")
    platform.registry.infos["1"] = msgspec.structs.replace(platform.registry.infos["1"], verdict={})
    sign(settings, platform.registry, platform.store, W, "1", "it was never judged")
    assert signatures.judged_of(signatures.vouched(platform.store, W, ref, None)).decision is None


def test_a_verdict_that_was_changed_in_the_registry_starts_nothing(platform, settings, judged):
    judged("1")
    platform.crown("1")
    judged("2", wrong=40)
    info = platform.registry.infos["2"]
    assert info.verdict["decision"] == "reject"
    platform.registry.infos["2"] = msgspec.structs.replace(info, verdict={**info.verdict, "decision": "promote"})
    platform.registry.set_alias(W, "candidate", "2")
    platform.tick()
    assert platform.active() is None and platform.intent.champion.version == "1"
    (why,) = starts_refused(platform)
    assert "is signed with the verdict 'reject'; the registry says 'promote'" in why
    found = check(settings, platform.registry, platform.store, W, "2")
    assert {name for name, wrong in found.items() if wrong} == {"registration", "student"}


def test_evidence_that_was_edited_starts_nothing_and_is_found(platform, settings, judged):
    judged("1")
    platform.crown("1")
    ref = judged("2")
    uri = evidence_of(judged.window, ref.digest)
    put_bytes(uri, get_bytes(uri).replace(b'"id":"3"', b'"id":"4"', 1))
    platform.registry.set_alias(W, "candidate", "2")
    platform.tick()
    (why,) = starts_refused(platform)
    assert platform.active() is None and "not the evidence that the student was signed with" in why
    found = check(settings, platform.registry, platform.store, W, "2")
    assert {name for name, wrong in found.items() if wrong} == {"student", "evidence 1"}
    codes = {
        e.detail["artifact"]: e.detail["code"] for e in entries(platform.store, W) if e.action == signatures.REFUSED
    }
    assert codes == {"student": "other_evidence", "evidence 1": "other_subject"}


def test_a_replaced_snapshot_is_found_whether_or_not_its_row_was_fitted(platform, settings, judged):
    judged("1")
    put_bytes(judged.window.uri, b"another snapshot")
    found = check(settings, platform.registry, platform.store, W, "1")
    assert [name for name, wrong in found.items() if wrong] == ["snapshot 1"] and "digest" in found["snapshot 1"]
    named = [(judged.window.uri, digest_of(b"another snapshot"))]
    with pytest.raises(UntrustedError, match="of another file") as raised:
        signatures.require(settings, platform.store, W, named, signatures.SNAPSHOT)
    assert raised.value.reason == "other_subject"
    of = [e.detail for e in entries(platform.store, W) if e.action == signatures.REFUSED]
    assert [(d["code"], d.get("artifact")) for d in of] == [("ArtifactError", "snapshot 1"), ("other_subject", None)]
    with pytest.raises(UntrustedError):
        signatures.require(settings, platform.store, W, named, signatures.SNAPSHOT)
    assert len([e for e in entries(platform.store, W) if e.action == signatures.REFUSED]) == 2, "each is told once"


def test_a_registration_of_another_student_and_a_ledger_with_fresh_hashes_are_found(platform, settings, judged):
    judged("1")
    anchor = head_of(platform.store)
    with platform.store.transaction() as s:
        rows = list(s.query(LedgerRow).order_by(LedgerRow.seq))
        first = next(n for n, row in enumerate(rows) if row.action == "register")
        rows[first].detail = {**rows[first].detail, "digest": "f" * 64}
        for before, row in zip([None, *rows], rows, strict=False):
            row.previous = before.hash if before is not None else row.previous
            row.hash = entry_hash(row)
    assert verify(platform.store) == len(rows), "the hashes are fresh"
    with pytest.raises(LedgerError, match="rewritten"):
        verify_against(platform.store, anchor)
    found = check(settings, platform.registry, platform.store, W, "1")
    assert [name for name, wrong in found.items() if wrong] == ["registration"]


def test_nothing_is_signed_that_is_not_what_it_was(platform, settings, judged):
    ref = judged("1")
    uri = evidence_of(judged.window, ref.digest)
    put_bytes(uri, get_bytes(uri).replace(b'"candidate":{"label":"pos"', b'"candidate":{"label":"neg"', 40))
    with pytest.raises(ConfigError, match="another verdict than the one that it holds"):
        sign(settings, platform.registry, platform.store, W, "1", "again")


def test_whose_signature_does_not_count_signs_nothing(platform, settings, judged):
    judged("1")
    (key,) = [e.detail["key"] for e in entries(platform.store, "*")]
    revoke(platform.store, "ana", key, "lost")
    with pytest.raises(ConfigError, match="is revoked"):
        sign(settings, platform.registry, platform.store, W, "1", "again")
    with pytest.raises(ConfigError, match="name the signing key"):
        signatures.wanted(settings.model_copy(update={"artifact_signing_key": ""}))
    assert signatures.wanted(Settings()) is False


def test_the_command_exits_1_where_something_does_not_hold(platform, settings, judged, monkeypatch, capsys):
    judged("1")
    monkeypatch.setattr("components.control.store.ControlStore.open", lambda url: platform.store)
    monkeypatch.setattr("components.registry.registry.Registry", lambda settings: platform.registry)
    done = CliRunner().invoke(command.app, ["check", "1", "--workload", W, "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["ok"]
    put_bytes(judged.window.uri, b"another snapshot")
    done = CliRunner().invoke(command.app, ["check", "1", "--workload", W, "--json"])
    assert done.exit_code == 1 and not json.loads(done.stdout)["ok"]


def test_signed_anew_a_provenance_names_what_the_lineage_began_with(platform, settings, judged):
    ref = judged("1")
    data = changed_card(get_bytes(ref.uri), start={"digest": "5" * 64, "federation": "banks", "round": 2})
    put_bytes(ref.uri, data)
    ref = msgspec.structs.replace(ref, digest=digest_of(data))
    platform.registry.infos["1"] = msgspec.structs.replace(platform.registry.infos["1"], ref=ref)
    sign(settings, platform.registry, platform.store, W, "1", "rotation")
    said = signatures.student(platform.store, W, ref).predicate["buildDefinition"]["resolvedDependencies"]
    (start,) = [d for d in said if d["name"] == "start"]
    assert start["digest"] == {"sha256": "5" * 64} and start["annotations"] == {"federation": "banks", "round": 2}
