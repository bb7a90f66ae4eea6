import msgspec
import pytest

from components.contracts.errors import NotFoundError, UnavailableError
from components.contracts.records import Answer, Input, Prediction, decode
from serving.gateway import telemetry as module
from serving.gateway.telemetry import BATCH, Served, Telemetry
from tests.waiting import wait_for


def served(n, shadow=None):
    entry = Input(workload="signs", id=f"i{n}", key=f"k{n}", time=1.0, payload=b"x")
    prediction = Prediction(
        workload="signs", request_id=f"r{n}", input_id=f"i{n}", key=f"k{n}", time=1.0, content="c",
        answer=Answer(arm="champion", version="1", ok=True, latency_ms=1.0, label="a"),
    )  # fmt: skip
    return Served(entry, prediction, shadow)


def records(broker, topic, kind):
    return [decode(kind, r.value) for r in broker.consumer([topic]).poll(1_000, 0)]


def test_inputs_and_predictions_go_to_their_topics_by_entity_key(spec, broker):
    telemetry = Telemetry(spec, lambda: broker)
    for n in range(3):
        telemetry.put(served(n))
    assert telemetry.drain(broker.producer()) == 3
    assert [i.id for i in records(broker, "signs.inputs", Input)] == ["i0", "i1", "i2"]
    assert [p.request_id for p in records(broker, "signs.predictions", Prediction)] == ["r0", "r1", "r2"]
    assert [r.key for r in broker.consumer(["signs.inputs"]).poll(10, 0)] == [b"k0", b"k1", b"k2"]
    assert telemetry.published == 3 and telemetry.dropped == 0


@pytest.mark.parametrize("why", ["audited", "deferred"])
def test_inputs_that_somebody_waits_for_go_to_the_urgent_topic(spec, broker, why):
    telemetry = Telemetry(spec, lambda: broker)
    waited_for = served(1)
    telemetry.put(served(0))
    telemetry.put(waited_for._replace(prediction=msgspec.structs.replace(waited_for.prediction, **{why: True})))
    telemetry.drain(broker.producer())
    assert [i.id for i in records(broker, "signs.inputs", Input)] == ["i0"]
    assert [i.id for i in records(broker, "signs.inputs.urgent", Input)] == ["i1"]
    assert len(records(broker, "signs.predictions", Prediction)) == 2


def test_the_shadow_answers_when_the_record_is_published_not_before(spec, broker):
    asked = []

    def shadow():
        asked.append(1)
        return Answer(arm="candidate", version="2", ok=False, latency_ms=3.0, error="boom")

    telemetry = Telemetry(spec, lambda: broker)
    telemetry.put(served(0, shadow))
    assert asked == []
    telemetry.drain(broker.producer())
    (prediction,) = records(broker, "signs.predictions", Prediction)
    assert prediction.shadow.error == "boom" and asked == [1]


def test_pairs_are_given_up_before_records_are_lost(spec, broker):
    room = 3 * BATCH
    small = msgspec.structs.replace(spec, serve=msgspec.structs.replace(spec.serve, buffer_records=room))
    telemetry = Telemetry(small, lambda: broker)
    unserved = Answer(arm="candidate", version="2", ok=True, latency_ms=3.0, label="b")
    for n in range(room):
        telemetry.put(served(n, lambda: unserved))
    while telemetry.drain(broker.producer(), timeout=0.0):
        pass
    predictions = records(broker, "signs.predictions", Prediction)
    assert [p.shadow is not None for p in predictions] == [False] * BATCH + [True] * 2 * BATCH
    assert telemetry.unpaired == BATCH and telemetry.dropped == 0


def test_a_full_buffer_drops_and_counts_and_never_waits(spec, broker):
    small = msgspec.structs.replace(spec, serve=msgspec.structs.replace(spec.serve, buffer_records=5))
    telemetry = Telemetry(small, lambda: broker)
    for n in range(12):
        telemetry.put(served(n))  # nobody takes anything out: who waited for room would wait for ever
    assert (telemetry.dropped, telemetry.waiting) == (7, 5)


class Refusing:
    def send(self, *args):
        pass

    def flush(self, timeout=30.0):
        raise UnavailableError("Kafka", "x", "away")


def test_what_is_not_confirmed_is_counted(spec, broker):
    telemetry = Telemetry(spec, lambda: broker)
    telemetry.put(served(0))
    with pytest.raises(UnavailableError):
        telemetry.drain(Refusing())
    assert telemetry.dropped == 1


class Away(Refusing):
    """Takes two records, and is away from then on."""

    def __init__(self):
        self.taken = 0

    def send(self, *args):
        self.taken += 1
        if self.taken > 2:
            raise UnavailableError("Kafka", "x", "away")


def test_what_a_broker_that_is_away_was_not_given_waits(spec, broker):
    telemetry = Telemetry(spec, lambda: broker)
    for n in range(4):
        telemetry.put(served(n))
    away = Away()
    for _ in range(3):
        with pytest.raises(UnavailableError):
            telemetry.drain(away)
    assert (telemetry.dropped, telemetry.waiting) == (1, 3), "two records of the first answer were given"
    telemetry.drain(broker.producer())
    assert [i.id for i in records(broker, "signs.inputs", Input)] == ["i1", "i2", "i3"]


def test_the_thread_outlives_a_broker_that_is_away(spec, broker, monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "STOP_SECONDS", 90.0)
    tries = []

    def connect():
        tries.append(1)
        if len(tries) < 3:
            raise NotFoundError("topic", "signs.inputs", "")
        return broker

    telemetry = Telemetry(spec, connect)
    telemetry.start()
    telemetry.put(served(0))
    wait_for(lambda: telemetry.published == 1)
    assert telemetry.alive
    telemetry.stop()
    assert not telemetry.alive


def test_the_first_answer_after_a_pause_wakes_the_thread(spec, broker, monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(module, "SLEEP_SECONDS", 3_600.0)
    telemetry = Telemetry(spec, lambda: broker)
    telemetry.start()
    for n in range(3):
        wait_for(lambda: telemetry._asleep)
        telemetry.put(served(n))
        wait_for(lambda n=n: telemetry.published > n)
    telemetry.stop()
    assert telemetry.dropped == 0


def test_nobody_sleeps_over_an_answer_that_is_there(spec, broker, monkeypatch):
    monkeypatch.setattr(module, "SLEEP_SECONDS", 3_600.0)
    telemetry = Telemetry(spec, lambda: broker)
    telemetry.put(served(0))
    telemetry._sleep()  # returns, or the test's time limit ends it
    assert telemetry.waiting == 1
