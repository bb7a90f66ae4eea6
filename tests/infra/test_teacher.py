import json

import pytest
from typer.testing import CliRunner

from components.control.teachers import TeacherState, open_incident, put_teacher
from components.stream.memory import MemoryBroker
from infra.cli import app
from tests.stores import migrated

TEACHER = "magika@" + "a" * 64


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    monkeypatch.setattr("components.stream.open_broker", lambda _: broker)
    broker = MemoryBroker()
    store = migrated(f"sqlite:///{tmp_path}/control.db")
    state = TeacherState(space="s@1")
    put_teacher(store, "files", TEACHER, 0, state)
    open_incident(
        store, "files", TEACHER, 1, state, suspect_from=1.0, index=5, candidate=[], detail={"first": {"key": "k1"}}
    )
    store.close()
    return lambda *args: CliRunner().invoke(app, ["teacher", *args, "--json"])


def test_a_person_sees_the_change_and_decides(run):
    before = json.loads(run("status").stdout)
    assert before["teachers"][0]["status"] == "suspect"
    assert (before["incidents"][0]["first_label"], before["incidents"][0]["verdict"]) == ("k1", None)
    done = json.loads(run("accept", "--reason", "new version").stdout)
    assert done == {
        "incident": 1, "teacher": TEACHER, "verdict": "accept", "released": 0, "dropped": 0, "relabelled": 0
    }  # fmt: skip
    after = json.loads(run("status").stdout)
    assert (after["teachers"][0]["status"], after["teachers"][0]["epoch"]) == ("trusted", 1)
    assert after["incidents"][0]["settled"] is True
    assert run("reject", "--reason", "too late").exit_code == 1


def test_keys_for_signatures(run):
    pair = json.loads(run("keygen").stdout)
    assert set(pair) == {"label_signing_key", "signed_by"} and pair["label_signing_key"] != pair["signed_by"]
