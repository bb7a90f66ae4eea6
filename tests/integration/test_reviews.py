import json

import pytest
from typer.testing import CliRunner

from components.contracts.records import Input, Label, SoftLabel, decode, label_key
from components.contracts.settings import Settings
from components.review import reviews
from components.stream import open_broker
from components.stream.contract import read_to_end
from components.teachers.contract import Deferred, Question
from infra.broker import EmbeddedBroker
from infra.cli import app, run_guarded
from tests.ports import free_port
from tests.stores import migrated

pytestmark = pytest.mark.integration

SPACE, CLASSES, TEACHER = "mail@1", ("ham", "spam"), "human@" + "d" * 64

runner = CliRunner()


@pytest.fixture
def settings(tmp_path, monkeypatch, embedded):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    monkeypatch.setenv("COHOBATE_BOOTSTRAP_SERVERS", embedded)
    monkeypatch.setenv("COHOBATE_ACTOR", "ada")
    return Settings()


@pytest.fixture
def embedded(tmp_path):
    with EmbeddedBroker(free_port(), tmp_path / "broker.log") as broker:
        yield broker.address


@pytest.fixture
def questions(settings):
    store = migrated(settings.control_url)
    open_broker(settings).ensure_topics(["w.labels"], partitions=2)
    made = []
    for payload in (b"win!", b"\xff\xfe"):
        entry = Input(workload="w", id=f"i-{len(made)}", key="k", time=1.0, payload=payload)
        draft = SoftLabel.of(SPACE, CLASSES, [0.4, 0.6])
        made.append(Question(label_key(entry, TEACHER, SPACE), entry, Deferred("unsure", draft)))
    reviews.ask(store, "w", TEACHER, SPACE, CLASSES, made)
    store.close()
    return made


def cohobate(*args):
    done = runner.invoke(app, ["review", *args, "--workload", "w", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_a_person_lists_and_answers(settings, questions):
    rows = cohobate("list")
    assert {r["payload"] for r in rows} == {"win!", "base64://4="}
    assert rows[0]["draft"] == "spam 0.600" and rows[0]["why"] == "unsure" and len(rows[0]["key"]) == 12
    key = questions[0].key
    answered = cohobate("answer", key[:10], "--label", "spam", "--confidence", "0.9")
    assert answered["annotator"] == "ada" and answered["published_at"]
    assert [r["key"] for r in cohobate("list")] == [questions[1].key[:12]]
    assert cohobate("show", questions[1].key[:10])["key"] == questions[1].key
    assert cohobate("publish") == {"workload": "w", "published": 0}
    consumer = open_broker(settings).consumer(["w.labels"])
    (label,) = [decode(Label, r.value) for r in read_to_end(consumer)]
    consumer.close()
    assert (label.key, label.annotator) == (key, "ada")
    assert label.soft.distribution == pytest.approx({"spam": 0.9, "ham": 0.1})


def test_a_wrong_class_is_one_line_and_exit_code_1(settings, questions, capsys):
    args = ["review", "answer", questions[0].key, "--label", "eggs", "--workload", "w"]
    with pytest.raises(SystemExit) as ended:
        run_guarded(lambda: app(args, standalone_mode=False))
    assert ended.value.code == 1 and "must be one of ham, spam" in capsys.readouterr().err
