"""From made-up inputs to a held student, and from that to the first one of real inputs, by the pipelines' own steps."""

import time

import msgspec
import pyarrow.parquet as pq
import pytest

from components.contracts.admission import check_consent
from components.contracts.errors import ConfigError, FinderError, RecordError, UntrustedError
from components.contracts.records import Input, content_hash, synthetic_input
from components.contracts.settings import Settings
from components.contracts.spec import Consent, load_spec
from components.contracts.storage import get_bytes, put_bytes, remove
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.control.tables import SpendingRow
from components.distill.step import distil
from components.evaluate.report import columns, drift_report
from components.evaluate.step import judge
from components.label.asking import Company
from components.label.history import label_history
from components.label.history_file import Historic, read_history
from components.label.labeler import Labeler
from components.ledger import signatures
from components.ledger.keys import add
from components.ledger.ledger import entries as entries_of
from components.query.budget import Budget
from components.query.selector import Selector
from components.registry.step import register
from components.snapshot import freeze, read
from components.snapshot.step import sign
from components.snapshot.table import representatives
from components.stream.memory import MemoryBroker
from components.synthetic.step import synthesise
from tests.components.synthetic.conftest import TEXTS
from tests.components.synthetic.teachers import FILLING, KNOWN, Words
from tests.keys import keys

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    store = ControlStore(Settings().control_url)
    store.migrate()
    yield store
    store.close()


def labelled(spec, broker, entries, store):
    """Label a history as the platform's labeler does, its budget counted, and freeze it."""
    budget = Budget(spec.label.budget, spec.name, store)
    company = Company(selector=Selector(spec, budget))
    label_history(
        spec, broker, store, entries, patience=0.0, make=lambda: Labeler(spec, Words(), broker, company=company)
    )
    settings = Settings()
    return freeze(spec, broker, store, settings.artifacts, now=time.time(), vouch=lambda w: sign(settings, store, w))


@pytest.fixture
def signing(home, tmp_path, monkeypatch):
    """Nothing is used that is not signed; the id of the key that signs."""
    secret, public = keys(tmp_path)
    monkeypatch.setenv("COHOBATE_ARTIFACT_SIGNING_KEY", str(secret))
    monkeypatch.setenv("COHOBATE_ARTIFACT_POLICY", "signed")
    return add(home, "ana", public.read_bytes(), name="ci", reason="a test").id


def paid_for(store):
    """All calls that the budget has counted, on whatever day."""
    with store.session() as s:
        return sum(row.calls for row in s.query(SpendingRow).filter_by(period="day"))


def refusals(store):
    return [e.detail["code"] for e in entries_of(store, "words") if e.action == signatures.REFUSED]


def real(n):
    """Traffic: a word that is known among others, a different text each time."""
    filling, kinds = sorted(FILLING), sorted(KNOWN)
    for i in range(n):
        word = sorted(KNOWN[kinds[i % 3]])[i // 3 % 3]
        text = f"{filling[i % 96]} {word} {filling[(i * 7 + i // 96) % 96]} {word} x{i}"
        yield Historic(input=Input(workload="words", id=f"r{i}", key=f"k{i}", time=1e9 + i, payload=text.encode()))


def test_a_student_of_made_up_inputs_is_held_and_real_ones_go_on_from_it(write, home, signing):
    """All of it signed: without its signature a window is not learnt from, nor a parent, nor is evidence registered."""
    terms = {"licence": {"attribution": "Made from words."}}
    path = str(write(TEXTS, label={"budget": {"per_day": 5_000, "paced": False}}, data=terms))
    spec, broker = load_spec(path), MemoryBroker()
    uri = synthesise(path)
    assert synthesise(path) == uri, "the same order makes the same file"
    entries = read_history(uri, spec)
    assert {e.input.synthetic for e in entries} == {"search;seed=0;steps=8"}
    before = paid_for(home)
    window = labelled(spec, broker, entries, home)
    assert paid_for(home) == before + len(entries)
    # what was made up is learnt from, and judges nothing
    table = read(window.uri, window.digest)
    assert set(table["split"].to_pylist()) == {"train"} and not any(table["audit"].to_pylist())
    assert set(table["policy"].to_pylist()) == {"synthetic"}
    assert set(table["synthetic"].to_pylist()) == {"search;seed=0;steps=8"}
    assert representatives(spec, table.to_pylist()) == [] and columns(spec, [window])["teacher_label"] == []
    assert window.manifest["synthetic_rows"] == window.rows == len(entries)
    # the gate holds its student and says why
    envelope = f"{window.uri}{signatures.SUFFIX}"
    kept = get_bytes(envelope)
    remove(envelope)
    with pytest.raises(UntrustedError, match="not signed"):
        distil(path, "", True, window.digest)
    put_bytes(envelope, kept)
    judged = judge(path, distil(path, "", True, window.digest))
    assert judged.card.synthetic == {"search;seed=0;steps=8": len(entries)} and judged.data_free
    assert judged.card.attribution == ("Made from words.",)
    assert judged.decision == "hold" and judged.verdict["findings"], "its verdict is what the evidence leads to"
    with pytest.raises(UntrustedError, match="comes with promote"):
        register(path, msgspec.structs.replace(judged, decision="promote"), True)
    assert refusals(home) == ["unsigned", "other_verdict"]
    version = register(path, judged, True)
    require_provenance(spec, home, judged, version, window, signing)
    assert home.intent("words")[1].champion is None
    # the first real inputs: they are held out as ever, and their student starts from the one before
    later = labelled(spec, broker, list(real(300)), home)
    sides = read(later.uri, later.digest).to_pylist()
    assert {r["split"] for r in sides} == {"train", "holdout"} and all(r["synthetic"] is None for r in sides)
    place = f"{judged.uri}{signatures.SUFFIX}"
    kept = get_bytes(place)
    put_bytes(place, get_bytes(envelope))
    with pytest.raises(UntrustedError, match="of a urn:cohobate:snapshot:v1"):
        distil(path, "", False, later.digest)
    put_bytes(place, kept)
    first = distil(path, "", False, later.digest)
    assert first.card.parent == version and first.card.synthetic == judged.card.synthetic and not first.data_free
    assert distil(path, "base", True, later.digest).card.parent == version
    assert drift_report(spec, home.windows("words"), "memory://r", "memory://w") == ("", "", None), "no traffic before"
    done = judge(path, first)
    assert done.decision == "promote", done.verdict["reasons"]


def require_provenance(spec, store, judged, version, window, key):
    """What the statement says that was signed when the student was registered."""
    model = ModelRef(
        version=version, uri=judged.uri, digest=judged.digest, snapshot=window.digest, teacher=judged.card.teacher
    )  # fmt: skip
    said = signatures.vouched(store, "words", model, "hold")
    assert set(said.digests) >= {"model.onnx", "float.onnx", "student.safetensors", "environment.txt"}
    assert said.digests["model.onnx"] == judged.digest
    made, run = said.predicate["buildDefinition"], said.predicate["runDetails"]
    chosen = made["externalParameters"]
    assert (chosen["workload"], chosen["spec"], chosen["variant"]) == ("words", spec.digest, judged.card.variant)
    named = {d["name"]: d for d in made["resolvedDependencies"]}
    assert named["snapshot 0"]["digest"] == {"sha256": window.digest} and named["snapshot 0"]["uri"] == window.uri
    assert named["teacher words"]["annotations"] == {"of": judged.card.teacher}
    assert named["environment"]["digest"]["sha256"] == said.digests["environment.txt"]
    assert run["byproducts"][0]["annotations"] == {"decision": "hold", "forced": True}
    (entry,) = [e for e in entries_of(store, "words") if e.action == "register"]
    assert entry.detail["signed_by"] == key


class OfTexts:
    """Scores that are the payloads themselves."""

    def __init__(self):
        self.asked, self.told = [], []

    def __call__(self, payloads):
        self.asked.append(list(payloads))
        return [list(payloads)]

    def labelled(self, places):
        self.told.append(list(places))

    def of_new_regime(self, inputs, payloads):
        return set()


def test_scores_are_of_traffic_alone(write, home):
    """What was made up would else fill a coverage's memory, and say what is rare."""
    spec, broker, scores = load_spec(str(write(TEXTS))), MemoryBroker(), OfTexts()
    made_up = [Historic(input=synthetic_input("words", b"made up %d" % n, "noise;seed=0", time=1e9)) for n in range(4)]
    entries = [e for pair in zip(real(4), made_up, strict=True) for e in pair]
    company = Company(selector=Selector(spec, Budget(spec.label.budget, spec.name, home)), scores=scores)
    label_history(
        spec, broker, home, entries, patience=0.0, make=lambda: Labeler(spec, Words(), broker, company=company)
    )
    asked = [text for batch in scores.asked for text in batch]
    assert sorted(asked) == sorted(e.input.payload.decode() for e in real(4))
    assert [len(batch) for batch in scores.asked] == [len(places) for places in scores.told]


def test_no_row_that_was_made_up_calibrates_or_is_held_out_beside_real_ones(write, home):
    path = str(write(TEXTS, student={"calibration": "apart", "calibration_share": 0.3, "data_free": {"rows": 60}}))
    spec, broker = load_spec(path), MemoryBroker()
    entries = [*read_history(synthesise(path, method="noise"), spec), *real(60)]
    window = labelled(spec, broker, entries, home)
    from components.distill.data import holdouts, update_rows

    learnt = update_rows(spec, [window], 0)
    held = holdouts(spec, [window])[-1][1]
    assert learnt.new.synthetic.count("noise;seed=0") == 60
    assert len(learnt.calibration) > 5 and set(learnt.calibration.synthetic) == {""}
    assert len(held) > 5 and set(held.synthetic) == {""}
    crossfit = msgspec.structs.replace(spec, student=msgspec.structs.replace(spec.student, calibration="crossfit"))
    assert set(update_rows(crossfit, [window], 0, fresh=True).calibration.synthetic) == {""}


def test_rows_that_the_label_budget_does_not_cover_are_refused_before_anything_is_asked(write, home):
    path = str(write(TEXTS, label={"budget": {"per_day": 100}}))
    with pytest.raises(ConfigError, match=r"student\.data_free\.rows is 240: the label budget leaves 90 labels"):
        synthesise(path)
    assert paid_for(home) == 0
    with pytest.raises(ConfigError, match="more calls of the teacher are not left"):
        synthesise(path, rows=90)
    assert len(read_history(synthesise(path, rows=90, method="noise"), load_spec(path))) == 90


def test_what_is_made_up_is_masked_before_it_is_kept(write, home, tmp_path):
    word = sorted(FILLING)[0]
    (tmp_path / "finder.py").write_text(
        f"def find(text):\n    at = text.find({word!r})\n    return [('NAME', at, at + {len(word)})] if at >= 0 else []"
        "\n\n\ndef made():\n    return find\n"
    )
    plain = str(write(TEXTS))
    table = pq.read_table(synthesise(plain, "noise", 60, 0, 7).removeprefix("file://"))
    assert any(word.encode() in payload for payload in table["payload"].to_pylist())
    path = str(
        write(TEXTS, masking={"entities": ["NAME"], "finder": {"factory": str(tmp_path / "finder.py") + ":made"}})
    )
    table = pq.read_table(synthesise(path, "noise", 60, 0, 7).removeprefix("file://"))
    found = table["payload"].to_pylist()
    assert not any(word.encode() in payload for payload in found) and any(b"[NAME]" in payload for payload in found)
    made = [synthetic_input("words", payload, "noise;seed=7", time=1.0).id for payload in found]
    assert table["id"].to_pylist() == made and len(set(made)) == len(made)


FAILING = """
def find(text):
    if {fails}:
        raise OSError(text)
    return []


def made():
    return find
"""


def test_what_cannot_be_searched_is_left_out_and_counted_and_nothing_is_paid_where_nothing_can(
    write, home, tmp_path, caplog
):
    word = sorted(FILLING)[0]
    plain = pq.read_table(synthesise(str(write(TEXTS)), "noise", 60, 0, 7).removeprefix("file://"))
    kept = [payload for payload in plain["payload"].to_pylist() if word.encode() not in payload]
    assert 0 < len(kept) < plain.num_rows
    masking = {"entities": ["NAME"], "finder": {"factory": str(tmp_path / "finder.py") + ":made"}}
    (tmp_path / "finder.py").write_text(FAILING.format(fails=f"{word!r} in text"))
    table = pq.read_table(synthesise(str(write(TEXTS, masking=masking)), "noise", 60, 0, 7).removeprefix("file://"))
    assert table["payload"].to_pylist() == kept
    assert f"{plain.num_rows - len(kept)} of {plain.num_rows} inputs that were made up are left out" in caplog.text
    (tmp_path / "away.py").write_text(FAILING.format(fails="True"))
    masking["finder"]["factory"] = str(tmp_path / "away.py") + ":made"
    path = str(write(TEXTS, masking=masking, label={"budget": {"per_day": 1000}}))
    paid = paid_for(home)
    with pytest.raises(FinderError):
        synthesise(path)
    assert paid_for(home) == paid


def test_a_run_s_own_wishes_go_before_the_spec_s(write, home, tmp_path):
    path = str(write(TEXTS))
    table = pq.read_table(synthesise(path, "noise", 20, 0, 7).removeprefix("file://"))
    assert table.num_rows == 20 and set(table["synthetic"].to_pylist()) == {"noise;seed=7"}
    with pytest.raises(ConfigError, match=r"student\.data_free .*magic"):
        synthesise(path, "magic")


def test_a_made_up_row_of_a_history_has_no_truth_and_needs_no_consent(write, tmp_path):
    spec = load_spec(write(TEXTS))
    file = tmp_path / "history.jsonl"
    file.write_text('{"text": "a b", "synthetic": "mine", "label": "animal"}\n')
    with pytest.raises(ConfigError, match="what was made up has no truth"):
        read_history(str(file), spec)
    file.write_text('{"text": "a b", "synthetic": "mine"}\n')
    (entry,) = read_history(str(file), spec)
    assert entry.input.schema == 2 and entry.input.synthetic == "mine" and len(content_hash(entry.input.payload)) == 64
    with pytest.raises(RecordError, match="names no terms"):
        check_consent(entry.input.consent, Consent(required=True))


def test_no_inputs_are_made_up_for_sets_of_classes(write):
    bare = {name: section for name, section in TEXTS.items() if name != "student"}
    with pytest.raises(ConfigError, match=r"task.*classification and regression alone"):
        synthesise(str(write(bare | {"task": "multilabel"})))
