"""One input that a remote teacher's server dies of, and a server that is away for all: on real sockets."""

import contextlib
import threading

import msgspec
import pytest

from components.contracts.records import DeadLetter, Input, Label, decode, encode
from components.contracts.spec import Budget as Limits
from components.contracts.spec import Factory, Payload, Probe, Spec
from components.contracts.spec import Label as LabelSection
from components.label import worker_group
from components.label.asking import Company
from components.label.labeler import Labeler
from components.query.budget import Budget
from components.query.selector import Selector
from components.stream.contract import TopicPartition
from components.stream.memory import MemoryBroker
from components.teacher_watch.guard import Guard
from components.teachers.oip import OipTeacher
from components.teachers.openai_chat import ChatTeacher
from tests.components.teachers.conftest import CLASSES, SPACE, BreaksOff, ChatServer, OipServer
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

POISON = "text 17 of all"
QUICK = {
    "timeout_seconds": 60.0, "connect_seconds": 60.0, "attempts": 2, "backoff_seconds": 0.01,
    "max_backoff_seconds": 0.05, "breaker_failures": 2, "breaker_seconds": 0.5,
}  # fmt: skip
SPEC = Spec(
    name="w", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), payload=Payload(decoder="text"),
    label=LabelSection(batch=8, linger_seconds=0.0),
)  # fmt: skip


@pytest.fixture
def http():
    """How the teacher's client behaves."""
    return QUICK


@pytest.fixture(params=["oip", "chat"])
def served(request, http):
    """A server and a teacher that asks it."""
    server = OipServer() if request.param == "oip" else ChatServer()
    if request.param == "oip":
        teacher = OipTeacher(url=server.url, model="mailer", space=SPACE, classes=CLASSES, http=http)
    else:
        teacher = ChatTeacher(server.url + "/v1", "mail-llm", SPACE, CLASSES, http=http)
    yield server, teacher
    teacher.close()
    server.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(worker_group, "RETRY_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(worker_group, "BLAME_SECONDS", 0.1)
    monkeypatch.setattr("components.label.labeler.TEND_SECONDS", 0.01)


@pytest.fixture
def broker():
    broker = MemoryBroker()
    broker.ensure_topics(SPEC.topics)
    return broker


@contextlib.contextmanager
def at_work(teacher, broker, company=None):
    with running(Labeler(SPEC, teacher, broker, company=company)) as reasons:
        yield reasons


@contextlib.contextmanager
def running(labeler):
    stop = threading.Event()
    reasons = []
    thread = threading.Thread(target=labeler.run, args=(stop, lambda: reasons.append(labeler.paused)))
    thread.start()
    try:
        yield reasons
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def put(broker, numbers):
    for n in numbers:
        entry = Input(workload="w", id=f"i{n}", key="k", time=1.0, payload=b"text %d of all" % n)
        broker.producer().send("w.inputs", "k", encode(entry))


def labelled(broker):
    return sorted(decode(Label, r.value).input.id for r in list(broker.logs[TopicPartition("w.labels", 0)]))


def dead(broker):
    found = [decode(DeadLetter, r.value) for r in list(broker.logs[TopicPartition("w.inputs.dlq", 0)])]
    return [(x.reason, decode(Input, x.value).id) for x in found]


def ids(*numbers):
    return sorted(f"i{n}" for n in numbers)


def hurry(teacher):
    """Have its client wait for no answer about the poison, and for all others as long as a busy machine takes."""

    def impatient(request):
        if POISON.encode() in request.content:
            request.extensions = request.extensions | {"timeout": {**request.extensions["timeout"], "read": 0.1}}

    teacher._endpoint._client.event_hooks = {"request": [impatient]}


@pytest.mark.parametrize(
    ("fault", "http"),
    [
        (500, QUICK),
        (BreaksOff(b"half"), QUICK),
        (600.0, QUICK | {"attempts": 1}),
    ],
    ids=["fails", "breaks off", "hangs"],
)
def test_an_input_that_a_server_dies_of_becomes_a_letter_and_the_others_are_labelled(served, broker, fault):
    server, teacher = served
    server.fatal[POISON] = fault
    if fault == 600.0:
        hurry(teacher)
    put(broker, range(40))
    with at_work(teacher, broker):
        wait_for(lambda: len(labelled(broker)) == 39 and dead(broker))
        put(broker, range(40, 60))
        wait_for(lambda: len(labelled(broker)) == 59)
    assert dead(broker) == [("teacher_failed", "i17")]
    assert labelled(broker) == ids(*(set(range(60)) - {17}))
    assert teacher.state()["breaker"] == "closed"


def test_it_is_found_among_the_probes_of_a_watched_teacher_too(served, broker, store, tmp_path):
    server, teacher = served
    spec = msgspec.structs.replace(
        SPEC, label=msgspec.structs.replace(SPEC.label, probe=Probe(size=6, repeats=2, interval=8, share=0.5))
    )
    guard = Guard(spec, teacher, store, broker, str(tmp_path))
    put(broker, range(17))
    with running(Labeler(spec, teacher, broker, company=Company(guard=guard))):
        wait_for(lambda: len(labelled(broker)) == 17)
        server.fatal[POISON] = 500
        put(broker, range(17, 60))
        wait_for(lambda: len(labelled(broker)) == 59 and dead(broker))
    assert dead(broker) == [("teacher_failed", "i17")] and guard.counts["probed"] > 12


def test_a_server_that_is_away_for_all_is_waited_for_and_no_input_is_blamed(served, broker):
    server, teacher = served
    put(broker, range(8))
    with at_work(teacher, broker) as reasons:
        wait_for(lambda: len(labelled(broker)) == 8)
        server.fatal["text"] = 500
        put(broker, range(8, 40))
        before = len(server.bodies)
        wait_for(lambda: len(server.bodies) >= before + 12 and reasons.count("teacher") > 20)
        assert (dead(broker), len(labelled(broker))) == ([], 8)
        server.fatal.clear()
        wait_for(lambda: len(labelled(broker)) == 40)
    assert dead(broker) == [] and labelled(broker) == ids(*range(40))


def sent(server):
    """Inputs that the server was sent; a chat server is sent one in each request."""
    return sum(body["inputs"][0]["shape"][0] if "inputs" in body else 1 for body in server.bodies)


def test_what_is_sent_while_the_input_is_sought_is_paid_for_once(served, broker, store):
    server, teacher = served
    budget = Budget(Limits(per_hour=10_000, reserve=0.0, paced=False), "w", store)
    company = Company(selector=Selector(SPEC, budget))
    server.fatal[POISON] = 500
    already = sent(server)
    put(broker, range(40))
    teacher.metered(lambda calls: budget.spend(calls, least=calls) == calls)
    with at_work(teacher, broker, company):
        wait_for(lambda: len(labelled(broker)) == 39 and dead(broker))
    spent = 10_000 - budget.spending()["hour"].left
    unpaid = teacher._endpoint._unpaid
    assert sent(server) - already <= spent + unpaid <= sent(server) - already + 16, "kept answers may count twice"
