"""Documents of two versions that were distilled, judged and registered: what they say, and what they leave blank."""

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import msgspec
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from components.contracts.errors import ArtifactError, ConfigError, NotFoundError, UntrustedError
from components.contracts.records import SoftLabel, set_text
from components.contracts.settings import Settings
from components.contracts.spec import Extraction, Factory, Groups, Limits, Masking, Spec, load_spec
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.distill.step import distil
from components.evaluate.step import judge
from components.ledger.ledger import append, entries
from components.registry.registry import Registry
from components.registry.step import register
from infra.cli import app
from infra.documents.document import declared, fact
from infra.documents.facts import gather
from infra.documents.materials import bom
from infra.documents.signed import verify
from infra.documents.write import KINDS, made
from tests.components.conftest import freeze_rows, letter_spec, letters, line_spec, lines
from tests.components.distill.networks.examples import EXAMPLES
from tests.components.distill.test_embedding import rows as directed
from tests.stores import registering

__all__ = ["freeze_rows", "letter_spec", "letters", "line_spec", "lines"]

pytestmark = pytest.mark.filterwarnings("ignore")

ABOUT = {
    "intended_use": "telling <letters> apart | and more", "users": "the desk", "out_of_scope": "anything else",
    "affected": "nobody", "risks": ["a wrong letter; it is read again"], "oversight": "the lead of the desk",
    "provider": "Example Ltd", "contact": "desk@example.org", "instructions": "https://example.org/letters",
}  # fmt: skip

LICENCE = {
    "outputs": {"name": "LicenseRef-acme", "training": "allowed", "attribution": "Built with Acme."},
    "weights": {"name": "Apache-2.0", "training": "allowed"},
}

DATA = {
    "licence": {"name": "CC-BY-4.0", "training": "allowed", "attribution": "Letters of the desk."},
    "origin": "the desk", "collection": "all of a day", "retention": "90 days", "personal": "no",
    "legal_basis": "there are no personal data",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A platform in a folder, which the environment names."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COHOBATE_HOME", str(folder))
        patch.setenv("COHOBATE_ACTOR", "ana")
        store = ControlStore(registering(Settings()).control_url)
        store.migrate()
        yield store
        store.close()


def written(spec, folder, **extra):
    content = msgspec.to_builtins(spec)
    content = {k: v for k, v in content.items() if k not in ("source", "features")}
    content["features"] = {"factory": spec.features.factory, "options": spec.features.options}
    path = folder / f"{spec.name}.yaml"
    path.write_text(yaml.safe_dump({**content, **extra}))
    return str(path)


def version(home, path, rows, freeze_rows):
    spec, settings = load_spec(path), Settings()
    window = freeze_rows(spec, rows, settings.artifacts, 1)
    table_facts = {"holdout_rows": 40, "audit_rows": 0, "with_truth": len(rows), "rejected": 2, "duplicates": 0}
    manifest = {**window.manifest, **table_facts, "time_range": [1.0, 2.0], "rejected_reasons": {"unsigned": 2}}
    home.add_window(
        WindowRow(
            digest=window.digest, workload=spec.name, number=1, uri=window.uri, rows=window.rows, created_at=5.0,
            manifest=manifest,
        )
    )  # fmt: skip
    judged = judge(path, distil(path, "", True, window.digest))
    number = register(path, judged, judged.decision != "promote")
    append(home, spec.name, "controller", "first champion", {"version": number, "reason": "registered as candidate"})
    return gather(settings, Registry(settings), home, spec.name, number, path)


@pytest.fixture(scope="module")
def full(home, letter_spec, letters, freeze_rows, tmp_path_factory):
    """A version of which everything is declared."""
    groups = {"entropy": Groups(descriptor="byte_entropy", edges=(2.25,), min_rows=2)}
    stolen = Extraction(questions=10)
    limits = msgspec.structs.replace(letter_spec.limits, max_noise_loss=0.9, groups=groups, extraction=stolen)
    spec = msgspec.structs.replace(letter_spec, limits=limits)
    teacher = {"factory": "t:T", "licence": LICENCE}
    path = written(
        spec, tmp_path_factory.mktemp("full"), about=ABOUT, data=DATA, teacher=teacher, retention={"rows": 400.0}
    )
    return version(home, path, letters("abc", 60), freeze_rows)


@pytest.fixture(scope="module")
def bare(home, line_spec, lines, freeze_rows, tmp_path_factory):
    """A regression of which nothing is declared."""
    path = written(line_spec, tmp_path_factory.mktemp("bare"))
    return version(home, path, lines(160), freeze_rows)


@pytest.fixture(scope="module")
def vectors(home, freeze_rows, tmp_path_factory):
    """An embedding of which nothing is declared."""
    example = EXAMPLES["bag"]
    spec = Spec(
        name="vectors", task="embedding", teacher=Factory(factory="t:T"), features=example.features,
        payload=example.payload, student=example.student,
        limits=Limits(min_rows=10, min_cosine=0.5, min_recall=0.1, neighbours=3, searched=12),
    )  # fmt: skip
    return version(home, written(spec, tmp_path_factory.mktemp("vectors")), directed(example.make, "abc", 160, 1),
                   freeze_rows)  # fmt: skip


ABSENT_OF_A_REGRESSION = {
    "identity.classes", "keeping.by_age", "quality.groups", "quality.slices", "quality.calibration",
    "quality.robustness", "composition.labels", "quality.extraction", "measure.2.7.extraction",
}  # fmt: skip

ABSENT_OF_ANY = {
    "identity.parent", "identity.start", "training.synthetic", "training.privacy", "policy.refused",
    "quality.forgetting", "measure.2.10", "limits.not_demanded", "limits.not_measured", "composition.masked",
    "training.masked",
}  # fmt: skip
"""What these versions have none of, as the reasons say: they began fresh, alone and without an account."""


HAS = {"a": ("early",), "b": ("early", "even"), "c": ()}
"""What the letters are, as sets of classes."""


@pytest.fixture(scope="module")
def sets(home, letter_spec, letters, freeze_rows, tmp_path_factory):
    """A version that answers sets of classes."""
    rows = [
        (payload, SoftLabel.multilabel("kinds@1", ("early", "even"), [0.95 * (c in HAS[letter]) for c in
                                                                      ("early", "even")]), set_text(HAS[letter]))
        for payload, _, letter in letters("abc", 60)
    ]  # fmt: skip
    limits = msgspec.structs.replace(letter_spec.limits, max_noise_loss=0.9, min_micro_f1=0.7, min_accuracy=0.7,
                                     min_agreement=0.7)  # fmt: skip
    spec = msgspec.structs.replace(letter_spec, name="sets", task="multilabel", limits=limits)
    return version(home, written(spec, tmp_path_factory.mktemp("sets")), rows, freeze_rows)


def test_a_version_of_sets_is_described_by_its_classes(sets):
    told = {s.id: s for kind in KINDS for s in KINDS[kind](sets).statements()}
    assert told["limits.space"].value == "sets of 2 classes: any other is in none of them"
    assert {s["label"]: s["rows"] for s in told["composition.labels"].value} == {"early": 120, "even": 60}
    assert "early" in {s["class"] for s in told["quality.slices"].value}
    assert "micro_f1" in {row["measure"] for row in told["quality.measures"].value}
    absent = {s.id for s in told.values() if s.by == "platform" and s.state == "absent"}
    assert absent <= ABSENT_OF_ANY | {
        "keeping.by_age", "quality.groups", "quality.extraction", "measure.2.7.extraction", "terms.attribution",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_is_left_unfilled_that_the_platform_could_know(full, bare, vectors, kind):
    for facts, absent in (
        (full, ABSENT_OF_ANY),
        (vectors, ABSENT_OF_ANY | ABSENT_OF_A_REGRESSION | {"terms.attribution"}),
        (bare, ABSENT_OF_ANY | ABSENT_OF_A_REGRESSION | {"terms.attribution"}),
    ):
        document = KINDS[kind](facts)
        found = list(document.statements())
        assert found and document.digest == facts.info.ref.digest
        for s in found:
            if s.by == "platform":
                assert s.value not in (None, "", ()) and s.state in ("filled", "absent"), s.id
                assert s.state == "filled" or s.id in absent, f"{s.id}: {s.value}"
                assert s.state == "absent" or s.evidence, f"{s.id} rests on nothing"
                assert not (s.state == "filled" and "None" in str(s.value).split()), s
            else:
                assert s.state == ("filled" if s.by != "person" and facts is full else "blank"), s.id
                assert (s.value is None and s.fill) if s.state == "blank" else s.evidence, s.id
    assert {s.id for s in KINDS[kind](bare).blanks} >= {s.id for s in KINDS[kind](full).blanks}


def test_what_they_say_is_what_was_recorded(full, home):
    card = {s.id: s for s in KINDS["model-card"](full).statements()}
    assert card["identity.digest"].value == full.info.ref.digest
    assert card["identity.teacher"].value == "t@1" and card["use.intended"].value == ABOUT["intended_use"]
    assert card["quality.verdict"].value.startswith(full.verdict["decision"])
    accuracy = {row["measure"]: row for row in card["quality.measures"].value}["accuracy"]
    assert accuracy["value"] == full.measured["accuracy"] and accuracy["lower"] <= accuracy["value"]
    assert {row["class"] for row in card["quality.slices"].value} <= {"a", "b", "c"}
    assert card["quality.robustness"].value and card["terms.attribution"].value == tuple(full.card.attribution)
    assert full.card.attribution == ("Built with Acme.", "Letters of the desk.")
    between = {row["measure"]: row for row in card["quality.groups"].value}
    assert between["agreement_gap[entropy]"]["value"] == full.measured["agreement_gap[entropy]"]
    assert between["accuracy_gap[entropy]"]["upper"] >= between["accuracy_gap[entropy]"]["value"]
    told = {row["measure"]: row for row in card["training.membership"].value}
    assert told["membership_advantage"]["lower"] <= told["membership_advantage"]["value"]
    stolen = {row["measure"]: row for row in card["quality.extraction"].value}
    assert stolen["extraction_questions"]["value"] == 10
    assert 0 <= stolen["extraction_fidelity"]["lower"] <= stolen["extraction_fidelity"]["value"]
    sheet = {s.id: s for s in KINDS["data-sheet"](full).statements()}
    assert sheet["composition.labels"].value == tuple({"label": c, "rows": 60} for c in full.labels)
    assert sheet["preparation.left_out"].value == ({"window": 1, "reason": "unsigned", "rows": 2},)
    assert sheet["keeping.by_age"].value == ({"what": "rows", "days": 400.0},)
    annex = {s.id: s for s in KINDS["annex-iv"](full).statements()}
    assert annex["2g.discrimination"].value == card["quality.groups"].value
    history = [row["what"] for row in annex["history"].value]
    assert history == ["register", "first champion"]
    of = [f"ledger:{e.seq}#{e.hash[:16]}" for e in entries(home, "letters")]
    assert list(annex["history"].evidence) == of


def test_of_an_embedding_they_say_the_space_and_how_near_it_is_to_the_teacher_s(vectors):
    card = {s.id: s for s in KINDS["model-card"](vectors).statements()}
    assert (
        card["limits.space"].value == "a vector of 6 numbers in v@1"
        and card["identity.task"].value == "embedding in v@1"
    )
    told = {row["measure"]: row for row in card["quality.measures"].value}
    for name in ("cosine", "recall", "rank_correlation"):
        assert told[name]["lower"] <= told[name]["value"] == vectors.measured[name]
    assert "there is no truth" in card["quality.calibration"].value
    assert card["quality.slices"].value == "embedding has no classes of inputs"


def test_what_was_masked_is_told_by_kind_and_not_as_all_that_there_was(full):
    spec = msgspec.structs.replace(full.spec, masking=Masking(entities=("EMAIL", "PHONE")))
    counts = ({"EMAIL": 2}, {"EMAIL": 1}, {})
    windows = [SimpleNamespace(**vars(w)) for w in full.windows * 3]
    for window, masked in zip(windows, counts, strict=True):
        window.manifest = {**window.manifest, "masked": masked}
    facts = dataclasses.replace(full, spec=spec, windows=windows)
    for kind, id in (("model-card", "training.masked"), ("data-sheet", "composition.masked")):
        (told,) = (s for s in KINDS[kind](facts).statements() if s.id == id)
        assert told.value == ({"kind": "EMAIL", "found": 3}, {"kind": "PHONE", "found": 0})
        assert "what the search missed is in them" in told.title and told.state == "filled"


class Fetched(HTMLParser):
    def __init__(self):
        super().__init__()
        self.names, self.links, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [v for n, v in attrs if n in ("src", "href")]
        self.names += [v for n, v in attrs if n == "id"]


def test_each_is_written_in_three_formats_and_html_fetches_nothing(full):
    files, blanks = made(full)
    assert set(files) == {f"{k}.{f}" for k in KINDS for f in ("json", "md", "html")} | {"bom.cdx.json"}
    for kind in KINDS:
        said = json.loads(files[f"{kind}.json"])
        assert tuple(said["blanks"]) == blanks[kind] and said["kind"] == kind
        page, text = Fetched(), files[f"{kind}.html"].decode()
        page.feed(text)
        assert "script" not in page.tags and all(link.startswith("#") for link in page.links)
        assert {link[1:] for link in page.links} <= set(page.names)
        markdown = files[f"{kind}.md"].decode()
        assert "<letters>" not in text and "<letters>" not in markdown
        assert not re.search(r"complian|conforms to|certified", text.replace("as its evaluation certified", ""))
    assert r"telling &lt;letters&gt; apart \| and more" in files["model-card.md"].decode()
    assert len({s.id for s in KINDS["annex-iv"](full).blanks}) == 11


def test_the_bill_of_materials_is_what_the_schema_takes_and_names_all_parts(full, bare):
    for facts in (full, bare):
        said = json.loads(bom(facts))
        model = said["metadata"]["component"]
        assert (said["bomFormat"], said["specVersion"], model["type"]) == ("CycloneDX", "1.6", "machine-learning-model")
        assert model["hashes"] == [{"alg": "SHA-256", "content": facts.info.ref.digest}]
        kinds = [c["type"] for c in said["components"]]
        assert kinds.count("data") == len(facts.card.snapshots) and "machine-learning-model" in kinds
        assert {c["name"] for c in said["components"]} >= {"onnxruntime", "torch", "t"}
        assert [d["ref"] for d in model["modelCard"]["modelParameters"]["datasets"]] == [
            f"snapshot:{d}" for d in facts.card.snapshots
        ]
        parts = {d["ref"]: set(d.get("dependsOn", ())) for d in said["dependencies"]}
        assert f"snapshot:{facts.card.snapshots[0]}" in parts[f"student:{facts.info.ref.digest}"]
    said = json.loads(bom(full))
    (data,) = [c for c in said["components"] if c["type"] == "data"]
    assert [one["license"]["id"] for one in data["licenses"]] == ["CC-BY-4.0"]
    assert bom(full) == bom(full)
    considerations = said["metadata"]["component"]["modelCard"]["considerations"]
    assert considerations["useCases"] == [ABOUT["intended_use"]]


def test_a_window_that_lost_rows_since_is_found_by_the_digest_that_was_read(full, home, monkeypatch):
    (window,) = full.windows
    manifest = {**window.manifest, "replaces": [window.digest]}
    successor = WindowRow(
        digest="0" * 64, workload=window.workload, number=1, uri=window.uri, rows=50, created_at=5.0, manifest=manifest
    )
    monkeypatch.setattr(home, "windows", lambda workload: [successor])
    name, settings = full.workload, Settings()
    facts = gather(settings, Registry(settings), home, name, full.info.version, full.spec.source)
    assert facts.windows == [successor] and facts.evidence_ref == full.evidence_ref
    (data,) = [c for c in json.loads(bom(facts))["components"] if c["type"] == "data"]
    assert data["data"][0]["description"] == "50 labelled inputs"


def test_the_command_writes_a_folder_and_names_the_blanks(full, bare, tmp_path):
    words = ["document", "champion", "--workload", "letters", "--output", str(tmp_path / "d")]
    Registry(Settings()).set_alias("letters", "champion", full.info.version)
    done = CliRunner().invoke(app, [*words, "--spec", full.spec.source, "--only", "model-card", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["blanks"] == {"model-card": []}
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [f"model-card.{f}" for f in ("html", "json", "md")]
    with pytest.raises(ConfigError, match="must be one of"):
        made(full, ["novel"])
    settings, registry = Settings(), Registry(Settings())
    store = ControlStore.open(settings.control_url)
    with pytest.raises(NotFoundError, match="registered without its bundle"):
        gather(settings, registry, store, "letters", "champion")
    with pytest.raises(ConfigError, match="is of letters, not of lines"):
        gather(settings, registry, store, "lines", "1", full.spec.source)
    store.close()


def test_whoever_has_the_public_key_sees_that_documents_are_as_they_were_signed(full, home, tmp_path, monkeypatch):
    key, public = Ed25519PrivateKey.generate(), tmp_path / "k.pub"
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "k.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    folder = tmp_path / "d"
    words = [full.info.version, "--workload", "letters", "--spec", full.spec.source, "--only", "model-card"]
    words = ["document", *words, "--output", str(folder)]
    check = ["verify-documents", str(folder), "--public-key", str(public)]
    monkeypatch.setenv("COHOBATE_ARTIFACT_SIGNING_KEY", str(tmp_path / "k.pem"))
    done = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(done.output)["signed_by"], done.output
    said = CliRunner().invoke(app, check)
    assert said.exit_code == 0 and f"3 files about letters version {full.info.version}" in said.output
    monkeypatch.setenv("COHOBATE_ARTIFACT_POLICY", "signed")
    elsewhere = tmp_path / "unsigned"
    refused = CliRunner().invoke(app, [*words[:-1], str(elsewhere)])
    assert "its signatures do not count" in str(refused.exception) and not elsewhere.exists()
    monkeypatch.delenv("COHOBATE_ARTIFACT_POLICY")
    statement = verify(folder, public)
    assert statement.predicate["student"] == full.info.ref.digest and statement.predicate["blanks"] == {
        "model-card": []
    }
    card = folder / "model-card.md"
    before = card.read_bytes()
    for spoil, says in (
        (lambda: card.write_bytes(before + b"."), "model-card.md was changed"),
        (card.unlink, "model-card.md is missing"),
        (lambda: (folder / "more.md").write_text("m"), "more.md is not in the statement"),
    ):
        spoil()
        with pytest.raises(UntrustedError, match=says):
            verify(folder, public)
        card.write_bytes(before)
    (folder / "more.md").unlink()
    verify(folder, public)
    below = folder / "below" / "more.md"
    below.parent.mkdir()
    below.write_text("m")
    with pytest.raises(UntrustedError, match=r"below/more\.md is not in the statement"):
        verify(folder, public)
    refused = CliRunner().invoke(app, [*words[:-4], "--only", "licences", "--output", str(folder)])
    assert isinstance(refused.exception, ConfigError) and "below, model-card.html" in str(refused.exception)
    assert sorted(p.name for p in folder.iterdir()) == [
        "below", "documents.dsse", "model-card.html", "model-card.json", "model-card.md",
    ]  # fmt: skip
    shutil.rmtree(below.parent)
    public.write_bytes(Ed25519PrivateKey.generate().public_key().public_bytes(serialization.Encoding.PEM, spki))
    with pytest.raises(UntrustedError, match="did not sign it"):
        verify(folder, public)
    monkeypatch.delenv("COHOBATE_ARTIFACT_SIGNING_KEY")
    assert "not signed" in CliRunner().invoke(app, words).output
    with pytest.raises(ArtifactError, match="does not exist"):
        verify(folder, public)


def test_a_statement_without_a_value_has_a_reason_or_a_blank():
    with pytest.raises(ValueError, match="nothing says why"):
        fact("a", "A", None)
    assert fact("a", "A", (), absent="none").value == "none"
    blank = declared("b", "B", "unknown", "data.personal", "spec:1")
    assert (blank.state, blank.value, blank.fill) == ("blank", None, "declare data.personal in the spec")
