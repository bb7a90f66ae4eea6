"""A bundle of a version that a controller judged, checked by a stranger, and everything that is tried on it."""

import json
import tarfile

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from typer.testing import CliRunner

from components.contracts import attestation
from components.contracts.attestation import signer, verifier
from components.contracts.errors import ConfigError, NotFoundError
from components.contracts.settings import Settings
from components.contracts.spec import Limits
from components.contracts.storage import files, get_bytes, put_bytes
from components.control.chain import entry_hash
from components.control.tables import LedgerRow, WindowRow
from components.evaluate.evidence import Answer, Evidence, Judgement, Row, encode
from components.evaluate.judge import demanded, judge
from components.forget.evidence import ID, Unnamed, files_unnamed, planned
from components.ledger.ledger import append
from components.steps import evidence_folder
from infra.evidence.archive import PREDICATE, digests, pack, unpack
from infra.evidence.command import app
from infra.evidence.verify import verify
from infra.evidence.write import write
from tests.keys import keys
from tests.serving.control.test_controller import W, begun, platform

__all__ = ["platform"]


@pytest.fixture
def judged(platform, tmp_path):
    """A version that was judged, registered, rolled out and taken back; entries of another workload lie between."""
    ref = platform.model("2")
    append(platform.store, "other", "eve", "register", {"version": "9"})
    window = WindowRow(
        digest="s" * 64, workload=W, number=1, uri=f"{platform.folder}/{W}/snapshots/a.parquet", rows=60,
        created_at=0.0, manifest={"teacher": "sign@1"},
    )  # fmt: skip
    platform.store.add_window(window)
    rows = tuple(
        Row(set="new", id=str(n), teacher=Answer(label="pos"), candidate=Answer(label="pos"), truth="pos")
        for n in range(60)
    )
    judgement = Judgement(workload=W, task="classification", digest=ref.digest, window=window.digest)
    limits = Limits(min_rows=20, confidence=0.9, min_agreement=0.8)
    evidence = demanded(Evidence(judgement=judgement, rows=rows), limits)
    verdict = judge(evidence)
    put_bytes(f"{evidence_folder(window)}/{ref.digest}.jsonl", encode(evidence, verdict))
    append(platform.store, W, "eve", "register", {"version": "2", "digest": ref.digest, "verdict": "promote"})
    begun(platform, forced=True, skip_shadow=True)
    info = platform.registry.infos["2"]
    said = msgspec.to_builtins({**verdict.as_dict(), "forced": True})
    platform.registry.infos["2"] = msgspec.structs.replace(info, verdict=said)
    append(platform.store, "other", "eve", "promote", {"version": "9"})
    platform.go(lambda: platform.active() is None, wrong=True)
    return platform


@pytest.fixture
def settings(platform, tmp_path):
    return Settings(home=tmp_path, artifact_root=platform.folder)


@pytest.fixture
def bundle(judged, settings, tmp_path):
    """The bundle's path, and the keys that it is signed by."""
    secret, public = keys(tmp_path)
    path = tmp_path / "b.tar"
    path.write_bytes(write(settings, judged.registry, judged.store, W, "2", signer(str(secret)), True))
    return path, secret, public


def findings(path, public):
    done = verify(path, verifier(public))
    return {check.name: check.wrong for check in done.checks if check.wrong}


def test_a_stranger_has_every_verdict_again(bundle):
    path, _, public = bundle
    done = verify(path, verifier(public))
    assert done.ok and [c.name for c in done.checks] == ["signature", "files", "student", "gate", "ledger", "rollouts"]
    assert (done.of["workload"], done.of["version"]) == (W, "2")
    told = {c.name: c.told for c in done.checks}
    assert told["gate"] == "promote, forced; 1 evaluations replayed" and told["rollouts"].startswith("1 rollouts, ")
    assert int(told["rollouts"].split()[2]) >= 2, "a start and a rollback"
    lines = [json.loads(line) for line in unpack(path)[1]["ledger.jsonl"].splitlines()]
    foreign = [line for line in lines if "action" not in line]
    assert foreign and all(set(line) == {"seq", "previous", "hash"} for line in foreign), "others' entries stay theirs"


def test_without_the_artifact_its_digest_is_there(judged, settings, tmp_path):
    secret, public = keys(tmp_path, made=generate_private_key(SECP256R1()))
    path = tmp_path / "b.tar"
    path.write_bytes(write(settings, judged.registry, judged.store, W, "2", signer(str(secret)), False))
    assert "student.onnx" not in unpack(path)[1] and verify(path, verifier(public)).ok


def test_what_was_forgotten_since_is_followed_by_the_digests_that_the_ledger_names(judged, settings, tmp_path):
    secret, public = keys(tmp_path)
    path = tmp_path / "b.tar"
    journals = [get_bytes(uri) for uri in files(f"{settings.artifacts}/{W}/rollouts/*.jsonl")]
    ids = {msgspec.json.decode(found) for data in journals for found in ID.findall(data)}
    unnamed = Unnamed({*sorted(ids)[:5], "7"}, "00" * 32)
    plan = planned(settings.artifacts, W, unnamed)
    assert {uri.rsplit("/", 2)[1] for uri in plan} >= {"rollouts", "s" * 64}, "a journal, and evidence of the gate"
    files_unnamed(plan, unnamed)
    with judged.store.transaction() as s:
        row = s.get_one(WindowRow, ("s" * 64, W))
        row.digest, row.manifest = "n" * 64, {**row.manifest, "replaces": ["s" * 64]}

    def found():
        path.write_bytes(write(settings, judged.registry, judged.store, W, "2", signer(str(secret)), True))
        return findings(path, public)

    (wrong,) = found()["rollouts"]
    assert "not the one that the ledger names" in wrong
    append(judged.store, W, "ada", "forget", {"files": dict(plan.values())})
    assert found() == {}


def edited(files, name, change):
    return {**files, name: change(files[name])}


def lines_of(data):
    return [json.loads(line) for line in data.splitlines()]


def joined(lines):
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def rewritten(data):
    """A ledger in which a reason was changed, with fresh hashes from there on."""
    lines = lines_of(data)
    at = next(n for n, line in enumerate(lines) if line.get("action") == "rollout rollback")
    lines[at]["detail"]["reason"] = "a person wanted it"
    for n in range(at, len(lines)):
        lines[n]["previous"] = lines[n - 1]["hash"]
        if "action" in lines[n]:
            lines[n]["hash"] = entry_hash(LedgerRow(**lines[n]))
    return joined(lines)


def the(prefix, files):
    return next(name for name in files if name.startswith(prefix))


def in_(prefix, change):
    """A change of the one file whose name begins so."""
    return lambda files: edited(files, the(prefix, files), change)


def without(prefix):
    return lambda files: {name: data for name, data in files.items() if not name.startswith(prefix)}


def put(old, new, most=-1):
    return lambda data: data.replace(old, new, most)


ANSWERS = (b'"pos"},"candidate":{"label":"pos"', b'"neg"},"candidate":{"label":"pos"')

TAMPERING = {
    "a byte of the artifact": (in_("student.onnx", lambda d: d[:-1] + bytes([d[-1] ^ 1])), "student"),
    "the card": (in_("card.json", put(b"sign@1", b"sign@2")), "student"),
    "an unknown snapshot": (in_("windows.json", put(b"s" * 64, b"t" * 64)), "student"),
    "a row of evidence": (in_("gate/", put(*ANSWERS, 1)), "gate"),
    "all rows of evidence": (in_("gate/", put(*ANSWERS)), "gate"),
    "the evidence's verdict": (in_("gate/", put(b'"promote"', b'"reject"')), "gate"),
    "evidence of another student": (in_("gate/", put(b'"digest":"', b'"digest":"0')), "gate"),
    "no evidence": (without("gate/"), "gate"),
    "the registered verdict": (in_("verdict.json", put(b'"promote"', b'"hold"')), "gate"),
    "an entry of the ledger": (in_("ledger.jsonl", put(b'"eve"', b'"bob"', 1)), "ledger"),
    "a missing entry": (in_("ledger.jsonl", lambda d: joined(lines_of(d)[:1] + lines_of(d)[2:])), "ledger"),
    "entries in another order": (in_("ledger.jsonl", lambda d: joined(lines_of(d)[::-1])), "ledger"),
    "a ledger with fresh hashes": (in_("ledger.jsonl", rewritten), "rollouts"),
    "no ledger": (in_("ledger.jsonl", lambda _: b""), "ledger"),
    "the end of the journal": (in_("rollouts/", lambda d: joined(lines_of(d)[:-1])), "rollouts"),
    "a look in the journal": (in_("rollouts/", lambda d: joined(lines_of(d)[:1] + lines_of(d)[2:])), "rollouts"),
    "no journal": (without("rollouts/"), "rollouts"),
    "what is no journal": (in_("rollouts/", lambda _: b"[]\n"), "rollouts"),
    "a journal of another name": (
        lambda files: {("rollouts/x.jsonl" if n.startswith("rollouts/") else n): d for n, d in files.items()},
        "rollouts",
    ),
    "what nobody put there": (lambda files: {**files, "rollouts/x.jsonl": b""}, "rollouts"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_what_was_changed_is_found_even_where_it_was_signed_again(bundle, tmp_path, what):
    """Without the key by the digests; by the holder of the key, who lies, by what the files say of each other."""
    path, secret, public = bundle
    change, where = TAMPERING[what]
    envelope, files = unpack(path)
    made = change(files)
    assert made != files
    path.write_bytes(pack(envelope, made))
    assert set(findings(path, public)) == {"files"}
    said = verify_statement(envelope, public)
    again = attestation.statement(PREDICATE, digests(made), said.predicate)
    path.write_bytes(pack(attestation.sign(again, signer(str(secret))), made))
    found = findings(path, public)
    assert where in found, found


def verify_statement(envelope, public):
    return attestation.verify(envelope, verifier(public))


def test_a_signature_of_another_or_of_something_else_is_none(bundle, tmp_path):
    path, secret, public = bundle
    _, stranger = keys(tmp_path, "stranger")
    assert findings(path, stranger) == {"signature": ("the given key did not sign it",)}
    _, files = unpack(path)
    for statement in (
        attestation.statement("urn:other", digests(files), {}),
        msgspec.structs.replace(attestation.statement(PREDICATE, digests(files), {}), type="urn:else"),
    ):
        path.write_bytes(pack(attestation.sign(statement, signer(str(secret))), files))
        assert set(findings(path, public)) == {"signature"}
    for envelope in (b"{", b"[]", b'{"payload": "", "payloadType": "", "signatures": []}'):
        path.write_bytes(pack(envelope, files))
        assert set(findings(path, public)) == {"signature"}


def test_an_entry_of_another_version_does_not_stand_for_this_one(bundle):
    path, secret, public = bundle
    envelope, files = unpack(path)
    predicate = {**verify_statement(envelope, public).predicate, "version": "3"}
    again = attestation.statement(PREDICATE, digests(files), predicate)
    path.write_bytes(pack(attestation.sign(again, signer(str(secret))), files))
    assert "ledger" in findings(path, public)


def test_what_is_no_bundle_is_an_error_and_no_verdict(bundle, tmp_path):
    path, _, public = bundle
    no = tmp_path / "no.tar"
    for data in (b"no tar", b""):
        no.write_bytes(data)
        with pytest.raises(ConfigError, match="bundle"):
            unpack(no)
    with tarfile.open(no, "w") as tar:
        folder = tarfile.TarInfo("x")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    with pytest.raises(ConfigError, match="plain files"):
        unpack(no)
    with pytest.raises(ConfigError, match="public key in PEM"):
        verifier(path)
    with pytest.raises(ConfigError, match="private key in PEM"):
        signer(str(public))
    with pytest.raises(ConfigError, match="--public-key"):
        signer("awskms:alias/x")


def test_the_command_says_what_holds_and_what_does_not(bundle):
    path, _, public = bundle
    run = CliRunner().invoke(app, ["verify", str(path), "--public-key", str(public)])
    assert run.exit_code == 0 and "ok      rollouts: 1 rollouts" in run.output
    envelope, files = unpack(path)
    path.write_bytes(pack(envelope, edited(files, "verdict.json", lambda d: d + b" ")))
    run = CliRunner().invoke(app, ["verify", str(path), "--public-key", str(public), "--json"])
    told = json.loads(run.output)
    assert run.exit_code == 1 and not told["ok"] and told["checks"][1]["wrong"] == ["verdict.json was changed"]


def test_a_version_that_is_not_there_is_said_to_be_so(judged, settings, tmp_path):
    secret, _ = keys(tmp_path)
    with pytest.raises(NotFoundError):
        write(settings, judged.registry, judged.store, W, "7", signer(str(secret)), True)
