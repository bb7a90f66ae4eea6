import contextlib
import itertools
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.contracts.admission import ATTEMPTS_HEADER, LETTER_BYTES, dead_letter
from components.contracts.errors import RecordError, UnavailableError
from components.contracts.records import Input, Label, SoftLabel, decode, encode
from components.contracts.spec import Factory, Masking, Payload, Spec
from components.dead_letters import replay as module
from components.dead_letters.letters import Filter, read_letters
from components.dead_letters.replay import CHUNK, CLAIM_HEADER, REPLAY_HEADER, drop, replay, verdicts
from components.dead_letters.verdicts import LEASE_SECONDS
from components.label.labeler import Labeler
from components.ledger import entries, verify
from components.stream.contract import TopicPartition
from components.stream.memory import MemoryBroker, MemoryProducer
from tests.clock import Clock, Time
from tests.stores import migrated

NOW = 1_700_000_000.0
INPUTS = TopicPartition("w.inputs", 0)
STEPS = [f"dlq.{n}" for n in range(1, 8)]


class Killed(BaseException):
    pass


@pytest.fixture
def clock():
    return Clock(NOW)


@pytest.fixture
def store(store, clock):
    store.clock = clock
    return store


@pytest.fixture
def broker():
    broker = MemoryBroker()
    broker.ensure_topics(["w.inputs", "w.inputs.dlq", "w.labels", "w.predictions", "w.truth"])
    return broker


def refuse(broker, *values, headers=None):
    for value in values:
        broker.producer().send("w.inputs", "k", value, headers)
        letter = dead_letter(broker.logs[INPUTS][-1], RecordError("invalid", "why"), "w", NOW)
        broker.producer().send("w.inputs.dlq", letter.key, encode(letter))


def run(store, broker, wanted=None, **options):
    options = {"actor": "ada", "why": "decoder fixed", **options}
    return list(replay(store, broker, "w", read_letters(broker, "w", wanted), **options))


def repeated(broker):
    return [r for r in broker.logs[INPUTS] if REPLAY_HEADER in r.headers]


def results(outcomes):
    return [o.result for o in outcomes]


def test_a_replay_publishes_the_original_once_more(store, broker):
    refuse(broker, b"bad", headers={"trace": b"7"})
    assert results(run(store, broker)) == ["replayed"]
    (record,) = repeated(broker)
    assert (record.topic, record.key, record.value) == ("w.inputs", b"k", b"bad")
    assert record.headers == {
        "trace": b"7", REPLAY_HEADER: b"w.inputs-0@0", CLAIM_HEADER: b"1", ATTEMPTS_HEADER: b"2",
    }  # fmt: skip
    claim, close = entries(store, "w")
    assert (claim.action, claim.actor, claim.detail["why"]) == ("dlq-replay", "ada", "decoder fixed")
    assert (close.action, close.detail) == ("dlq-replayed", {"claim": 1, "failed": []})
    assert verify(store) == 2


def test_a_tombstone_is_replayed_as_one(store, broker):
    refuse(broker, None, headers={"why": b"retracted"})
    assert results(run(store, broker)) == ["replayed"]
    (record,) = repeated(broker)
    assert (record.key, record.value, record.headers["why"]) == (b"k", None, b"retracted")


def test_a_letter_is_replayed_once_unless_again(store, broker):
    refuse(broker, b"bad")
    run(store, broker)
    (outcome,) = run(store, broker, actor="eve")
    assert outcome.result == "refused"
    assert outcome.detail == "replayed by ada (decoder fixed); --again replays it all the same"
    assert len(repeated(broker)) == 1
    assert results(run(store, broker, again=True)) == ["replayed"] and len(repeated(broker)) == 2


def test_a_record_that_fails_again_has_a_new_letter_that_counts_on(store, broker):
    refuse(broker, b"bad")
    run(store, broker)
    (record,) = repeated(broker)
    letter = dead_letter(record, RecordError("invalid", "still"), "w", NOW)
    assert letter.attempts == 2
    broker.producer().send("w.inputs.dlq", letter.key, encode(letter))
    assert results(run(store, broker)) == ["refused", "replayed"]
    _, second = repeated(broker)
    assert (second.headers[REPLAY_HEADER], second.headers[ATTEMPTS_HEADER]) == (b"w.inputs-0@1", b"3")


@pytest.fixture
def killed(monkeypatch):
    @contextlib.contextmanager
    def at(name, count=1):
        passed = itertools.count(1)

        def failpoint(found):
            if found == name and next(passed) == count:
                raise Killed

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(module, "failpoint", failpoint)
            yield

    return at


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_neither_loses_nor_doubles(store, broker, clock, killed, step):
    refuse(broker, b"one", b"two", b"three")
    with killed(step):
        run(store, broker)
    claimed = step in ("dlq.5", "dlq.6")
    if claimed:
        assert results(run(store, broker)) == ["refused"] * 3, "the claim's lease lasts"
    clock.now += LEASE_SECONDS
    again = run(store, broker)
    assert results(again) == (["refused"] * 3 if step == "dlq.7" else ["replayed"] * 3)
    assert [r.value for r in repeated(broker)] == [b"one", b"two", b"three"]
    assert results(run(store, broker)) == ["refused"] * 3
    assert {verdicts(store, "w").status(x.key) for x in read_letters(broker, "w")} == {"replayed"}


def test_a_kill_in_the_middle_of_publishing_publishes_what_is_missing(store, broker, clock, monkeypatch):
    refuse(broker, b"one", b"two", b"three")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        real, sent = MemoryProducer.send, itertools.count(1)

        def send(self, *args):
            if next(sent) == 3:
                raise Killed
            real(self, *args)

        patched.setattr(MemoryProducer, "send", send)
        run(store, broker)
    clock.now += LEASE_SECONDS
    outcomes = run(store, broker)
    assert [bool(o.detail) for o in outcomes] == [True, True, False]
    assert "an interrupted replay had published it" in outcomes[0].detail
    assert [r.value for r in repeated(broker)] == [b"one", b"two", b"three"]


@pytest.mark.parametrize(("first", "second"), list(itertools.product(STEPS[3:6], repeat=2)))
def test_a_replay_that_takes_over_may_be_killed_as_well(store, broker, clock, killed, first, second):
    refuse(broker, b"one", b"two")
    for step in (first, second):
        with killed(step):
            run(store, broker)
        clock.now += LEASE_SECONDS
    assert results(run(store, broker)) == ["replayed"] * 2
    assert [r.value for r in repeated(broker)] == [b"one", b"two"]


ACTIONS = st.one_of(
    st.tuples(st.just("kill"), st.sampled_from(STEPS), st.integers(1, 2)),
    st.tuples(st.just("replay"), st.integers(0, CHUNK + 1), st.none()),
    st.tuples(st.just("drop"), st.integers(0, CHUNK + 1), st.none()),
    st.tuples(st.just("wait"), st.integers(1, int(LEASE_SECONDS)), st.none()),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ACTIONS, max_size=8))
def test_whatever_happens_every_letter_is_published_once_or_dropped(tmp_path_factory, clock, killed, actions):
    broker, store = MemoryBroker(), migrated(f"sqlite:///{tmp_path_factory.mktemp('any')}/control.db", clock=clock)
    broker.ensure_topics(["w.inputs", "w.inputs.dlq"])
    refuse(broker, *(b"%d" % n for n in range(CHUNK + 2)))
    for action, what, count in actions:
        if action == "kill":
            with contextlib.suppress(pytest.fail.Exception), killed(what, count):
                run(store, broker)
        elif action == "replay":
            run(store, broker, Filter(first_offset=what))
        elif action == "drop":
            list(drop(store, "w", read_letters(broker, "w", Filter(last_offset=what)), actor="ada", why="noise"))
        else:
            clock.now += what
    clock.now += LEASE_SECONDS
    run(store, broker)
    known = verdicts(store, "w")
    status = {x.dead.value: known.status(x.key) for x in read_letters(broker, "w")}
    assert sorted(r.value for r in repeated(broker)) == sorted(v for v, s in status.items() if s == "replayed")
    assert set(status.values()) <= {"replayed", "dropped"} and verify(store)
    store.close()


def test_an_interrupted_replay_again_is_not_mistaken_for_the_first(store, broker, clock, killed):
    """Beside a letter whose interrupted claim is older than the first replay, whose copy the search then passes."""
    refuse(broker, b"one", b"two")
    with killed("dlq.5"):
        run(store, broker, Filter(names=frozenset({"w.inputs-0@1"})))
    run(store, broker, Filter(names=frozenset({"w.inputs-0@0"})))
    clock.now += LEASE_SECONDS
    with killed("dlq.5"):
        run(store, broker, again=True)
    clock.now += LEASE_SECONDS
    assert results(run(store, broker)) == ["replayed"] * 2
    assert sorted(r.value for r in repeated(broker)) == [b"one", b"one", b"two"]


def test_of_two_replays_at_once_one_publishes(store, broker, monkeypatch):
    refuse(broker, b"bad")
    real, nested = module.append_if, []

    def slower(*args, **options):
        if not nested:
            nested.append(None)
            nested.append(run(store, broker, actor="faster"))
        return real(*args, **options)

    monkeypatch.setattr(module, "append_if", slower)
    (outcome,) = run(store, broker)
    assert (outcome.result, results(nested[1])) == ("refused", ["replayed"])
    assert len(repeated(broker)) == 1


def test_many_replays_at_once_publish_every_letter_once(store, broker):
    values = [b"%d" % n for n in range(CHUNK + 10)]
    refuse(broker, *values)
    threads = [threading.Thread(target=run, args=(store, broker)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run(store, broker)
    assert sorted(r.value for r in repeated(broker)) == sorted(values)


def test_a_claim_that_closes_late_is_not_taken_over(store, broker, clock, killed, monkeypatch):
    refuse(broker, b"bad")
    with killed("dlq.6"):
        run(store, broker)
    clock.now += LEASE_SECONDS
    real = module.append_if

    def closed_meanwhile(*args, **options):
        module.append(store, "w", "ada", "dlq-replayed", {"claim": 1, "failed": []})
        return real(*args, **options)

    monkeypatch.setattr(module, "append_if", closed_meanwhile)
    assert results(run(store, broker)) == ["refused"] and len(repeated(broker)) == 1


def test_a_replay_that_stood_still_gives_up_instead_of_publishing(store, broker, clock, monkeypatch):
    refuse(broker, b"bad")
    real = module.append_if

    def slow(*args, **options):
        row = real(*args, **options)
        clock.now += LEASE_SECONDS / 2
        return row

    with monkeypatch.context() as patched, pytest.raises(UnavailableError, match="stood still for 30 s"):
        patched.setattr(module, "append_if", slow)
        run(store, broker)
    assert repeated(broker) == []
    clock.now += LEASE_SECONDS
    assert results(run(store, broker)) == ["replayed"]


def test_a_broker_that_does_not_confirm_leaves_a_claim_for_later(store, broker, clock, monkeypatch):
    refuse(broker, b"bad")

    def lost(self, timeout=30.0):
        raise UnavailableError("Kafka", "here", "records were not confirmed")

    with monkeypatch.context() as patched, pytest.raises(UnavailableError):
        patched.setattr(MemoryProducer, "flush", lost)
        run(store, broker)
    assert results(run(store, broker)) == ["refused"]
    clock.now += LEASE_SECONDS
    assert results(run(store, broker)) == ["replayed"] and len(repeated(broker)) == 1


def test_what_the_stream_does_not_take_stays_open(store, broker, monkeypatch):
    refuse(broker, b"good", b"too large")
    real = MemoryProducer.send

    def send(self, topic, key, value, headers=None):
        if value == b"too large":
            raise RecordError("oversize", "with its new headers")
        real(self, topic, key, value, headers)

    monkeypatch.setattr(MemoryProducer, "send", send)
    good, bad = run(store, broker)
    assert (good.result, bad.result, bad.detail) == ("replayed", "failed", "oversize: with its new headers")
    assert [verdicts(store, "w").status(x.key) for x in read_letters(broker, "w")] == ["replayed", "open"]


def test_a_failed_replay_again_leaves_the_decision_before_it(store, broker, monkeypatch):
    refuse(broker, b"bad")
    list(drop(store, "w", read_letters(broker, "w"), actor="ada", why="noise"))

    def send(*_):
        raise RecordError("oversize", "now")

    monkeypatch.setattr(MemoryProducer, "send", send)
    assert results(run(store, broker, again=True)) == ["failed"]
    assert [verdicts(store, "w").status(x.key) for x in read_letters(broker, "w")] == ["dropped"]


def test_a_cut_letter_is_replayed_whole_and_one_whose_record_is_gone_fails_alone(store, broker):
    huge = b"\xc1" * (LETTER_BYTES + 5)
    refuse(broker, huge, b"small")
    assert results(run(store, broker)) == ["replayed"] * 2
    assert [r.value for r in repeated(broker)] == [huge, b"small"]
    refuse(broker, huge + b"!", b"other")
    gone = broker.logs[INPUTS][-2].offset
    broker.logs[INPUTS][gone] = broker.logs[INPUTS][gone]._replace(value=b"replaced")
    failed, done = run(store, broker, Filter(first_offset=gone))
    assert (failed.result, done.result) == ("failed", "replayed") and "then drop the letter" in failed.detail


def test_a_rate_bounds_what_is_published_in_a_second(store, broker, monkeypatch):
    refuse(broker, *(b"%d" % n for n in range(10)))
    naps = []
    monkeypatch.setattr(module, "time", Time())
    run(store, broker, rate=4.0, sleep=naps.append)
    assert naps == [1.0, 1.0, 0.5]
    assert [len(e.detail["letters"]) for e in entries(store) if e.action == "dlq-replay"] == [4, 4, 2]


def test_a_drop_is_in_the_ledger_and_decides_once(store, broker):
    refuse(broker, b"bad", b"worse")
    first = Filter(last_offset=0)
    (outcome,) = drop(store, "w", read_letters(broker, "w", first), actor="ada", why="a test client")
    assert outcome.result == "dropped"
    (row,) = entries(store, "w")
    assert (row.action, row.actor, row.detail["why"]) == ("dlq-drop", "ada", "a test client")
    assert [key.partition("#")[0] for key in row.detail["letters"]] == ["w.inputs-0@0"]
    both = list(drop(store, "w", read_letters(broker, "w"), actor="eve", why="all of it"))
    assert results(both) == ["refused", "dropped"] and both[0].detail == "dropped by ada (a test client)"
    assert results(run(store, broker)) == ["refused"] * 2 and repeated(broker) == []
    assert results(run(store, broker, first, again=True)) == ["replayed"]
    assert results(drop(store, "w", read_letters(broker, "w", first), actor="eve", why="late")) == ["refused"]


def test_decisions_of_one_workload_are_not_anothers(store, broker):
    refuse(broker, b"bad")
    list(drop(store, "v", read_letters(broker, "w"), actor="ada", why="elsewhere"))
    assert results(run(store, broker)) == ["replayed"]


class Teacher:
    name, digest, task, space, classes, size_bytes = "t", "1", "classification", "s@1", ("a", "b"), 1

    def label(self, payloads):
        return [SoftLabel.of(self.space, self.classes, [0.9, 0.1]) for _ in payloads]


def test_a_letter_that_was_replayed_twice_gets_one_label(store, broker):
    """With a decoder that is fixed in between, as the reason for most replays is."""
    value = encode(Input(workload="w", id="i", key="k", time=NOW, payload=b"text"))
    refuse(broker, value)
    broker.groups["w.labeler"] = {INPUTS: 1}
    run(store, broker)
    run(store, broker, again=True)
    spec = Spec(name="w", teacher=Factory(factory="t"), features=Factory(factory="f"), payload=Payload(decoder="text"))
    labeler = Labeler(spec, Teacher(), broker, clock=lambda: NOW)
    while labeler.step(0.0):
        pass
    (label,) = [decode(Label, r.value) for r in broker.logs[TopicPartition("w.labels", 0)]]
    assert label.input.id == "i" and len(repeated(broker)) == 2


def test_what_was_refused_before_masking_is_replayed_masked(store, broker, monkeypatch):
    spec = Spec(
        name="w", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), payload=Payload(decoder="text"),
        masking=Masking(entities=("EMAIL",)),
    )  # fmt: skip
    made = [Input(workload="w", id="a", key="k", time=NOW, payload=p) for p in (b"to ada@example.com", b"\xff\xfe")]
    refuse(broker, *map(encode, made))
    monkeypatch.setattr(module, "spec_in_force", lambda *_: spec)
    done = run(store, broker)
    assert [(o.result, "decod" in o.detail or "text" in o.detail) for o in done] == [
        ("failed", True),
        ("replayed", False),
    ]
    sent = broker.logs[INPUTS][len(made) :]
    assert [decode(Input, record.value).payload for record in sent] == [b"to [EMAIL]"]
