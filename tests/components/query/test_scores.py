import msgspec
import numpy as np
import pytest

from components.contracts.records import Input, SoftLabel
from components.contracts.spec import Label, Policy
from components.contracts.storage import digest_of, local_path, put_bytes
from components.control.intent import Intent, ModelRef
from components.query.scores import StudentScores
from components.student.card import StudentCard
from components.student.runtime import Reply, Student
from tests.clock import Clock
from tests.students import bag, exported

PAYLOADS = [b"one", b"two", b"three"]


@pytest.fixture
def student(letter_spec, tmp_path):
    """A reference to a student of random weights."""

    def make(version):
        chance = np.random.default_rng(int(version))
        shapes = {
            "embedding.weight": (1024, 4), "hidden.weight": (5, 4), "hidden.bias": (5,), "head.weight": (2, 5),
            "head.bias": (2,), "norm.weight": (4,), "norm.bias": (4,),
        }  # fmt: skip
        card = StudentCard(
            workload="letters", task="classification", space="letters@1", classes=("a", "b"),
            features=letter_spec.features, payload=letter_spec.payload, **bag(1024, 4, 5), variant="tiny",
            snapshots=("0" * 64,), teacher="t@1", parent=None, code="0",
        )  # fmt: skip
        data = exported(card, {n: chance.standard_normal(s).astype(np.float32) for n, s in shapes.items()})
        uri = f"file://{tmp_path}/{version}.onnx"
        put_bytes(uri, data)
        return ModelRef(version=version, uri=uri, digest=digest_of(data), snapshot="s", teacher="t@1")

    return make


@pytest.fixture
def scores(letter_spec, store):
    def make(kind):
        spec = msgspec.structs.replace(letter_spec, label=Label(policy=Policy(kind=kind)))
        return StudentScores(spec, store, refresh_seconds=0.0)

    return make


def intend(store, **refs):
    revision, _ = store.intent("letters")
    store.put_intent("letters", revision, Intent(**refs))


def test_the_champion_is_asked_and_followed(scores, store, student):
    ask = scores("margin")
    assert ask(PAYLOADS) is None
    intend(store, champion=student("1"))
    (first,) = ask(PAYLOADS)
    assert len(first) == 3 and all(isinstance(s, SoftLabel) for s in first)
    assert ask(PAYLOADS) == [first]
    intend(store, champion=student("2"), previous=student("1"))
    (second,) = ask(PAYLOADS)
    assert second != first


def test_a_committee_is_of_all_that_the_intent_names_once(scores, store, student):
    ask = scores("committee")
    intend(store, champion=student("1"), candidate=student("2"), previous=student("1"))
    assert len(ask(PAYLOADS)) == 2
    intend(store, champion=student("1"), candidate=student("2"), previous=student("3"))
    assert len(ask(PAYLOADS)) == 3


def test_novelty_is_the_champion_s_and_unknown_where_it_tells_none(scores, store, student, monkeypatch):
    ask = scores("novelty")
    assert ask(PAYLOADS) is None
    intend(store, champion=student("1"), previous=student("2"))
    assert ask(PAYLOADS) is None, "these students were made before novelty was told"
    told = [Reply(SoftLabel(task="classification", space="s", distribution={"a": 1.0}), 0.25)] * 3
    monkeypatch.setattr(Student, "tells_novelty", True)
    monkeypatch.setattr(Student, "reply_decoded", lambda self, payloads: told)
    assert ask(PAYLOADS) == [told]


@pytest.mark.parametrize("kind", ["all", "random"])
def test_policies_that_ask_nobody_load_nothing(scores, store, student, kind, monkeypatch):
    intend(store, champion=student("1"))
    monkeypatch.setattr(store, "intent", None)
    assert scores(kind)(PAYLOADS) is None


def test_a_student_that_cannot_be_loaded_stops_no_labelling(scores, store, student, caplog):
    ref = student("1")
    data = local_path(ref.uri).read_bytes()
    local_path(ref.uri).write_bytes(b"broken")
    intend(store, champion=ref)
    ask = scores("entropy")
    assert ask(PAYLOADS) is None and "version 1 cannot give scores" in caplog.text
    local_path(ref.uri).write_bytes(data)
    assert len(ask(PAYLOADS)) == 1


def entry(n, at):
    return Input(workload="letters", id=f"i{n}", key="k", time=at, payload=PAYLOADS[n])


def test_of_a_new_regime_is_what_came_after_an_open_alarm_and_is_novel(scores, store, student, monkeypatch):
    ask = scores("margin")
    intend(store, champion=student("1"))
    monkeypatch.setattr(Student, "tells_novelty", True)
    told = dict(zip(PAYLOADS, (0.01, 0.5, 0.05), strict=True))
    said = SoftLabel(task="classification", space="s", distribution={"a": 1.0})
    monkeypatch.setattr(Student, "reply_decoded", lambda self, payloads: [Reply(said, told[p]) for p in payloads])
    store.clock = Clock(1_700_000_000.0)
    at = store.clock()
    came = [entry(n, at + 10) for n in range(3)]
    assert ask.of_new_regime(came, PAYLOADS) == set(), "no alarm is open"
    store.raise_alarm("letters", "lost_positions", 0, {"champion": "1"})
    store.raise_alarm("letters", "novelty", 0, {"champion": "another"})
    assert ask.of_new_regime(came, PAYLOADS) == set(), "none about the traffic of this champion"
    store.raise_alarm("letters", "novelty", 0, {"champion": "1"})
    assert ask.of_new_regime(came, PAYLOADS) == {0, 2}
    assert ask.of_new_regime([entry(0, at - 10), *came[1:]], PAYLOADS) == {2}, "it had come before"
    monkeypatch.setattr(Student, "tells_novelty", False)
    assert ask.of_new_regime([entry(0, at - 10), *came[1:]], PAYLOADS) == {1, 2}, "nobody can tell"
    assert scores("all").of_new_regime(came, PAYLOADS) == set(), "all are labelled anyway"
    store.answer_alarms("letters", "1", at + 60, "seen")
    assert ask.of_new_regime(came, PAYLOADS) == set()


def test_coverage_asks_no_student_and_knows_what_was_labelled(scores, store, monkeypatch):
    ask = scores("coverage")
    monkeypatch.setattr(store, "intent", None)
    ask(PAYLOADS)
    ask.labelled([0, 1])
    for _ in range(20):
        ask(PAYLOADS)
    ((one, two, other),) = ask(PAYLOADS)
    assert one < 0.5 and two < 0.5 and other > 0.9  # a third of what came was as far
