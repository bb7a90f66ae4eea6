import json
import os
import signal
import subprocess
import sys
import time

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.control.links import note_rollback_link
from components.ledger.ledger import append, entries, verify
from components.notify import outbox
from components.notify.events import EVENTS, LINKED
from components.notify.notifier import Notifier
from components.notify.webhooks import Webhook, webhooks_of
from tests.stores import migrated


def hook(receiver, name="ops", **fields):
    return Webhook(name=name, url=receiver.url, **{"format": "cloudevents", **fields})


def rollout(store, verb, **detail):
    return append(store, "files", "ada", f"rollout {verb}", {"rollout": "r1", "reason": "why", **detail})


def drain(store, hooks):
    """Collect, and send all that is due; returns how many tries there were."""
    notifier, tries = Notifier(store, hooks), 0
    outbox.collect(store, hooks)
    for each in hooks:
        while notifier.step(each):
            tries += 1
    return tries


@pytest.fixture(autouse=True)
def begun(store):
    outbox.collect(store, ())


def test_what_happened_is_told_once_in_each_form(store, receiver):
    hooks = (hook(receiver, "ops"), hook(receiver, "chat", format="slack"))
    rollout(store, "start", version="2", journal="/var/secret.jsonl")
    assert drain(store, hooks) == 2
    assert drain(store, hooks) == 0
    (headers, body), (_, message) = receiver.got
    event = from_http_event(HTTPMessage(headers={k.lower(): v for k, v in headers.items()}, body=body))
    assert event.get_type() == "dev.cohobate.rollout.started.v1" and event.get_source() == "/cohobate/files"
    assert event.get_subject() == "r1" and event.get_time().timestamp() == 1_700_000_000.0
    assert event.get_data() | {"ledger_hash": ""} == {
        "workload": "files", "actor": "ada", "text": "files: rollout start by ada: why", "rollout": "r1",
        "reason": "why", "version": "2", "ledger_seq": 1, "ledger_hash": "",
    }  # fmt: skip
    assert json.loads(message)["text"] == "files: rollout start by ada: why"
    assert b"secret" not in body + message


def test_what_may_be_bad_carries_the_link_that_rolls_back(store, receiver):
    url = "https://kubeflow.example/pipeline#/runs/new?pipelineId=p&pipelineVersionId=v&experimentId=e"
    note_rollback_link(store, "files", url)
    for verb in ("rollback", "abort", "pause", "promote", "start", "step"):
        rollout(store, verb)
    append(store, "mail", "ada", "rollout rollback", {"rollout": "r2", "reason": "why"})
    append(store, "files", "local", "pipeline continual", {"run": "files-1", "status": "failed", "reason": "why"})
    store.raise_alarm("files", "drift", 10, {})
    store.raise_alarm("files", "ratio", 10, {"rollout": "r1"})
    store.raise_alarm("files", "teacher", 10, {})
    store.raise_alarm("files", "guarded", 10, {})
    drain(store, (hook(receiver),))
    carried = {
        (b["type"].removeprefix("dev.cohobate."), b["source"]): b["data"].get("rollback_url") for b in receiver.bodies()
    }
    assert {event for event, link in carried.items() if link == url} == {
        (f"{name}.v1", "/cohobate/files") for name in LINKED
    }
    assert {link for link in carried.values()} == {url, None} and len(carried) == 12


def test_a_link_ends_the_chats_message_whole_whatever_the_reason(store, receiver):
    url = "https://kubeflow.example/pipeline#/runs/new?pipelineId=p&pipelineVersionId=v"
    note_rollback_link(store, "files", url)
    append(store, "files", "ada", "rollout rollback", {"rollout": "r1", "reason": "x" * 5000})
    drain(store, (hook(receiver, format="slack"),))
    (message,) = receiver.bodies()
    assert message["text"].endswith(" Roll back: " + url.replace("&", "&amp;")) and len(message["text"]) == 2900
    assert message["blocks"][0]["text"]["text"].endswith(message["text"])


def test_each_event_has_its_source(store, receiver):
    hooks = (hook(receiver),)
    for verb in ("start", "step", "promote", "rollback", "abort", "pause"):
        rollout(store, verb)
    append(store, "files", "ada", "pipeline continual", {"run": "files-3", "status": "failed", "reason": "drift"})
    append(store, "files", "ada", "pipeline continual", {"run": "files-4", "status": "succeeded"})
    append(store, "files", "ada", "ordered abort", {})
    store.raise_alarm("files", "drift", 150, {"drifted": ["size"], "champion": "3"})
    store.raise_alarm("files", "teacher", 160, {})
    store.raise_alarm("files", "guarded", 165, {"champion": "3", "reason": "0.2 of 50 answers"})
    store.raise_alarm("files", "sample_ratio", 170, {"rollout": "r1", "reason": "1 in 20, not 1 in 10"})
    assert drain(store, hooks) == 11
    told = {b["type"].removeprefix("dev.cohobate.").removesuffix(".v1") for b in receiver.bodies()}
    assert told == set(EVENTS) - {"test.sent"}
    assert len({b["id"] for b in receiver.bodies()}) == 11


def test_a_webhook_hears_what_it_asked_for(store, receiver):
    hooks = (
        hook(receiver, "a", events=("rollout.rolled_back",)),
        hook(receiver, "b", events=("drift.*",), workloads=("files",)),
        hook(receiver, "c", workloads=("mail",)),
    )
    rollout(store, "start")
    rollout(store, "rollback")
    store.raise_alarm("files", "entropy", 1, {})
    assert drain(store, hooks) == 2
    assert {n.hook for n in outbox.notices(store)} == {"a", "b"}


def test_a_failed_try_is_repeated_later_with_the_same_id(store, receiver, clock):
    hooks = (hook(receiver),)
    receiver.statuses = [500, 503]
    rollout(store, "rollback")
    assert drain(store, hooks) == 1
    assert outbox.notices(store)[0].error == "status 500"
    assert drain(store, hooks) == 0  # not due
    for _ in range(2):
        clock.now += outbox.LONGEST_WAIT
        assert drain(store, hooks) == 1
    assert len({b["id"] for b in receiver.bodies()}) == 1 and len(receiver.got) == 3
    (row,) = outbox.notices(store)
    assert (row.attempts, row.error) == (3, None) and row.sent_at is not None


def test_a_receiver_that_asks_for_rest_gets_it(store, receiver, clock):
    receiver.statuses, receiver.headers = [429], {"Retry-After": "120"}
    rollout(store, "rollback")
    drain(store, (hook(receiver),))
    assert outbox.notices(store)[0].next_at == clock.now + 120


@pytest.mark.parametrize(("statuses", "tries"), [([404] * 20, outbox.ATTEMPTS), ([410], 1)])
def test_what_nobody_takes_is_given_up_and_recorded(store, receiver, clock, statuses, tries):
    hooks, receiver.statuses = (hook(receiver),), statuses
    rollout(store, "rollback")
    for _ in range(20):
        drain(store, hooks)
        clock.now += outbox.LONGEST_WAIT
    assert len(receiver.got) == tries
    last = entries(store)[-1]
    assert (last.actor, last.action, last.detail["attempts"]) == ("notifier", "notice given up", tries)
    assert "secret" not in str([e.detail for e in entries(store)]) and verify(store) == 2
    receiver.statuses.clear()
    assert outbox.retry(store) == 1
    assert drain(store, hooks) == 1 and outbox.notices(store, waiting=True) == []


def test_a_receiver_that_is_away_holds_up_no_other(store, receiver):
    away = Webhook(name="away", url="http://127.0.0.1:9/x", format="slack")
    rollout(store, "rollback")
    assert drain(store, (away, hook(receiver))) == 2
    assert len(receiver.got) == 1
    assert {n.hook: n.error for n in outbox.notices(store)} == {"away": "ConnectError", "ops": None}


def test_a_try_that_died_is_made_again(store, receiver, clock):
    rollout(store, "rollback")
    outbox.collect(store, (hook(receiver),))
    assert outbox.take(store, "ops") is not None  # and the process is gone
    assert outbox.take(store, "ops") is None
    clock.now += outbox.TRY_SECONDS
    assert drain(store, (hook(receiver),)) == 1


def test_a_webhook_that_comes_later_hears_of_what_comes_then(store, receiver):
    rollout(store, "start")
    assert drain(store, ()) == 0
    rollout(store, "step")
    assert drain(store, (hook(receiver),)) == 1
    assert receiver.bodies()[0]["type"] == "dev.cohobate.rollout.step.v1"


def test_slack_markup_cannot_be_smuggled_in(store, receiver):
    rollout(store, "abort", reason="<!channel> <http://evil|click> & more")
    drain(store, (hook(receiver, format="slack"),))
    assert "<" not in receiver.bodies()[0]["text"] and "&lt;!channel&gt;" in receiver.bodies()[0]["text"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "JSON list"),
        ('[{"name": "a b", "url": "https://x/hidden", "format": "slack"}]', "name"),
        ('[{"name": "a", "url": "ftp://x/hidden", "format": "slack"}]', "url"),
        ('[{"name": "a", "url": "https://x/hidden", "format": "fax"}]', "fax"),
        ('[{"name": "a", "url": "https://x/hidden", "format": "slack", "events": ["nothing"]}]', "nothing"),
        ('[{"name": "a", "url": "https://x/hidden", "format": "slack"}, '
         + '{"name": "a", "url": "https://x/hidden", "format": "slack"}]', "name of its own"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named_and_show_no_url(text, says):
    with pytest.raises(ConfigError, match=says) as error:
        webhooks_of(Settings(webhooks=text))
    assert "hidden" not in str(error.value)


def test_webhooks_come_from_a_file_too(tmp_path):
    path = tmp_path / "hooks.json"
    path.write_text('[{"name": "a", "url": "https://x/y", "format": "slack", "events": ["rollout.*"]}]')
    (found,) = webhooks_of(Settings(webhooks_file=path))
    assert found.wants("rollout.step", "w") and not found.wants("drift.alarm", "w")
    assert webhooks_of(Settings()) == ()


NOTIFIER = """
import sys, threading
from components.control.links import note_rollback_link
from components.control.store import ControlStore
from components.notify import outbox
from components.notify.notifier import Notifier
from components.notify.webhooks import Webhook
outbox.TRY_SECONDS = 1.0
hook = Webhook(name="ops", url=sys.argv[2], format="cloudevents")
Notifier(ControlStore(sys.argv[1]), [hook]).run(threading.Event())
"""


def test_every_notice_arrives_though_its_notifier_is_killed_again_and_again(tmp_path, receiver):
    store = migrated(f"sqlite:///{tmp_path / 'killed.db'}")
    outbox.collect(store, ())
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    for i in range(6):
        rollout(store, "step", reason=f"to {i} %")
    deadline, sent = time.monotonic() + 360, 0
    while time.monotonic() < deadline and outbox.notices(store, waiting=True) + [None] * (not sent):
        argv = [sys.executable, "-c", NOTIFIER, store.url, receiver.url]
        worker, before = subprocess.Popen(argv, env=env), len(receiver.got)
        try:
            while len(receiver.got) < before + 2 and time.monotonic() < deadline:
                if sent and not outbox.notices(store, waiting=True):
                    break
                time.sleep(0.01)
                sent = len(receiver.got)
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    store.close()
    told = [b["data"]["reason"] for b in receiver.bodies()]
    assert set(told) == {f"to {i} %" for i in range(6)}
    assert len(told) <= 6 + 6  # at least once: a kill between the answer and its note sends one again
