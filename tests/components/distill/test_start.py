"""A fresh student that begins from the artifact that the spec names, by the pipeline's own step."""

from types import SimpleNamespace

import msgspec
import pytest
import yaml

from components.contracts.attestation import signer, verifier
from components.contracts.errors import ArtifactError, ConfigError, UntrustedError
from components.contracts.settings import Settings
from components.contracts.spec import Begin, Variant, load_spec
from components.contracts.spec.declared import Data, Terms
from components.contracts.storage import get_bytes
from components.control import forgettings
from components.control.intent import Intent, ModelRef
from components.control.tables import WindowRow
from components.distill.step import distil
from components.distill.train import distill
from components.federation.given import Given, read, write
from components.ledger import signatures, starts
from components.ledger.keys import add, revoke
from components.ledger.ledger import entries
from components.ledger.starts import leave, scope
from components.registry import provenance
from components.registry.provenance import of_candidate
from components.snapshot.step import sign as sign_snapshot
from components.student.card import Begun
from components.student.runtime import Student
from tests.keys import keys
from tests.stores import migrated


@pytest.fixture(scope="module")
def given(letter_spec, letters, freeze_rows, tmp_path_factory):
    """A student of another platform, which knows four classes."""
    folder = f"file://{tmp_path_factory.mktemp('other')}"
    window = freeze_rows(letter_spec, letters("abcd", 40), folder, 1)
    theirs = msgspec.structs.replace(letter_spec, data=Data(licence=Terms(attribution="Labels by Ana")))
    return distill(
        theirs, [window], variant=Variant(name="tiny", dim=8, hidden=16), parent=None, artifacts=folder, seed=0
    )


@pytest.fixture
def home(letter_spec, letters, freeze_rows, tmp_path, monkeypatch):
    """A site whose only window has two classes."""
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    store = migrated(Settings().control_url)
    with store.transaction() as s:
        window: WindowRow = freeze_rows(letter_spec, letters("ab", 30, seed=5), Settings().artifacts, 1)
        s.add(window)
    yield store
    store.close()


def written(letter_spec, tmp_path, **start):
    spec = msgspec.structs.replace(letter_spec, student=msgspec.structs.replace(letter_spec.student, epochs=1))
    content = {k: v for k, v in msgspec.to_builtins(spec).items() if k not in ("source", "features")}
    content["features"] = {"factory": spec.features.factory, "options": spec.features.options}
    content["student"] |= {"start": start} if start else {}
    (tmp_path / "letters.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "letters.yaml")


def test_it_knows_from_the_first_what_only_others_have_taught(home, letter_spec, letters, given, tmp_path):
    path = written(letter_spec, tmp_path, uri=given.uri, digest=given.digest)
    made = distil(path, "", True, "nothing")
    assert made.card.parent is None and set(made.card.classes) == set("abcd")
    assert made.card.attribution == ("Labels by Ana",)
    student = Student.load(get_bytes(made.uri, made.digest))
    unseen = letters("cd", 20, seed=8)
    said = student.predict([payload for payload, _, _ in unseen])
    assert sum(s.label == truth for s, (_, _, truth) in zip(said, unseen, strict=True)) > 30
    alone = distil(written(letter_spec, tmp_path), "", True, "nothing")
    assert set(alone.card.classes) == set("ab")


@pytest.mark.parametrize("serving", [None, "new"])
def test_after_a_forgetting_it_is_left_aside_whoever_serves(home, letter_spec, given, tmp_path, serving):
    order = forgettings.open_order(home, letter_spec.name, "ana", "op", "asked to")
    forgettings.put(home, order.id, result={"students": [{"version": "1", "digest": "old"}]})
    if serving is not None:  # made afresh since, so that no order lists it
        model = ModelRef(version="2", uri="file:///new", digest=serving, snapshot="", teacher="t@1")
        home.put_intent(letter_spec.name, home.intent(letter_spec.name)[0], Intent(champion=model))
    made = distil(written(letter_spec, tmp_path, uri=given.uri, digest=given.digest), "", True, "nothing")
    assert set(made.card.classes) == set("ab")


@pytest.fixture
def signs(home, tmp_path, monkeypatch):
    """A site that uses nothing unsigned: its own key, and who hands on in the federation."""
    made = SimpleNamespace(**{name: keys(tmp_path, name) for name in ("own", "giver")})
    add(home, "ana", made.own[1].read_bytes(), name="own", reason="a test")
    made.key = add(home, "ana", made.giver[1].read_bytes(), name="giver", reason="a test", workloads=(scope("banks"),))
    monkeypatch.setenv("COHOBATE_ARTIFACT_POLICY", "signed")
    monkeypatch.setenv("COHOBATE_ARTIFACT_SIGNING_KEY", str(made.own[0]))
    with home.transaction() as s:
        sign_snapshot(Settings(), home, s.query(WindowRow).one())
    return made


def handed_on(given, signs, federation="banks"):
    """The archive of the given student, opened."""
    said = Given(federation=federation, workload="theirs", version="3", round=2, space="letters@1", teacher="t@1")
    data = write(said, get_bytes(given.uri), get_bytes(given.weights_uri), signer(str(signs.giver[0]))).data
    return read(data, "f", verifier(signs.giver[1]), federation)


def refusals(home, letter_spec):
    return [row.detail["code"] for row in entries(home, letter_spec.name) if row.action == signatures.REFUSED]


def test_where_signatures_are_asked_for_one_without_any_is_refused(home, letter_spec, given, signs, tmp_path):
    path = written(letter_spec, tmp_path, uri=given.uri, digest=given.digest)
    with pytest.raises(UntrustedError, match=r"'cohobate federate take --spec' signs what it opens"):
        distil(path, "", True, "nothing")
    assert refusals(home, letter_spec) == ["unsigned"]


def test_one_that_was_taken_is_begun_from_and_the_lineage_names_both_signatures(
    home, letter_spec, given, signs, tmp_path
):
    begun = leave(Settings(), home, letter_spec.name, tmp_path / "round-2", handed_on(given, signs))
    path = written(letter_spec, tmp_path, uri=f"file://{tmp_path}/round-2/model.onnx", digest=given.digest)
    made = distil(path, "", True, "nothing")
    assert set(made.card.classes) == set("abcd") and made.card.start == begun
    own = verifier(signs.own[1]).keyid
    assert (begun.digest, begun.federation, begun.round) == (given.digest, "banks", 2)
    assert (begun.given.key, begun.taken.key) == (signs.key.id, own)
    (entry,) = [row.detail for row in entries(home, letter_spec.name) if row.action == "federate take"]
    assert entry["given"] == {"key": signs.key.id, "statement": begun.given.statement}
    model = ModelRef(version="1", uri=made.uri, digest=made.digest, snapshot=made.card.snapshots[0], teacher="t@1")
    candidate = SimpleNamespace(card=made.card, decision="promote")
    provenance.sign(Settings(), home, of_candidate(Settings(), home, load_spec(path), candidate, model, False))
    said = signatures.verified(home, letter_spec.name, made.uri, made.digest, signatures.PROVENANCE)
    (start,) = [d for d in said.predicate["buildDefinition"]["resolvedDependencies"] if d["name"] == "start"]
    assert start["digest"] == {"sha256": given.digest}
    assert start["annotations"]["given"]["key"] == signs.key.id and start["annotations"]["taken"]["key"] == own
    later = ModelRef(version="1", uri=made.uri, digest=made.digest, snapshot="", teacher="t@1")
    home.put_intent(letter_spec.name, home.intent(letter_spec.name)[0], Intent(champion=later))
    again = distil(written(letter_spec, tmp_path), "", False, home.windows(letter_spec.name)[0].digest)
    assert again.card.parent == "1" and again.card.start == begun, "the lineage goes on with it"


def test_a_start_whose_giver_is_not_trusted_is_refused_with_the_remedy(home, letter_spec, given, signs, tmp_path):
    place = tmp_path / "round-2"
    told = "does not count for federation:hospitals: 'cohobate keys add FILE --workload federation:hospitals'"
    with pytest.raises(UntrustedError, match=told):
        leave(Settings(), home, letter_spec.name, place, handed_on(given, signs, "hospitals"))
    assert not place.exists()
    leave(Settings(), home, letter_spec.name, place, handed_on(given, signs))
    revoke(home, "ana", signs.key.id, "laptop lost")
    path = written(letter_spec, tmp_path, uri=f"file://{place}/model.onnx", digest=given.digest)
    with pytest.raises(UntrustedError, match="a key that is revoked"):
        distil(path, "", True, "nothing")
    assert refusals(home, letter_spec) == ["revoked_key"]


def test_the_site_s_own_key_counts_in_no_federation(home, letter_spec, given, signs, tmp_path):
    """It was added without a workload, for everything of the site; who hands on is somebody else."""
    signs.giver = signs.own
    with pytest.raises(UntrustedError, match="does not count for federation:banks") as refused:
        leave(Settings(), home, letter_spec.name, tmp_path / "round-2", handed_on(given, signs))
    assert refused.value.reason == "foreign_key" and not (tmp_path / "round-2").exists()


def test_of_a_start_nothing_can_be_swapped(home, letter_spec, given, signs, tmp_path):
    place = tmp_path / "round-2"
    leave(Settings(), home, letter_spec.name, place, handed_on(given, signs))
    start = Begin(uri=f"file://{place}/model.onnx", digest=given.digest)
    with pytest.raises(UntrustedError, match="is signed as of 'letters', not 'mail'"):
        starts.verified(home, "mail", start)
    envelope = (place / "given.dsse").read_bytes()
    (place / "given.dsse").write_bytes(handed_on(given, signs, "hospitals").envelope)
    with pytest.raises(UntrustedError, match=r"has no given\.dsse beside it that goes with its signature"):
        starts.verified(home, letter_spec.name, start)
    (place / "given.dsse").write_bytes(envelope)
    with pytest.raises(UntrustedError, match="its signature is of another file"):
        starts.verified(home, letter_spec.name, Begin(uri=start.uri, digest="0" * 64))
    assert starts.verified(home, letter_spec.name, start).round == 2


def test_without_the_policy_the_lineage_names_an_unsigned_one_by_its_digest(home, letter_spec, given, tmp_path):
    made = distil(written(letter_spec, tmp_path, uri=given.uri, digest=given.digest), "", True, "nothing")
    assert made.card.start == Begun(digest=given.digest)


def test_another_artifact_or_label_space_is_refused(home, letter_spec, given, tmp_path):
    with pytest.raises(ArtifactError):
        distil(written(letter_spec, tmp_path, uri=given.uri, digest="0" * 64), "", True, "nothing")
    with home.transaction() as s:
        row = s.query(WindowRow).one()
        row.manifest = {**row.manifest, "space": "letters@2"}
    with pytest.raises(ConfigError, match=r"student\.start.*in 'letters@1': the labels here are of .* in 'letters@2'"):
        distil(written(letter_spec, tmp_path, uri=given.uri, digest=given.digest), "", True, "nothing")


def test_it_is_part_of_the_spec_s_digest_and_names_an_artifact_by_its_own(letter_spec, tmp_path):
    before = load_spec(written(letter_spec, tmp_path))
    assert before.student.start is None
    start = Begin(uri="file:///m.onnx", digest="0" * 64)
    assert msgspec.structs.replace(before, student=msgspec.structs.replace(before.student, start=start)).digest != (
        before.digest
    )
    for digest in ("", "0" * 63, "X" * 64):
        with pytest.raises(ConfigError, match="digest"):
            load_spec(written(letter_spec, tmp_path, uri="file:///m.onnx", digest=digest))
