"""Requests that a remote teacher makes again by itself are within the label budget too."""

import contextlib

import pytest

from components.contracts.errors import TeacherError, UnavailableError
from components.contracts.records import Input, encode
from components.contracts.settings import Settings
from components.contracts.spec import Budget as Limits
from components.contracts.spec import Factory, Payload, Probe, Spec
from components.contracts.spec import Label as LabelSection
from components.label.assembly import assemble
from components.review.human import HumanTeacher
from components.stream.memory import MemoryBroker
from components.teachers.contract import metered
from components.teachers.oip import OipTeacher
from tests.clock import Clock


@pytest.fixture
def options(oip_server, quick):
    return {"url": oip_server.url, "model": "mailer", "space": "mail@1", "classes": ["ham", "spam"], "http": quick}


def inputs_sent(server):
    return sum(body["inputs"][0]["shape"][0] for body in server.bodies)


def test_no_permit_is_asked_for_a_first_attempt_and_none_given_ends_the_attempts(oip_server, options):
    teacher, asked = OipTeacher(**options), []
    metered(teacher, lambda inputs: bool(asked.append(inputs)) or len(asked) < 2)
    teacher.label(["a", "b", "c"])
    assert asked == []
    oip_server.faults += [503, 503]
    with pytest.raises(UnavailableError, match="label budget does not reach"):
        teacher.label(["a", "b", "c"])
    assert asked == [3, 3] and len(oip_server.bodies) == 3
    with pytest.raises(UnavailableError, match="label budget does not reach"):
        teacher.label(["d"])
    assert asked == [3, 3, 1] and len(oip_server.bodies) == 3, "neither are they sent by the next call"
    teacher.close()


def test_what_no_server_worked_on_needs_no_permit(oip_server, options):
    teacher, asked = OipTeacher(**options), []
    metered(teacher, asked.append)
    oip_server.faults.append(429)
    assert len(teacher.label(["a", "b"])) == 2
    oip_server.close()
    for _ in range(2):
        with pytest.raises(UnavailableError, match="after 3 attempts"):
            teacher.label(["a", "b"])
    assert asked == []
    teacher.close()


def test_a_model_with_people_behind_it_is_metered_too(oip_server, options, store):
    primary = {"factory": "components.teachers.oip:OipTeacher", "options": options}
    teacher = HumanTeacher("mail@1", classes=["ham", "spam"], database_url=store.url, primary=primary, below=0.6)
    metered(teacher, lambda _: False)
    oip_server.faults.append(503)
    with pytest.raises(UnavailableError, match="label budget does not reach"):
        teacher.outcomes(["a"])
    teacher.close()


@pytest.mark.parametrize("per_hour", [17, 40])
def test_first_attempts_probes_and_retries_together_never_exceed_the_budget(
    oip_server, options, store, tmp_path, per_hour
):  # fmt: skip
    spec = Spec(
        name="w",
        teacher=Factory(factory="components.teachers.oip:OipTeacher", options=options),
        features=Factory(factory="f:F"),
        payload=Payload(decoder="text"),
        label=LabelSection(
            batch=3, linger_seconds=0.0, budget=Limits(per_hour=per_hour, paced=False), probe=Probe(size=4, repeats=2)
        ),
    )
    broker = MemoryBroker()
    settings = Settings(home=tmp_path)
    store.clock = Clock(1_700_000_000.0, step=0.01)  # far from the turn of an hour, with which the budget is new
    labeler = assemble(spec, settings, store, broker)
    with contextlib.closing(labeler.asking.teacher), contextlib.closing(labeler):
        producer = broker.producer()
        for n in range(60):
            entry = Input(workload="w", id=f"i{n}", key="k", time=1.0, payload=b"text %d" % n)
            producer.send("w.inputs", "k", encode(entry))
        oip_server.faults += [503, None, 500, None, None, 503, 503] * 20
        for _ in range(40):
            with contextlib.suppress(TeacherError, UnavailableError):
                labeler.step()
            assert inputs_sent(oip_server) <= per_hour
        assert labeler.asking.company.guard.counts["probes_put_off"] > 0
    assert len(oip_server.bodies) < 60 and inputs_sent(oip_server) > per_hour // 2
