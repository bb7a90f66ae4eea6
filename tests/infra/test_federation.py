"""The command ``federate``, of sites with students of their own, and what the ledger has of what they published."""

import base64
import json
from contextlib import closing

import msgspec
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from components.contracts import bundle
from components.contracts.attestation import signer, verifier
from components.contracts.errors import ArtifactError, ConfigError, NotFoundError, UntrustedError
from components.contracts.settings import Settings
from components.contracts.spec import Begin, load_spec
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.intent import ModelRef
from components.distill.account import epsilon_of
from components.federation import exchange
from components.federation.exchange import row_id
from components.federation.rounds import read
from components.ledger import starts
from components.ledger.keys import add
from components.ledger.ledger import entries
from components.registry.registry import Registry, VersionInfo
from components.student.card import Account, StudentCard
from infra.cli import app
from infra.federation import site as sites
from infra.federation import student as students
from tests.keys import keys
from tests.stores import migrated
from tests.students import bag, exported

SPEC = """
name: letters
teacher: {factory: "t:T"}
features: {factory: "components.student.bytes:ByteNgrams", options: {head: 64, buckets: 1024}}
payload: {decoder: raw}
"""

PRIVATE = """
student:
  near_duplicate: null
  holdout: fixed
  calibration: apart
  calibration_share: 0.0
  export: {serve: float32}
  privacy: {epsilon: 6.0, delta: 1.0e-5}
"""

TEXTS = ("abc", "fgh", "klm", "pqr")

ONCE = ((1.0, 0.05, 100),)


class Versions:
    """A registry that knows these versions alone."""

    def __init__(self):
        self.known = {}

    def info(self, workload, alias_or_version):
        if alias_or_version not in self.known:
            raise NotFoundError("model version", alias_or_version, "register it")
        return self.known[alias_or_version]

    def add(self, version, spec, *, parent=None, temperature=1.0, **card):
        """Register an untrained student."""
        values = {"classes": ("a", "b", "c"), "privacy": None, **card}
        made = StudentCard(
            workload="letters", task="classification", space="letters@1", features=spec.features,
            payload=spec.payload, **bag(1024, 4, 8), variant="tiny", snapshots=("0" * 64,), teacher="t@1",
            parent=parent, code=version, **values,
        )  # fmt: skip
        data = exported(made, temperature=temperature)
        uri = f"{Settings().artifacts}/letters/students/{digest_of(data)}/model.onnx"
        put_bytes(uri, data)
        ref = ModelRef(version=version, uri=uri, digest=digest_of(data), snapshot="0" * 64, teacher="t@1")
        self.known[version] = VersionInfo(
            ref=ref, aliases=(), created_at=0.0, snapshots=(), parent=parent, code="0", variant="tiny", verdict={},
            metrics={}, run_id="",
        )  # fmt: skip
        return ref


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COHOBATE_ACTOR", "ana")
    (tmp_path / "public.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    (tmp_path / "open.yaml").write_text(SPEC)
    (tmp_path / "private.yaml").write_text(SPEC + PRIVATE)
    with closing(migrated(Settings().control_url)) as store:
        yield store


@pytest.fixture
def registry(home, monkeypatch):
    made = Versions()
    monkeypatch.setattr(Registry, "info", lambda _, *asked: made.info(*asked))
    return made


def spec_of(tmp_path, name="private"):
    return load_spec(tmp_path / f"{name}.yaml")


def answered(home, registry, tmp_path, version, number=1, spec="private", federation="banks"):
    secret, _ = keys(tmp_path, "north") if not (tmp_path / "north.pem").exists() else (tmp_path / "north.pem", None)
    return sites.answer(
        Settings(), registry, home, spec_of(tmp_path, spec), version, public=str(tmp_path / "public.jsonl"),
        federation=federation, site="north", number=number, by=signer(str(secret)),
    )  # fmt: skip


def test_what_cannot_be_written_is_refused_before_anything_is_spent(home, registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    secret, _ = keys(tmp_path, "north")
    registry.add("1", spec_of(tmp_path), privacy=account())
    asked = ("answer", "--spec", tmp_path / "private.yaml", "--public", tmp_path / "public.jsonl", "--round", 1,
             "--federation", "banks", "--key", secret, "--version", 1, "--site")  # fmt: skip
    for site in ("a/b", "../../x", ""):
        with pytest.raises(ConfigError, match=r"--site.*must be a name as in the agreement"):
            run(*asked, site)
    (tmp_path / "file").write_text("")
    for other in (asked, ("give", *asked[1:3], "--round", 1, "--federation", "banks", "--key", secret, "--version", 1)):
        with pytest.raises(ConfigError, match="cannot be written"):
            run(*other, *(["north"] if other is asked else []), "-o", tmp_path / "file" / "x.tar")
    assert published(home) == []
    run(*asked, "north", "-o", tmp_path / "missing" / "x.tar")
    assert statement_of((tmp_path / "missing" / "x.tar").read_bytes()) == published(home)[0]["statement"]


def statement_of(data):
    """SHA-256 of what the envelope of a file has under its signatures."""
    envelope = json.loads(bundle.members(data, "")["statement.dsse"])
    return digest_of(base64.b64decode(envelope["payload"]))


def published(home):
    return [row.detail for row in entries(home, "letters") if row.action == sites.ACTION]


def account(history=ONCE, unit="input"):
    return Account(epsilon=4.1, delta=1e-5, unit=unit, history=history)


def run(*options):
    done = CliRunner().invoke(app, ["federate", *map(str, options)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_three_sites_answer_and_one_mixture_is_made_of_it(home, registry, tmp_path):
    agreed = {"name": "banks", "space": "letters@1", "classes": ["a", "b", "c"], "min_sites": 2, "sites": {}}
    public, files = tmp_path / "public.jsonl", []
    for version, name in enumerate(("north", "south", "west"), start=1):
        secret, key = keys(tmp_path, name)
        registry.add(str(version), spec_of(tmp_path, "open"), classes=("a", "b", "c") if version < 3 else ("a", "b"))
        agreed["sites"][name] = {"key": key.name}
        files.append(tmp_path / f"{name}.tar")
        asked = ("--public", public, "--federation", "banks", "--round", 1, "--key", secret, "--version", version)
        said = run("answer", "--spec", tmp_path / "open.yaml", "--site", name, *asked, "-o", files[-1])
        assert "nothing bounds what they tell of its rows" in said
    (tmp_path / "federation.yaml").write_text(yaml.safe_dump(agreed))
    files[1].write_bytes(files[1].read_bytes().replace(b'"a":0', b'"a":1'))
    output = tmp_path / "mixture.jsonl"
    asked = ("mix", tmp_path / "federation.yaml", *files, "--spec", tmp_path / "open.yaml", "--public", public)
    said = json.loads(run(*asked, "--round", 1, "-o", output, "--json"))
    assert (said["rows"], said["inputs"], said["federation"]) == (4, 4, "banks")
    assert said["refused"] == {str(files[1]): "other_subject: is not what was signed: answers.jsonl was changed"}
    assert said["digest"] == digest_of(output.read_bytes()) and said["sites"]["south"]["left_out"] == "other_subject"
    found = read(output.read_bytes(), "m")
    assert found.rows.keys() == {row_id(t) for t in TEXTS}
    assert found.rows[row_id("abc")].weights == {"north": 0.5, "west": 0.5}
    told = run(*asked, "--round", 1, "-o", output)
    assert "north: weight 1, 0." in told and "south: other_subject" in told and f"refused {files[1]}" in told
    assert [d["site"] for d in published(home)] == ["north", "south", "west"]


def test_a_site_answers_for_the_classes_that_the_agreement_has_of_it_alone(home, registry, tmp_path):
    secret, key = keys(tmp_path, "north")
    keys(tmp_path, "south")
    registry.add("1", spec_of(tmp_path, "open"))
    agreed = {
        "name": "banks",
        "space": "letters@1",
        "classes": ["a", "b", "c"],
        "sites": {"north": {"key": "north.pub", "classes": ["c", "a"]}, "south": {"key": "south.pub"}},
    }
    (tmp_path / "federation.yaml").write_text(yaml.safe_dump(agreed))
    asked = ("answer", "--spec", tmp_path / "open.yaml", "--public", tmp_path / "public.jsonl", "--federation", "banks",
             "--round", 1, "--key", secret, "--version", 1, "--site", "north")  # fmt: skip
    made = {}
    for name, more in {"all": (), "some": ("--agreement", tmp_path / "federation.yaml")}.items():
        run(*asked, *more, "-o", tmp_path / f"{name}.tar")
        made[name] = exchange.read((tmp_path / f"{name}.tar").read_bytes(), name, verifier(key), "banks")
    assert [d["statement"] for d in published(home)] == [made["all"].statement, made["some"].statement]
    assert made["all"].said.classes == ("a", "b", "c") and made["some"].said.classes == ("a", "c")
    for row, shares in made["some"].by_id.items():
        whole = made["all"].by_id[row]
        assert shares == pytest.approx({c: whole[c] / (whole["a"] + whole["c"]) for c in "ac"})
    with pytest.raises(ConfigError, match=r"--federation.*is not the agreement's"):
        run(*asked, "--agreement", tmp_path / "federation.yaml", "--federation", "shops")
    with pytest.raises(ConfigError, match=r"--site.*must be one of the agreement's"):
        run(*asked, "--agreement", tmp_path / "federation.yaml", "--site", "west")
    with pytest.raises(ConfigError, match=r"classes.*none that the student knows"):
        sites.answered_for(("a", "b"), ("c",))


def test_the_same_answers_again_are_the_same_file_and_one_entry(home, registry, tmp_path):
    ref = registry.add("1", spec_of(tmp_path), privacy=account())
    first = answered(home, registry, tmp_path, "1")
    assert answered(home, registry, tmp_path, "1") == first
    (entry,) = published(home)
    assert (entry["student"], entry["statement"], entry["rows"]) == (ref.digest, statement_of(first), 4)
    assert entry["epsilon"] == pytest.approx(epsilon_of(ONCE, 1e-5)) and entry["spent"] == [list(ONCE[0])]


def test_more_answers_of_one_student_spend_nothing(home, registry, tmp_path):
    registry.add("1", spec_of(tmp_path), privacy=account())
    for number in (1, 2, 3):
        answered(home, registry, tmp_path, "1", number)
    assert [d["spent"] for d in published(home)] == [[list(ONCE[0])], [], []]
    assert len({d["epsilon"] for d in published(home)}) == 1


def test_another_federation_s_answers_are_another_file_and_entry(home, registry, tmp_path):
    registry.add("1", spec_of(tmp_path), privacy=account())
    assert answered(home, registry, tmp_path, "1") != answered(home, registry, tmp_path, "1", federation="hospitals")
    assert [(d["federation"], d["spent"]) for d in published(home)] == [("banks", [list(ONCE[0])]), ("hospitals", [])]


def test_a_name_that_no_agreement_can_have_is_refused(home, registry, tmp_path):
    secret, _ = keys(tmp_path, "north")
    for asked in (("answer", "--site", "north", "--public", tmp_path / "public.jsonl"), ("give",)):
        with pytest.raises(ConfigError, match=r"--federation.*must be a name as in the agreement"):
            run(*asked, "--spec", tmp_path / "open.yaml", "--round", 1, "--federation", "Our Banks", "--key", secret)


def test_a_successor_spends_what_it_has_beyond_its_ancestor_and_a_fresh_one_all(home, registry, tmp_path):
    spec = spec_of(tmp_path)
    registry.add("1", spec, privacy=account())
    registry.add("2", spec, parent="1", privacy=account(((1.0, 0.05, 150),)))
    registry.add("3", spec, parent="2", privacy=account(((1.0, 0.05, 150), (2.0, 0.05, 10))))
    registry.add("4", spec, privacy=account())
    for number, version in enumerate(("1", "3", "4"), start=1):
        answered(home, registry, tmp_path, version, number)
    told = published(home)
    assert [d["spent"] for d in told] == [[[1.0, 0.05, 100]], [[1.0, 0.05, 50], [2.0, 0.05, 10]], [[1.0, 0.05, 100]]]
    together = ((1.0, 0.05, 250), (2.0, 0.05, 10))
    assert told[-1]["epsilon"] == pytest.approx(epsilon_of(together, 1e-5))


def test_past_the_site_s_epsilon_nothing_is_handed_out(home, registry, tmp_path):
    spec, number = spec_of(tmp_path), 0
    with pytest.raises(
        ConfigError, match=r"student\.privacy\.epsilon is 6\.0: would be exceeded: .* by now"
    ) as refused:
        for number in range(1, 50):
            registry.add(str(number), spec, privacy=account())
            answered(home, registry, tmp_path, str(number), number)
    assert "let a student answer that answered before" in str(refused.value)
    assert len(published(home)) == number - 1 > 1 and published(home)[-1]["epsilon"] <= 6.0
    answered(home, registry, tmp_path, "1", number)
    assert len(published(home)) == number, "who answered before goes on"


@pytest.mark.parametrize(
    ("card", "change", "told"),
    [
        ({}, ("", ""), "promises nothing of a student that was trained without it"),
        ({"privacy": account(), "precision": "int8"}, ("", ""), "ranges of rows that the account does not count"),
        ({"privacy": account()}, ("calibration_share: 0.0", "calibration_share: 0.1"), "fits the temperature"),
        ({"privacy": account(), "temperature": 1.25}, ("", ""), "was not 0 when the student was made: .* 1.25"),
        ({"privacy": account()}, ("delta:", "unit: key, delta:"), "protects more than one input"),
    ],
)
def test_what_the_account_does_not_cover_is_not_handed_out_as_private(home, registry, tmp_path, card, change, told):
    (tmp_path / "private.yaml").write_text((SPEC + PRIVATE).replace(*change))
    registry.add("1", spec_of(tmp_path), **card)
    with pytest.raises(ConfigError, match=told):
        answered(home, registry, tmp_path, "1")
    assert published(home) == []


def test_a_site_that_answered_without_an_account_promises_nothing_later(home, registry, tmp_path):
    registry.add("1", spec_of(tmp_path, "open"))
    registry.add("2", spec_of(tmp_path), privacy=account())
    answered(home, registry, tmp_path, "1", spec="open")
    with pytest.raises(ConfigError, match="version 1 was published without an account in round 1"):
        answered(home, registry, tmp_path, "2", 2)


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        ("open", "private", "version 1 was published by a spec without privacy in round 1"),
        ("private", "less", r"student\.privacy\.epsilon is 0\.5: would be exceeded"),
    ],
)
def test_the_same_answers_again_are_refused_where_the_spec_promises_more_by_now(
    home, registry, tmp_path, first, then, told
):
    (tmp_path / "less.yaml").write_text((SPEC + PRIVATE).replace("epsilon: 6.0", "epsilon: 0.5"))
    registry.add("1", spec_of(tmp_path), privacy=account())
    answered(home, registry, tmp_path, "1", spec=first)
    with pytest.raises(ConfigError, match=told):
        answered(home, registry, tmp_path, "1", spec=then)


def given(home, registry, tmp_path, version, number=1, spec="private"):
    secret, _ = keys(tmp_path, "mixer")
    return students.give(
        Settings(), Registry(Settings()), home, spec_of(tmp_path, spec), version,
        federation="banks", number=number, by=signer(str(secret)),
    )  # fmt: skip


def test_weights_that_are_handed_on_count_as_answers_do_and_together_with_them(home, registry, tmp_path):
    spec, weights = spec_of(tmp_path), b"weights"
    for version, of in (("1", account()), ("2", account()), ("3", None)):
        ref = registry.add(version, spec, privacy=of, weights=digest_of(weights))
        put_bytes(f"{ref.uri.rsplit('/', 1)[0]}/student.safetensors", weights)
    with pytest.raises(ConfigError, match="promises nothing of a student that was trained without it"):
        given(home, registry, tmp_path, "3")
    answered(home, registry, tmp_path, "1")
    given(home, registry, tmp_path, "1")
    given(home, registry, tmp_path, "2", 2)
    answered(home, registry, tmp_path, "2", 3)
    told = [row.detail for row in entries(home, "letters")]
    assert [d["spent"] for d in told] == [[list(ONCE[0])], [], [list(ONCE[0])], []]
    given(home, registry, tmp_path, "3", 4, spec="open")
    with pytest.raises(ConfigError, match="version 3 was published without an account in round 4"):
        answered(home, registry, tmp_path, "1", 5)


def test_a_regression_is_refused(home, registry, tmp_path):
    registry.add("1", spec_of(tmp_path, "open"), classes=("a", "b"))
    info = registry.known["1"]
    spec = spec_of(tmp_path, "open")
    card = StudentCard(
        workload="letters", task="regression", space="euro", classes=(), features=spec.features, payload=spec.payload,
        **bag(1024, 4, 8), variant="tiny", snapshots=("0" * 64,), teacher="t@1", parent=None, code="0",
    )  # fmt: skip
    data = exported(card)
    put_bytes(info.ref.uri, data)
    ref = msgspec.structs.replace(info.ref, digest=digest_of(data))
    registry.known["1"] = msgspec.structs.replace(info, ref=ref)
    with pytest.raises(ConfigError, match="mixtures are of class probabilities"):
        answered(home, registry, tmp_path, "1", spec="open")


def test_a_version_that_is_not_there_is_named(home, registry, tmp_path):
    with pytest.raises(NotFoundError, match="champion"):
        answered(home, registry, tmp_path, "champion", spec="open")


@pytest.fixture
def handed_on(home, registry, tmp_path):
    """The file of a student with its weights, and the keys of who signed it."""
    spec, weights = spec_of(tmp_path, "open"), b"weights"
    ref = registry.add("7", spec, weights=digest_of(weights))
    put_bytes(f"{ref.uri.rsplit('/', 1)[0]}/student.safetensors", weights)
    secret, public = keys(tmp_path, "mixer")
    place = tmp_path / "student.tar"
    run(
        "give",
        "--spec",
        tmp_path / "open.yaml",
        "--version",
        7,
        "--round",
        3,
        "--federation",
        "banks",
        "--key",
        secret,
        "-o",
        place,
    )
    return place, public, ref


def test_a_student_is_handed_on_and_a_spec_may_begin_from_it(home, handed_on, tmp_path):
    place, public, ref = handed_on
    folder = tmp_path / "round 3 # ü"
    said = run("take", place, "--federation", "banks", "--public-key", public, "--into", folder)
    assert "version 7 of letters, round 3, in letters@1, by t@1" in said
    (tmp_path / "site.yaml").write_text(SPEC + said)
    start = load_spec(tmp_path / "site.yaml").student.start
    assert start.digest == ref.digest == digest_of(get_bytes(start.uri))
    assert (folder / "student.safetensors").read_bytes() == b"weights"
    (entry,) = [row.detail for row in entries(home, "letters") if row.action == "federate give"]
    assert (entry["student"], entry["statement"]) == (ref.digest, statement_of(place.read_bytes()))


def test_a_student_is_signed_as_it_is_taken_where_there_is_a_key(home, handed_on, tmp_path, monkeypatch):
    place, public, ref = handed_on
    secret, own = keys(tmp_path, "site")
    asked = ("take", place, "--federation", "banks", "--public-key", public, "--into", tmp_path / "taken")
    monkeypatch.setenv("COHOBATE_ARTIFACT_POLICY", "signed")
    with pytest.raises(ConfigError, match="name the signing key"):
        run(*asked)
    monkeypatch.setenv("COHOBATE_ARTIFACT_SIGNING_KEY", str(secret))
    with pytest.raises(ConfigError, match="name the spec of the workload that it is signed for"):
        run(*asked)
    asked = (*asked, "--spec", tmp_path / "open.yaml")
    with pytest.raises(UntrustedError, match="cohobate keys add FILE --workload federation:banks"):
        run(*asked)
    assert list((tmp_path / "taken").iterdir()) == []
    add(home, "ana", public.read_bytes(), name="mixer", reason="a test", workloads=("federation:banks",))
    with pytest.raises(ConfigError, match="its signatures do not count"):
        run(*asked)
    add(home, "ana", own.read_bytes(), name="own", reason="a test")
    assert ref.digest in run(*asked)
    start = Begin(uri=f"file://{tmp_path}/taken/model.onnx", digest=ref.digest)
    begun = starts.verified(home, "letters", start)
    assert (begun.federation, begun.round) == ("banks", 3) and begun.given.key != begun.taken.key


def test_a_student_that_was_changed_or_is_another_s_is_not_taken(handed_on, tmp_path):
    place, public, _ = handed_on
    _, other = keys(tmp_path, "other")
    files = bundle.members(place.read_bytes(), "")
    (tmp_path / "changed.tar").write_bytes(bundle.pack({**files, "student.safetensors": b"others"}))
    (tmp_path / "less.tar").write_bytes(bundle.pack({"model.onnx": files["model.onnx"]}))
    for path, key, federation, error, why in (
        (place, other, "banks", UntrustedError, "the given key did not sign it"),
        (tmp_path / "changed.tar", public, "banks", UntrustedError, r"student\.safetensors was changed"),
        (place, public, "hospitals", UntrustedError, "for the federation 'banks', not 'hospitals'"),
        (tmp_path / "less.tar", public, "banks", ArtifactError, "is no student of a federation"),
    ):
        with pytest.raises(error, match=why):
            run("take", path, "--federation", federation, "--public-key", key, "--into", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_student_that_is_given_twice_is_recorded_once_whatever_its_signature(home, handed_on, tmp_path):
    secret, _ = keys(tmp_path, "elliptic", ec.generate_private_key(ec.SECP256R1()))
    asked = ("give", "--spec", tmp_path / "open.yaml", "--version", 7, "--round", 4, "--federation", "banks")
    for name in ("one", "two"):
        run(*asked, "--key", secret, "-o", tmp_path / name)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()
    (entry,) = [row.detail for row in entries(home, "letters") if row.detail["round"] == 4]
    assert entry["statement"] == statement_of((tmp_path / "one").read_bytes())


def test_a_student_without_weights_to_go_on_from_is_not_handed_on(home, registry, tmp_path):
    registry.add("1", spec_of(tmp_path, "open"))
    secret, _ = keys(tmp_path, "mixer")
    with pytest.raises(ArtifactError, match="names no trainable weights"):
        run(
            "give",
            "--spec",
            tmp_path / "open.yaml",
            "--version",
            1,
            "--round",
            1,
            "--federation",
            "banks",
            "--key",
            secret,
        )


def test_a_private_student_begins_from_none_that_was_handed_on(tmp_path):
    start = 'student:\n  start: {uri: "file:///m.onnx", digest: "' + "0" * 64 + '"}'
    (tmp_path / "both.yaml").write_text((SPEC + PRIVATE).replace("student:", start))
    with pytest.raises(ConfigError, match=r"student\.start.*has no account of the rows here"):
        load_spec(tmp_path / "both.yaml")
