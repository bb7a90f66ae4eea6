import base64
import json
import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from components.contracts.admission import ATTEMPTS_HEADER, LETTER_BYTES, dead_letter
from components.contracts.errors import ConfigError, NotFoundError, RecordError
from components.contracts.records import Input, encode
from components.contracts.settings import Settings
from components.control.store import ControlStore
from components.dead_letters.replay import REPLAY_HEADER
from components.dead_letters.verdicts import LEASE_SECONDS
from components.ledger import entries, verify
from components.stream import open_broker
from components.stream.contract import Record, TopicPartition, read_to_end
from components.stream.memory import MemoryBroker
from infra.broker import EmbeddedBroker
from infra.cli import app
from infra.dlq import offsets, seconds
from tests.ports import free_port
from tests.stores import migrated

NOW = 1_700_000_000.0
VALUES = {
    "i0": encode(Input(workload="files", id="i0", key="k", time=NOW, payload=b"\xff[red]")),
    "i1": encode(Input(workload="files", id="i1", key="k", time=NOW, payload=b"x")),
    "": b"\xff[bold]",
}
REASONS = ("undecodable", "future_time", "undecodable")


def refuse(broker):
    """Three refused records and their letters, as a labeler leaves them."""
    producer = broker.producer()
    for offset, (value, reason) in enumerate(zip(VALUES.values(), REASONS, strict=True)):
        headers = {"trace": b"7"}
        producer.send("files.inputs", "k", value, headers)
        record = Record("files.inputs", 0, offset, b"k", value, headers, NOW)
        letter = dead_letter(record, RecordError(reason, "why [/red]"), "files", NOW + 60 * offset)
        producer.send("files.inputs.dlq", letter.key, encode(letter))
    producer.flush()
    producer.close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    monkeypatch.setenv("COHOBATE_ACTOR", "eve")
    store = migrated(Settings().control_url)
    yield store
    store.close()


@pytest.fixture
def broker(home, monkeypatch):
    broker = MemoryBroker()
    broker.ensure_topics(["files.inputs", "files.inputs.dlq"])
    refuse(broker)
    monkeypatch.setattr("infra.dlq.open_broker", lambda _: broker)
    return broker


def run(*args):
    return CliRunner().invoke(app, ["dlq", *args], env={"COLUMNS": "250", "NO_COLOR": "1"})


def told(*args, code=0):
    done = run(*args, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def results(rows):
    return [(row["letter"].rpartition("@")[2], row["result"]) for row in rows]


def repeated(broker):
    return [r for r in broker.logs[TopicPartition("files.inputs", 0)] if REPLAY_HEADER in r.headers]


def test_lists_letters_with_their_reasons(broker):
    first, second, third = told("list")
    assert first == {
        "letter": "files.inputs-0@0", "status": "open", "reason": "undecodable", "error": "RecordError",
        "detail": "why [/red]", "input": "i0", "at": NOW, "attempts": 1, "bytes": len(VALUES["i0"]), "cut": False,
        "decision": None,
    }  # fmt: skip
    assert (second["reason"], third["input"]) == ("future_time", None)
    text = run("list").stdout
    assert "3 dead letters" in text and "2 undecodable, 1 future_time" in text
    assert "files.inputs-0@2" in text and "2023-11-14T22:15:20Z" in text and "why [/red]" in text


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--reason", "future_time"], ["1"]),
        (["--reason", "future_time", "--reason", "undecodable"], ["0", "1", "2"]),
        (["--error", "KeyError"], []),
        (["--input", "i1"], ["1"]),
        (["--offsets", "1:"], ["1", "2"]),
        (["--offsets", ":1"], ["0", "1"]),
        (["--offsets", "2"], ["2"]),
        (["--partition", "1"], []),
        (["--topic", "files.inputs"], ["0", "1", "2"]),
        (["--since", "2023-11-14T22:14:20Z", "--until", "2023-11-14T22:14:20"], ["1"]),
        (["--status", "open"], ["0", "1", "2"]),
        (["--status", "replayed"], []),
    ],
)
def test_filters(broker, options, found):
    assert [row["letter"].rpartition("@")[2] for row in told("list", *options)] == found


@pytest.mark.parametrize(
    "options", [["--offsets", "a:b"], ["--offsets", ":x"], ["--since", "yesterday"], ["--status", "lost"]]
)
def test_a_filter_that_makes_no_sense_is_refused(broker, options):
    done = run("list", *options)
    assert isinstance(done.exception, ConfigError) and done.exception.field == options[0].removeprefix("--")


def test_bounds():
    assert (offsets(None), offsets("1:2"), offsets(":"), offsets("7")) == ((None, None), (1, 2), (None, None), (7, 7))
    assert seconds("since", "1970-01-01T01:00+01:00") == 0.0 and seconds("since", None) is None


@pytest.mark.parametrize("name", ["files.inputs-0@0", "0@0"])
def test_shows_one_letter_in_full(broker, name):
    letter = told("show", name)
    assert base64.b64decode(letter["value"]) == VALUES["i0"] and base64.b64decode(letter["key"]) == b"k"
    assert letter["headers"] == {"trace": base64.b64encode(b"7").decode()} and len(letter["digest"]) == 64
    text = run("show", name).stdout
    assert "header trace" in text and "b'7'" in text and "[red]" in text and "i0" in text


@pytest.mark.parametrize("command", [["show", "0@9"], ["replay", "0@0", "0@9"], ["drop", "0@9", "--why", "w"]])
def test_a_letter_that_does_not_exist_is_named_and_nothing_is_done(broker, home, command):
    done = run(*command)
    assert isinstance(done.exception, NotFoundError) and "files.inputs-0@9" in str(done.exception)
    assert entries(home) == [] and repeated(broker) == []


@pytest.mark.parametrize("command", [["replay"], ["drop", "--why", "w"]])
def test_nothing_is_done_to_all_letters_by_accident(broker, home, command):
    done = run(*command)
    assert isinstance(done.exception, ConfigError) and "--all" in str(done.exception)
    assert entries(home) == []


def test_replays_what_is_named_and_refuses_it_the_second_time(broker, home):
    assert results(told("replay", "0@1", "--why", "clock fixed")) == [("1", "replayed")]
    (record,) = repeated(broker)
    assert (record.value, record.headers["trace"], record.headers[ATTEMPTS_HEADER]) == (VALUES["i1"], b"7", b"2")
    (refused,) = told("replay", "0@1", code=1)
    assert refused["result"] == "refused" and "replayed by eve (clock fixed)" in refused["detail"]
    assert results(told("replay", "0@1", "--again")) == [("1", "replayed")] and len(repeated(broker)) == 2
    decision = told("list", "--status", "replayed")[0]["decision"]
    assert (decision["by"], decision["why"]) == ("eve", "replayed by hand")


def test_replays_in_bulk_what_is_open(broker):
    told("drop", "0@0", "--why", "noise")
    assert results(told("replay", "--reason", "undecodable")) == [("2", "replayed")]
    assert results(told("replay", "--all", "--rate", "1000")) == [("1", "replayed")]
    assert told("replay", "--all") == []
    assert results(told("replay", "--all", "--again")) == [("0", "replayed"), ("1", "replayed"), ("2", "replayed")]
    assert len(repeated(broker)) == 5


def test_drops_with_a_reason_into_the_ledger(broker, home):
    assert run("drop", "0@0").exit_code == 2
    assert results(told("drop", "--reason", "undecodable", "--why", "a test client")) == [
        ("0", "dropped"), ("2", "dropped"),
    ]  # fmt: skip
    (entry,) = entries(home, "files")
    assert (entry.action, entry.actor, entry.detail["why"]) == ("dlq-drop", "eve", "a test client")
    assert verify(home) == 1
    assert results(told("drop", "0@0", "--why", "again", code=1)) == [("0", "refused")]
    text = run("replay", "0@0")
    assert text.exit_code == 1 and "1 refused" in text.stdout and "a test client" in text.stdout


def test_a_letter_whose_record_is_gone_fails_with_the_remedy(broker):
    value = b"\xc1" * (LETTER_BYTES + 1)
    letter = dead_letter(
        Record("files.inputs", 0, 9, b"k", value, {}, NOW), RecordError("oversize", "d"), "files", NOW
    )  # fmt: skip
    broker.producer().send("files.inputs.dlq", letter.key, encode(letter))
    (failed,) = told("replay", "0@9", code=1)
    assert failed["result"] == "failed" and "then drop the letter" in failed["detail"]
    assert f"{LETTER_BYTES}+" in run("list", "--offsets", "9").stdout


@pytest.fixture
def stream(home, tmp_path, monkeypatch):
    port = free_port()
    monkeypatch.setenv("COHOBATE_BROKER_PORT", str(port))
    with EmbeddedBroker(port, tmp_path / "broker.log"):
        stream = open_broker(Settings())
        stream.ensure_topics(["files.inputs", "files.inputs.dlq"])
        refuse(stream)
        yield stream


def on(stream):
    consumer = stream.consumer(["files.inputs"])
    try:
        return [r for r in read_to_end(consumer) if REPLAY_HEADER in r.headers]
    finally:
        consumer.close()


def killed_at(step, *letters):
    command = [sys.executable, "-m", "infra.cli", "dlq", "replay", *letters, "--why", "killed"]
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "COHOBATE_FAILPOINT": step}
    return subprocess.run(command, env=env, capture_output=True, timeout=300).returncode == -signal.SIGKILL


@pytest.mark.integration
def test_kills_on_a_broker_neither_lose_nor_double(stream, home, monkeypatch):
    """Two processes killed -9, one behind its publishing and one before: the next replay publishes what is missing."""
    late = 0.0
    monkeypatch.setattr("infra.dlq._store", lambda: ControlStore(Settings().control_url, clock=lambda: NOW + late))
    assert killed_at("dlq.6", "0@0") and [r.value for r in on(stream)] == [VALUES["i0"]]
    assert killed_at("dlq.5", "--all") and len(on(stream)) == 1
    assert [row["status"] for row in told("list")] == ["replaying"] * 3
    late = entries(home)[-1].at - NOW
    assert results(told("replay", "--all", code=1)) == [(n, "refused") for n in "012"]
    late += LEASE_SECONDS
    done = told("replay", "--all")
    assert results(done) == [(n, "replayed") for n in "012"]
    assert ["had published it" in row["detail"] for row in done] == [True, False, False]
    assert [r.value for r in on(stream)] == list(VALUES.values())
    assert [row["status"] for row in told("list")] == ["replayed"] * 3
    assert verify(home) == 4
