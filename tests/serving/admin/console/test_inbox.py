"""What waits for a person: alarms, a teacher that changed, questions and dead letters."""

import functools
import re

import pytest

from components.contracts.admission import dead_letter
from components.contracts.errors import RecordError, UnavailableError
from components.contracts.records import Input, Label, SoftLabel, decode, encode, label_key
from components.control.alarms import silenced
from components.control.teachers import TeacherState, incidents, open_incident, put_teacher, teacher_state
from components.review import reviews
from components.stream.contract import Record
from components.stream.memory import MemoryBroker
from components.teacher_watch import settle as settle_module
from components.teachers.contract import Deferred, Question
from serving.admin.app import create_app
from tests.serving.admin.conftest import W
from tests.serving.admin.console.test_runs import Pipelines
from tests.serving.admin.console.test_workload import MARKUP, SHOWN
from tests.serving.conftest import spec  # noqa: F401 - a fixture

TEACHER, SPACE, CLASSES = "sign@1", "signs@1", ("neg", "pos", MARKUP)
HERE = f"/console/w/{W}"


@pytest.fixture
def broker(spec):  # noqa: F811
    made = MemoryBroker()
    made.ensure_topics(spec.topics)
    return made


@pytest.fixture
def app(settings, control, broker, spec):  # noqa: F811
    pipelines = Pipelines()
    pipelines.spec = lambda workload: spec
    return create_app(settings, store=control, pipelines=pipelines, broker=lambda: broker)


@pytest.fixture
def send(person):
    """``send(role, page, **fields)`` posts a form of somebody's own session."""

    def make(role, page, **fields):
        one = person(role)
        return one.post(f"{HERE}/{page}", data={"csrf": one.csrf("/console/inbox"), **fields}, follow_redirects=False)

    return make


@pytest.fixture
def alarm(control):
    control.raise_alarm(W, "drift", 7, {"champion": "1", "drifted": [MARKUP]})
    return control.alarms(W)[0].id


def test_an_alarm_is_seen_with_a_note_and_no_longer_counted(person, send, alarm, control):
    viewer = person("viewer")
    assert "1 open" in viewer.get("/console/").text and "I have seen it" not in viewer.get("/console/inbox").text
    assert send("operator", f"alarms/{alarm}", note="").status_code == 422
    assert send("viewer", f"alarms/{alarm}", note="looking").status_code == 403
    assert send("operator", f"alarms/{alarm + 1}", note="looking").status_code == 404
    assert send("operator", f"alarms/{alarm}", note=MARKUP).status_code == 303
    text = viewer.get("/console/inbox").text
    assert "Seen by operator-eve" in text and text.count(SHOWN) == 2 and "<img" not in text
    assert "1 open" not in viewer.get("/console/").text


def test_a_kind_of_alarms_is_silenced_for_a_time_and_heard_again(person, send, alarm, control):
    for fields in ({"hours": "soon"}, {"hours": "1e9"}, {"hours": "nan"}, {"note": ""}, {"kind": ""}):
        given = {"kind": "drift", "hours": "2", "note": "known", **fields}
        assert send("operator", "silence", **given).status_code == 422
    assert send("operator", "silence", kind="drift", hours="2", note="known").status_code == 303
    operator = person("operator")
    assert "1 open" not in operator.get("/console/").text
    text = operator.get("/console/inbox").text
    assert "Silenced by operator-eve" in text and "End the silence of drift" in text
    assert send("operator", "silence", kind="drift", hours="0", note="over").status_code == 303
    assert "1 open" in operator.get("/console/").text
    with control.session() as s:
        assert silenced(s, control.clock()) == {}


@pytest.fixture
def incident(control):
    put_teacher(control, W, TEACHER, 0, TeacherState(space=SPACE, probes=({"a": 1},)))
    state = teacher_state(control, W, TEACHER)[1]
    return open_incident(
        control, W, TEACHER, 1, state, suspect_from=0.0, index=3, candidate=[{"a": 2}], detail={"suspects": 2}
    )


@pytest.mark.parametrize(("verdict", "status"), [("accept", "trusted"), ("reject", "held")])
def test_a_changed_teacher_is_decided_about_and_its_labels_are_moved(
    person, send, incident, control, monkeypatch, ledger, verdict, status
):
    at_once = functools.partial(settle_module.settle, grace=0.0)
    monkeypatch.setattr(settle_module, "settle", at_once)
    assert "sign@1 answers otherwise than it did" in person("viewer").get("/console/inbox").text
    assert send("viewer", f"teacher/{verdict}", reason="r").status_code == 403
    assert send("operator", f"teacher/{verdict}", reason=" ").status_code == 422
    assert send("operator", "teacher/maybe", reason="r").status_code == 422
    assert teacher_state(control, W, TEACHER)[1].status == "suspect"
    assert send("operator", f"teacher/{verdict}", reason="its owner said so").status_code == 303
    (row,) = incidents(control, W)
    assert (row.verdict, row.settled_at is not None) == (verdict, True)
    assert teacher_state(control, W, TEACHER)[1].status == status
    entry = next(e for e in ledger() if e[2] == f"teacher-{verdict}")
    assert entry[1] == "operator-eve" and entry[3]["reason"] == "its owner said so"
    assert "answers otherwise" not in person("viewer").get("/console/inbox").text


def test_labels_that_could_not_be_moved_yet_are_said_to_be(person, send, incident, control, broker, monkeypatch):
    monkeypatch.setattr(settle_module, "settle", functools.partial(settle_module.settle, grace=0.0))

    def away():
        raise UnavailableError("Kafka", "here", "is it up?")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "producer", away)
        assert send("operator", "teacher/accept", reason="r").status_code == 303
    text = person("operator").get("/console/inbox").text
    assert "Decided: <b>accept</b>" in text and "press the same again" in text and "teacher/reject" not in text
    assert send("operator", "teacher/accept", reason="again").status_code == 303
    assert incidents(control, W)[0].settled_at is not None


@pytest.fixture
def asked(control):
    """Two questions, the first with a draft."""
    found = []
    for number, draft in ((1, {"neg": 0.2, "pos": 0.7, MARKUP: 0.1}), (2, None)):
        entry = Input(workload=W, id=f"i{number}", key="k", time=float(number), payload=f"{MARKUP}{number}".encode())
        soft = None if draft is None else SoftLabel(task="classification", space=SPACE, distribution=draft)
        found.append(Question(label_key(entry, TEACHER, SPACE), entry, Deferred(MARKUP, soft)))
        control.clock = lambda number=number: 1_800_000_000.0 + number
        reviews.ask(control, W, TEACHER, SPACE, CLASSES, found[-1:])
    return found


def labels(broker):
    return [decode(Label, r.value) for p in broker.partitions(f"{W}.labels") for r in broker.logs[p]]


def test_questions_are_answered_one_after_the_other_by_a_key(person, asked, control, broker):
    viewer, operator = person("viewer"), person("operator")
    assert f'/questions">{W}</a>: 2 wait' in viewer.get("/console/inbox").text
    assert "data-key" not in viewer.get(f"{HERE}/questions").text
    text = operator.get(f"{HERE}/questions").text
    found = re.findall(r'value="([^"]*)" data-key="(.)"', text)
    assert [(name, key) for name, key in found][:2] == [("pos", "1"), ("neg", "2")]
    assert SHOWN in text and "<img" not in text and "70 %" in text
    fields = operator.form(f"{HERE}/questions")
    action = re.search(r'action="([^"]+)"[^>]*data-keys', text)[1]
    done = operator.post(action, data={**fields, "label": "pos", "confidence": "0.8"}, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, f"{HERE}/questions")
    (label,) = labels(broker)
    assert (label.annotator, label.soft.distribution["pos"], label.input.id) == ("operator-eve", 0.8, "i1")
    assert "1 wait" in operator.get(f"{HERE}/questions").text


def test_answers_that_make_no_sense_are_refused(send, asked, control, broker):
    page = f"questions/{asked[0].key}"
    for role, fields, status in (
        ("operator", {"label": "maybe"}, 422), ("operator", {"label": "pos", "confidence": "x"}, 422),
        ("operator", {"label": "pos", "confidence": "0.1"}, 422), ("viewer", {"label": "pos"}, 403),
    ):  # fmt: skip
        assert send(role, page, **fields).status_code == status
    assert send("operator", "questions/none", label="pos").status_code == 404
    assert labels(broker) == [] and len(reviews.waiting(control, W)) == 2
    assert send("operator", page, label="pos").status_code == 303
    assert send("admin", page, label="neg").status_code == 409


def test_an_answer_is_kept_while_the_stream_is_away(send, asked, control, broker, monkeypatch):
    def away(*_, **__):
        raise UnavailableError("Kafka", "here", "is it up?")

    monkeypatch.setattr(broker, "consumer", away)
    refused = send("operator", f"questions/{asked[0].key}", label="pos")
    assert refused.status_code == 503 and "The answer is kept" in refused.text
    assert len(reviews.waiting(control, W)) == 1


@pytest.fixture
def dead(broker):
    """Two dead letters."""
    producer = broker.producer()
    for offset in range(2):
        entry = Input(workload=W, id=f"i{offset}", key="k", time=1.0, payload=MARKUP.encode())
        record = Record(f"{W}.inputs", 0, offset, b"k", encode(entry), {}, 1.0)
        letter = dead_letter(record, RecordError("bad_json", MARKUP), W, 5.0)
        producer.send(f"{W}.inputs.dlq", "k", encode(letter))
    producer.flush()
    return [f"{W}.inputs-0@0", f"{W}.inputs-0@1"]


def inputs(broker):
    return [r for p in broker.partitions(f"{W}.inputs") for r in broker.logs[p]]


def test_dead_letters_are_shown_replayed_and_dropped(person, send, dead, broker, ledger):
    viewer = person("viewer")
    text = viewer.get(f"{HERE}/letters").text
    assert all(name in text for name in dead) and SHOWN in text and "<img" not in text and "checkbox" not in text
    assert send("viewer", "letters", letter=dead[0], reason="r", do="replay").status_code == 403
    assert send("operator", "letters", reason="r", do="replay").status_code == 422
    assert send("operator", "letters", letter=dead[0], reason="", do="replay").status_code == 422
    assert inputs(broker) == []
    done = send("operator", "letters", letter=[dead[0]], reason="mended", do="replay")
    assert done.status_code == 200 and f"{dead[0]}: <b>replayed</b>" in done.text
    assert len(inputs(broker)) == 1
    both = send("operator", "letters", letter=dead, reason="of no use", do="drop")
    assert f"{dead[0]}: <b>refused</b>" in both.text and f"{dead[1]}: <b>dropped</b>" in both.text
    text = viewer.get(f"{HERE}/letters").text
    assert "replayed by operator-eve (mended)" in text and "dropped by operator-eve (of no use)" in text
    assert {e[1] for e in ledger() if e[2].startswith("dlq")} == {"operator-eve"}


def test_a_stream_that_is_away_is_said_to_be(person, broker, monkeypatch):
    def away(*_, **__):
        raise UnavailableError("Kafka", "here", "is it up?")

    monkeypatch.setattr(broker, "consumer", away)
    refused = person("viewer").get(f"{HERE}/letters")
    assert refused.status_code == 503 and "Kafka at here does not answer" in refused.text
