import random
import threading
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from components.contracts.errors import FinderError, UnavailableError
from components.contracts.records import Answer, Prediction, encode
from components.contracts.spec import Masking, Payload
from components.contracts.spec import Monitor as Policy
from components.contracts.spec import Policy as Chosen
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control import looks
from components.control.intent import Intent, ModelRef
from components.control.tables import WindowRow
from components.snapshot.table import parquet_bytes, snapshot_table
from components.snapshot.window import read
from components.stream.memory import MemoryBroker, MemoryConsumer
from components.student.card import StudentCard
from components.student.runtime import Student
from pipelines import monitor as monitoring
from pipelines.monitor import Monitor
from pipelines.watch import View
from tests.answers import NO_CLASSES
from tests.pipelines.conftest import NOW, WORDS
from tests.students import bag, telling
from tests.waiting import wait_for

CLASSES = tuple(WORDS)


@pytest.fixture
def spec(spec):
    policy = Policy(window=60, reference=60, alpha=0.02, min_effect=0.2, resamples=200, inputs_per_second=1e9)
    return msgspec.structs.replace(spec, monitor=policy)


@pytest.fixture
def serve(spec, store, settings, tickets, label_of):
    """Make a student the champion: random weights, trained as its card says on one window of ``entries``.

    ``always``: the class that it answers whatever it is asked; ``made``: when the window was frozen.
    """

    def serve(entries, version="1", seed=0, sure=lambda entry: 0.9, always=None, made=NOW):
        data = parquet_bytes(snapshot_table([label_of(e, sure=sure(e)) for e in entries], {}, 0.4))
        snapshot = digest_of(data)
        uri = f"{settings.artifacts}/tickets/snapshots/{snapshot}.parquet"
        put_bytes(uri, data)
        store.add_window(
            WindowRow(
                digest=snapshot, workload="tickets", number=len(store.windows("tickets")) + 1, uri=uri,
                rows=len(entries), created_at=made, manifest={},
            )
        )  # fmt: skip
        chance = np.random.default_rng(seed)
        shapes = {
            "embedding.weight": (8192, 8), "hidden.weight": (16, 8), "hidden.bias": (16,), "head.weight": (4, 16),
            "head.bias": (4,), "norm.weight": (8,), "norm.bias": (8,),
        }  # fmt: skip
        state = {n: chance.normal(size=s).astype(np.float32) for n, s in shapes.items()}
        if always is not None:
            state["head.weight"] *= 0.0
            state["head.bias"] = np.array([5.0 * (c == always) for c in CLASSES], dtype=np.float32)
        card = StudentCard(
            workload="tickets", task="classification", space="tickets@1", classes=CLASSES, features=spec.features,
            payload=spec.payload, **bag(8192, 8, 16), variant="small", snapshots=(snapshot,),
            teacher="words@1", parent=None, code="1",
        )  # fmt: skip
        # The card names the decoder by the spec's own file, as for any user's workload.
        payloads = [e.input.payload for e in entries]
        artifact = telling(spec, card, state, payloads, [e.truth.label for e in entries])
        place = f"{settings.artifacts}/tickets/students/{version}/model.onnx"
        put_bytes(place, artifact)
        champion = ModelRef(
            version=version, uri=place, digest=digest_of(artifact), snapshot=snapshot, teacher="words@1"
        )
        revision, _ = store.intent("tickets")
        store.put_intent("tickets", revision, Intent(champion=champion))

    return serve


@pytest.fixture
def broker(spec, clock):
    """A broker whose records are dated by the test's clock."""
    broker = MemoryBroker(clock)
    broker.ensure_topics(spec.topics)
    return broker


@pytest.fixture
def put(broker, spec, label_of, clock):
    """Send inputs, with a label of each unless ``labelled`` is false; ``novelty``: what the champion's answers say."""

    def put(entries, *, sure=0.9, at=NOW + 10, to=broker, labelled=True, novelty=(), version="1"):
        producer, clock.now = to.producer(), at
        for entry in entries:
            producer.send(spec.topic("inputs"), entry.input.key, encode(entry.input))
            if labelled:
                producer.send(spec.topic("labels"), entry.input.id, encode(label_of(entry, sure=sure, at=at)))
        for entry, p in zip(entries, novelty, strict=False):
            answer = Answer(arm="champion", version=version, ok=True, latency_ms=1.0, novelty=p)
            prediction = Prediction(
                workload="tickets", request_id=entry.input.id, input_id=entry.input.id, key=entry.input.key, time=at,
                content="c", answer=answer,
            )  # fmt: skip
            producer.send(spec.topic("predictions"), entry.input.key, encode(prediction))

    return put


def drain(monitor):
    while monitor.step(0.0):
        pass


def alarms(store):
    return [(a.kind, a.input_index, a.detail["champion"]) for a in store.alarms("tickets")]


def test_traffic_like_the_reference_raises_nothing(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(45, seed=3))
    drain(monitor)
    assert alarms(store) == []
    gauges = store.gauges("tickets")
    assert gauges["drift"].value["outcome"] == gauges["entropy"].value["outcome"] == "none"
    assert (gauges["monitor"].value["index"], gauges["monitor"].value["lag"]) == (180, 0)


def test_how_often_the_champion_errs_is_counted_anew_from_an_alarm_on_and_goes_on_after_a_restart(
    spec, store, broker, serve, put, tickets
):
    def counted():
        return store.gauges("tickets")["monitor"].value["answers"]

    always = CLASSES[0]
    serve(tickets(60), always=always)
    monitor, entries = Monitor(spec, store, broker), tickets(10, seed=3)
    put(entries)
    drain(monitor)
    wrong = sum(e.truth.label != always for e in entries)
    assert counted() == {"champion": "1", "rows": len(entries), "wrong": wrong} and 0 < wrong < len(entries)
    put(tickets(20, seed=4), labelled=False, novelty=[0.001] * 200)
    drain(monitor)
    assert "novelty" in [kind for kind, *_ in alarms(store)]
    assert counted() == {"champion": "1", "rows": 0, "wrong": 0}
    put(entries[:6])
    drain(monitor)
    monitor = Monitor(spec, store, broker)
    put(entries[6:9], at=NOW + 20)
    drain(monitor)
    assert (counted()["rows"], counted()["wrong"]) == (9, sum(e.truth.label != always for e in entries[:9]))
    serve(tickets(60, seed=9), version="2")
    drain(monitor)
    put([], at=NOW + 40)
    monitor.step(0.0)
    assert counted() == {"champion": "2", "rows": 0, "wrong": 0}


def test_the_agreement_of_the_newest_window_is_the_champion_s_with_the_teacher(
    spec, store, broker, serve, put, tickets
):
    serve(tickets(60))
    monitor, entries = Monitor(spec, store, broker), tickets(30, seed=3)
    put(entries)
    drain(monitor)
    champion = store.intent("tickets")[1].champion
    student, newest = Student.load(get_bytes(champion.uri, champion.digest), source=spec.source), entries[-60:]
    answers = student.predict([entry.input.payload for entry in newest])
    same = sum(answer.label == entry.truth.label for answer, entry in zip(answers, newest, strict=True))
    found = store.gauges("tickets")["agreement"].value
    assert (found["rows"], found["share"]) == (60, same / 60)
    assert 0.0 <= found["lower"] < found["share"] < found["upper"] <= 1.0


def test_each_look_is_kept_with_every_column_and_outlives_a_restart(
    spec, store, broker, serve, put, tickets, monkeypatch
):
    serve(tickets(60))
    put(tickets(15, seed=3))
    drain(Monitor(spec, store, broker))
    (first,) = looks.looks({looks.GAUGE: store.gauges("tickets")[looks.GAUGE].value})["drift"]
    assert first.index == 60 and set(first.columns) >= {"answer", "links"} and len(first.columns) > 1
    value, threshold = first.columns["answer"]
    assert 0.0 <= value < threshold
    monkeypatch.setattr(looks, "MOST_LOOKS", 3)
    put(tickets(30, seed=4))
    drain(Monitor(spec, store, broker))
    kept = looks.looks({looks.GAUGE: store.gauges("tickets")[looks.GAUGE].value})
    assert set(kept) == {"drift", "predictive_entropy", "entropy"}
    assert set(kept["entropy"][0].columns) >= {"teacher_entropy"}
    assert [look.index for look in kept["drift"]] == [120, 150, 180]


def test_of_many_columns_those_that_drifted_are_kept(store):
    many = [looks.Distance(column=f"c{i}", value=i / 3, threshold=1.0, drifted=i == 99) for i in range(100)]
    looks.add(store, "w", 7, {"drift": many})
    (look,) = looks.looks({looks.GAUGE: store.gauges("w")[looks.GAUGE].value})["drift"]
    assert list(look.columns) == ["c99", *(f"c{i}" for i in range(looks.MOST_COLUMNS - 1))]
    assert (look.index, look.columns["c1"]) == (7, (0.33333, 1.0))
    assert looks.looks({}) == {}


def test_longer_texts_raise_one_drift_alarm_with_the_index_of_the_input(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(30, seed=3))
    put(tickets(38, length=40, seed=4))
    drain(monitor)
    assert [a[0] for a in alarms(store) if a[0] == "drift"] == ["drift"]
    (alarm,) = [a for a in store.alarms("tickets") if a.kind == "drift"]
    assert 120 < alarm.detail["inputs"] <= 120 + 60 + 30 and 120 < alarm.input_index <= 272


def test_a_teacher_that_grows_unsure_raises_the_entropy_alarm_alone(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(50, seed=3), sure=0.4)
    drain(monitor)
    assert [kind for kind, _, _ in alarms(store)] == ["entropy"]
    assert set(store.alarms("tickets")[0].detail["drifted"]) == {"teacher_entropy", "entropy_gap"}
    gauge = store.gauges("tickets")["entropy"].value
    assert gauge["teacher_entropy"] > gauge["teacher_entropy_reference"] + 0.3
    assert gauge["entropy_gap"] == pytest.approx(gauge["student_entropy"] - gauge["teacher_entropy"])
    doubt = store.gauges("tickets")["predictive_entropy"].value
    assert "mutual_information" not in doubt, "nobody was replaced by the champion"
    assert doubt["student_entropy"] == pytest.approx(gauge["student_entropy"]), "the same inputs, with and without"
    assert store.alarms("tickets")[0].detail["read_from"] == "labels"


@pytest.mark.parametrize(("policy", "expected"), [("margin", []), ("all", ["entropy"])])
def test_what_a_policy_prefers_is_not_drift(spec, store, broker, serve, label_of, tickets, policy, expected):
    """The teacher is unsure of a tenth of all traffic, which is labelled ten times as often as the rest."""

    def traffic(n, seed):
        return tickets(9 * n, seed=seed) + tickets(n, length=40, seed=seed + 1)

    def sure(entry):
        return 0.4 if len(entry.input.payload) > 150 else 0.9

    chosen = msgspec.structs.replace(spec.label, policy=Chosen(kind=policy, share=0.2, floor=0.5))
    serve(traffic(6, 1), sure=sure)
    monitor = Monitor(msgspec.structs.replace(spec, label=chosen), store, broker)
    producer, chance = broker.producer(), random.Random(0)
    for entry in traffic(30, 5):
        probability = 1.0 if len(entry.input.payload) > 150 else 0.1
        if chance.random() < probability:
            label = label_of(entry, sure=sure(entry), at=NOW + 10)
            label = msgspec.structs.replace(label, policy="margin", probability=probability)
            producer.send(spec.topic("labels"), entry.input.id, encode(label))
    drain(monitor)
    assert store.gauges("tickets")["entropy"].value["outcome"] in ("none", "drift")
    assert [kind for kind, _, _ in alarms(store) if kind == "entropy"] == expected


def test_a_new_champion_has_its_own_reference_and_is_armed_anew(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(30, length=40, seed=4))
    drain(monitor)
    assert [v for k, _, v in alarms(store) if k == "drift"] == ["1"]
    serve(tickets(60, length=40, seed=5), version="2")
    put(tickets(30, length=40, seed=6))
    drain(monitor)
    assert [v for k, _, v in alarms(store) if k == "drift"] == ["1"]
    put(tickets(30, seed=7))
    drain(monitor)
    assert [v for k, _, v in alarms(store) if k == "drift"] == ["1", "2"]


def drifts(store):
    return [v for k, _, v in alarms(store) if k == "drift"]


def test_a_champion_that_was_learnt_for_a_new_regime_is_held_against_that_alone(
    spec, store, broker, serve, put, tickets
):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(30, length=40, seed=4), at=NOW + 100)
    drain(monitor)
    serve([*tickets(60, seed=5), *tickets(22, length=40, seed=6, start=NOW + 100)], version="2", made=NOW + 200)
    put(tickets(60, length=40, seed=7), at=NOW + 300)
    drain(monitor)
    assert drifts(store) == ["1"], "half of a reference of both would be of before the alarm"
    held, least = monitor._watch.references["drift"].rows, 30
    assert least <= held < spec.monitor.reference
    again = Monitor(spec, store, broker)
    again.step(0.0)
    assert again._watch.references["drift"].digest == monitor._watch.references["drift"].digest
    put(tickets(30, seed=8), at=NOW + 400)
    drain(monitor)
    assert drifts(store) == ["1", "2"], "what comes then is a change"


class Outer(View):
    """A view that finds long tickets more novel than most that it knows, and shouting ones novel."""

    def _looked(self, decoded):
        return [replace(x, novelty=_outer(str(x.decoded))) for x in super()._looked(decoded)]


def _outer(text):
    return 0.003 if "!" in text else random.Random(text).uniform(0.0, 0.45 if len(text) > 150 else 1.0)


def test_the_p_values_of_a_new_regime_are_held_against_those_of_its_holdout(
    spec, store, broker, serve, put, tickets, monkeypatch
):
    monkeypatch.setattr("pipelines.monitor.View", Outer)
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(30, length=40, seed=4), at=NOW + 100)
    drain(monitor)
    serve([*tickets(60, seed=5), *tickets(40, length=40, seed=6, start=NOW + 100)], version="2", made=NOW + 200)
    some = tickets(60, length=40, seed=7)
    put(some, at=NOW + 300, novelty=[_outer(e.input.payload.decode()) for e in some], version="2")
    drain(monitor)
    assert [a.detail["champion"] for a in novel(store)] == []
    put(tickets(10, seed=8), at=NOW + 310, novelty=[0.003] * 40, version="2")
    drain(monitor)
    assert [a.detail["champion"] for a in novel(store)] == ["2"]


def test_of_a_regime_with_few_held_out_rows_training_rows_fill_the_least_reference(
    spec, store, broker, serve, put, tickets
):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(30, length=40, seed=4), at=NOW + 100)
    drain(monitor)
    serve([*tickets(60, seed=5), *tickets(12, length=40, seed=6, start=NOW + 100)], version="2", made=NOW + 200)
    put(tickets(60, length=40, seed=7), at=NOW + 300)
    drain(monitor)
    assert drifts(store) == ["1"] and monitor._watch.references["drift"].rows == 30


@pytest.mark.parametrize(("rows", "made"), [(7, NOW + 200), (22, NOW + 50)], ids=["too few", "frozen before"])
def test_one_that_has_not_learnt_what_an_alarm_told_of_is_held_against_what_it_learnt(
    spec, store, broker, serve, put, tickets, rows, made
):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(30, length=40, seed=4), at=NOW + 100)
    drain(monitor)
    serve([*tickets(60, seed=5), *tickets(rows, length=40, seed=6, start=NOW + 100)], version="2", made=made)
    put(tickets(60, length=40, seed=7), at=NOW + 300)
    drain(monitor)
    assert drifts(store) == ["1", "2"] and monitor._watch.references["drift"].rows == 60


class Told(View):
    """A view that finds long tickets novel, but for version 3."""

    def __init__(self, spec, champion, previous):
        super().__init__(spec, champion, previous)
        self._knows = champion.version == "3"

    def look(self, payloads):
        novel = [len(p) > 150 and not self._knows for p in payloads]
        return [replace(x, novelty=0.003 if n else 0.6) for x, n in zip(super().look(payloads), novel, strict=True)]


def test_one_that_was_just_learnt_is_held_against_what_came_while_it_was_made(
    spec, store, broker, serve, put, tickets, monkeypatch
):
    monkeypatch.setattr("pipelines.monitor.View", Told)
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(10, seed=4), at=NOW + 10)
    drain(monitor)
    put(tickets(15, length=40, seed=5), at=NOW + 30)
    drain(monitor)
    serve(tickets(60, seed=6), version="2", made=NOW + 20)
    drain(monitor)
    (mine,) = [a for a in store.alarms("tickets") if a.detail["champion"] == "2"]
    assert mine.kind == "novelty" and mine.detail["read_from"] == "predictions"
    assert 40 <= mine.input_index <= 100 == monitor.index and 40 < mine.detail["inputs"] < 80 < monitor.inputs == 100
    before = len(alarms(store))
    assert mine.detail["came_at"] == NOW + 30
    serve(tickets(60, length=40, seed=7), version="3", made=NOW + 40)
    drain(monitor)
    assert len(alarms(store)) == before, "its window has what came"
    serve(tickets(60, seed=8), version="4", made=NOW + 20)
    drain(monitor)
    assert len(alarms(store)) == before, "one that learnt no more than the one before is there for what comes"


def test_an_alarm_stays_open_over_a_version_whose_window_was_frozen_before_it(
    spec, store, broker, serve, put, tickets, clock
):
    store.clock = clock
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(10, seed=4), at=NOW + 10, novelty=[0.01] * 40)
    drain(monitor)
    (first,) = novel(store)
    put(tickets(5, seed=5), at=NOW + 30)
    serve(tickets(60, seed=6), version="2", made=NOW + 5)
    drain(monitor)
    (_, kept) = novel(store)
    assert (kept.detail["champion"], kept.detail["kept_from"], kept.input_index) == ("2", "1", first.input_index)
    assert monitor.index > kept.input_index
    serve(tickets(60, seed=7), version="3", made=NOW + 20)
    drain(monitor)
    assert len(novel(store)) == 2, "it has labels of what came after the alarm, though not after it was kept"


def test_labels_from_before_the_champion_s_snapshot_are_not_traffic(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    put(tickets(50, length=40, seed=4), at=NOW - 1)
    monitor = Monitor(spec, store, broker)
    drain(monitor)
    assert alarms(store) == []
    assert monitor.index == 200


def test_a_restarted_monitor_goes_on_where_it_was_and_does_not_alarm_again(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    put(tickets(30, length=40, seed=4))
    drain(Monitor(spec, store, broker))
    assert [k for k, _, _ in alarms(store)].count("drift") == 1
    put(tickets(30, length=40, seed=5))
    again = Monitor(spec, store, broker)
    assert again.index == 120
    drain(again)
    assert again.index == 240
    assert [k for k, _, _ in alarms(store)].count("drift") == 1


def test_a_broker_that_lost_its_records_is_read_from_the_start(spec, store, broker, serve, put, tickets, clock):
    serve(tickets(60))
    put(tickets(20, seed=3))
    drain(Monitor(spec, store, broker))
    fresh = MemoryBroker(clock)
    fresh.ensure_topics(spec.topics)
    put(tickets(5, seed=4), to=fresh)
    again = Monitor(spec, store, fresh)
    drain(again)
    assert again.index == 100


def test_a_record_that_is_no_label_is_passed_over(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    broker.producer().send(spec.topic("labels"), "k", b"\x00nonsense")
    broker.producer().send(spec.topic("labels"), "k", None)
    broker.producer().send(spec.topic("truth"), "k", None)
    monitor = Monitor(spec, store, broker)
    put(tickets(1, seed=3))
    drain(monitor)
    assert monitor.index == 6


@pytest.mark.parametrize("soft", NO_CLASSES, ids=lambda soft: soft.task)
def test_a_label_of_another_task_is_passed_over(spec, store, broker, serve, put, tickets, label_of, soft):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    other = msgspec.structs.replace(label_of(tickets(1, seed=3)[0], at=NOW + 10), soft=soft)
    for _ in range(70):  # more than a window of them
        broker.producer().send(spec.topic("labels"), "k", encode(other))
    put(tickets(1, seed=4))
    drain(monitor)
    answered = store.gauges(spec.name)[monitoring.PLACE].value["answers"]
    assert monitor.index == 74 and answered["rows"] == 4


def test_without_a_champion_labels_are_only_counted(spec, store, broker, put, tickets):
    monitor = Monitor(spec, store, broker)
    put(tickets(50, seed=3))
    drain(monitor)
    assert monitor.index == 200
    assert set(store.gauges("tickets")) == {"monitor"}
    assert store.gauges("tickets")["monitor"].value["inputs"] == 0


def test_the_reference_takes_training_rows_only_where_the_holdout_is_too_small(spec, store, broker, serve, tickets):
    serve(tickets(25))
    monitor = Monitor(spec, store, broker)
    monitor.step(0.0)
    assert monitor._watch.references["drift"].rows == 60
    serve(tickets(100, seed=2), version="2")
    monitor.step(0.0)
    assert monitor._watch.references["drift"].rows == 60
    newest = store.windows("tickets")[-1]
    payloads = {r["payload"] for r in read(newest.uri, newest.digest).to_pylist() if r["split"] == "holdout"}
    assert len(payloads) >= 60, "the holdout is enough, and newer than all else"


def test_the_reference_has_no_row_that_was_released(spec, store, broker, serve, tickets):
    serve(tickets(200))
    champion = store.intent("tickets")[1].champion
    monitor = Monitor(spec, store, broker)
    monitor.step(0.0)
    held = monitor._known(monitor._view).held
    first = store.windows("tickets")[0]
    data = parquet_bytes(read(first.uri, first.digest).slice(0, 1))
    uri = first.uri.replace(first.digest, digest_of(data))
    put_bytes(uri, data)
    newer = WindowRow(digest=digest_of(data), workload="tickets", number=2, uri=uri, rows=1, created_at=NOW,
                      manifest={"kept_share": 0.05})  # fmt: skip
    store.add_window(newer)
    card = msgspec.structs.replace(monitor._view.champion.card, snapshots=(newer.digest, champion.snapshot))
    monitor._view.champion.card = card
    left = monitor._known(monitor._view).held
    assert 0 < len(left) < len(held) / 2


def test_the_one_that_the_champion_replaced_is_asked_too(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    previous = store.intent("tickets")[1].champion
    serve(tickets(60, seed=1), version="2", seed=1)
    revision, intent = store.intent("tickets")
    store.put_intent("tickets", revision, Intent(champion=intent.champion, previous=previous))
    monitor = Monitor(spec, store, broker)
    put(tickets(20, seed=3))
    drain(monitor)
    gauge = store.gauges("tickets")["predictive_entropy"].value
    assert gauge["mutual_information"] == pytest.approx(gauge["mutual_information_reference"], rel=0.5)
    assert 0.0 < gauge["mutual_information"] < np.log(2)


def test_a_change_of_the_inputs_is_an_alarm_without_a_label(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(30, seed=3), labelled=False)
    drain(monitor)
    assert alarms(store) == []
    put(tickets(38, length=40, seed=4), labelled=False)
    drain(monitor)
    assert monitor.index == 0 and monitor.inputs == 272
    (drift,) = [a for a in store.alarms("tickets") if a.kind == "drift"]
    assert drift.detail["read_from"] == "inputs" and 120 < drift.detail["inputs"] <= 272
    assert "agreement" not in store.gauges("tickets"), "that is read from labels"


def uniform(n, seed=0):
    return np.random.default_rng(seed).random(n).tolist()


def novel(store):
    return [a for a in store.alarms("tickets") if a.kind == "novelty"]


def test_novel_inputs_are_an_alarm_within_a_window_and_usual_ones_none(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(100, seed=3), labelled=False, novelty=uniform(400))
    drain(monitor)
    assert novel(store) == []
    put(tickets(10, seed=4), labelled=False, novelty=[0.01] * 40, version="2")
    put(tickets(10, seed=5), labelled=False, novelty=[None] * 40)
    drain(monitor)
    assert novel(store) == [], "the answers of another version, and what says nothing"
    put(tickets(10, seed=6), labelled=False, novelty=[0.01] * 40)
    drain(monitor)
    (alarm,) = novel(store)
    assert (alarm.detail["read_from"], alarm.detail["champion"]) == ("predictions", "1")
    assert alarm.detail["drifted"] == ["novelty"] and alarm.detail["rows"] < 30


def test_an_alarm_of_novelty_is_dated_at_the_labels_that_there_were_when_the_new_inputs_began(
    spec, store, broker, serve, put, tickets
):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    put(tickets(5, seed=3), at=NOW + 10, novelty=uniform(20))
    drain(monitor)
    assert monitor.index == 20 and novel(store) == []
    for n in range(20):
        put(tickets(1, seed=10 + n)[:1], at=NOW + 20 + n, novelty=[0.01])
        drain(monitor)
    (alarm,) = novel(store)
    seen = 20 + alarm.detail["inputs"] - 20
    assert alarm.input_index in (20, 21) and alarm.input_index + 5 < seen, "labels of the new inputs were there"


def test_the_bets_against_novelty_survive_a_restart(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    put(tickets(1, seed=3), labelled=False, novelty=[0.01] * 4)
    drain(Monitor(spec, store, broker))
    before = store.gauges("tickets")["novelty"].value["log_evidence"]
    assert before > 1.0 and alarms(store) == []
    again = Monitor(spec, store, broker)
    again.step(0.0)
    assert again._watch.novelty.evidence == pytest.approx(before)


def test_an_input_that_is_sent_again_is_looked_at_once(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    monitor, entries = Monitor(spec, store, broker), tickets(5, seed=3)
    for _ in range(3):
        put(entries, labelled=False)
    put(tickets(2, seed=4), labelled=False, at=NOW - 1)
    broker.producer().send(spec.topic("inputs"), "k", b"nonsense")
    drain(monitor)
    assert monitor.inputs == 20


def test_what_a_producer_wrote_unmasked_is_looked_at_masked(spec, store, broker, serve, put, tickets, monkeypatch):
    serve(tickets(60))
    masking = msgspec.structs.replace(spec, payload=Payload(decoder="json"), masking=Masking(entities=("EMAIL",)))
    monitor, looked = Monitor(spec, store, broker), []
    drain(monitor)
    monitor.spec = masking
    monkeypatch.setattr(monitor, "_look_at_inputs", looked.extend)
    entry = tickets(1, seed=3)[0]
    payload = entry.input.payload.replace(b"}", b', "note": "ada@example.com"}')
    sent = msgspec.structs.replace(entry, input=msgspec.structs.replace(entry.input, payload=payload))
    put([sent], labelled=False)
    drain(monitor)
    assert len(looked) == 1 and b"ada@" not in looked[0] and b"[EMAIL]" in looked[0]


def test_inputs_that_are_not_looked_at_while_the_search_fails_are_counted_and_told_once(
    spec, store, broker, serve, put, tickets, monkeypatch, caplog
):
    serve(tickets(60))
    monitor, away = Monitor(spec, store, broker), [True]
    drain(monitor)

    def search(_, entry):
        if away[0]:
            raise FinderError("f.py:made", "away")
        return entry

    monkeypatch.setattr("pipelines.monitor.masked_input", search)
    put(tickets(2, seed=3), labelled=False)
    drain(monitor)
    missed = monitor.unsearched
    assert missed >= 2 and monitor.inputs == 0
    assert store.gauges(spec.name)["monitor"].value["unsearched"] == missed
    assert caplog.text.count("inputs are not looked at while this lasts") == 1
    away[0] = False
    put(tickets(2, seed=4), labelled=False)
    drain(monitor)
    assert monitor.inputs > 0 and Monitor(spec, store, broker).unsearched == missed


def test_a_monitor_of_before_reads_inputs_from_now_on(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    put(tickets(5, seed=3))
    places = {f"{spec.topic('labels')}:0": 20, f"{spec.topic('truth')}:0": 0}
    store.put_gauge("tickets", "monitor", {"index": 20, "positions": places})
    monitor = Monitor(spec, store, broker)
    drain(monitor)
    assert (monitor.index, monitor.inputs) == (20, 0)
    put(tickets(1, seed=4))
    drain(monitor)
    assert (monitor.index, monitor.inputs) == (24, 4)


@pytest.fixture
def streaming(spec):
    watch = msgspec.structs.replace(spec.monitor, run_length=10_000, min_effect=0.1, reference=300, window=100_000)
    return msgspec.structs.replace(spec, monitor=watch)


def test_a_steady_stream_has_no_change_point_and_a_changed_one_has_one(streaming, store, broker, serve, put, tickets):
    serve(tickets(250))
    monitor = Monitor(streaming, store, broker)
    put(tickets(250, seed=3))
    drain(monitor)
    assert alarms(store) == [], "the window is too long to be looked at: only the detector of change points looks"
    gauge = store.gauges("tickets")["change"].value
    assert gauge["index"] == 1_000 and 0.0 <= gauge["log_evidence"] < gauge["log_evidence_limit"]
    put(tickets(100, length=9, seed=4))
    drain(monitor)
    ((kind, _, champion),) = alarms(store)
    detail = store.alarms("tickets")[0].detail
    assert (kind, champion) == ("change", "1") and 1_000 < detail["inputs"] <= 1_080
    assert detail["run_length"] == 20_000 and detail["read_from"] == "inputs" and len(detail["drifted"]) == 1
    assert abs(detail["inputs"] - detail["rows"] - 1_000) <= 40


def test_the_evidence_for_a_change_survives_a_restart(streaming, store, broker, serve, put, tickets):
    serve(tickets(250))
    entries = tickets(50, length=9, seed=4)
    put(entries[:20])
    drain(Monitor(streaming, store, broker))
    assert alarms(store) == [] and store.gauges("tickets")["change"].value["log_evidence"] > 1.0
    put(entries[20:80])
    again = Monitor(streaming, store, broker)
    drain(again)
    (first,) = alarms(store)
    assert first[0] == "change"
    fresh = Monitor(msgspec.structs.replace(streaming, seed=1), store, MemoryBroker())
    fresh.step(0.0)
    assert fresh._watch.changes["inputs"].row == 80, "it goes on, whatever the stream"


def test_the_accuracy_that_was_foretold_is_held_against_the_truth(spec, store, broker, serve, put, tickets):
    serve(tickets(60))
    monitor = Monitor(spec, store, broker)
    entries = tickets(30, seed=3)
    put(entries)
    drain(monitor)
    gauge = store.gauges("tickets")["foretold_accuracy"].value
    assert gauge["rows"] == 60 and gauge["accuracy"] is None and 0.0 < gauge["mean_confidence"] <= 1.0
    for entry in entries:
        broker.producer().send(spec.topic("truth"), entry.input.id, encode(entry.truth))
    broker.producer().send(spec.topic("truth"), "x", b"nonsense")
    drain(monitor)
    gauge = store.gauges("tickets")["foretold_accuracy"].value
    assert gauge["windows_with_truth"] == 3 and 0.0 <= gauge["accuracy"] <= 1.0
    assert store.gauges("tickets")["monitor"].value["index"] == 120


def test_it_runs_until_it_is_stopped(spec, store, broker, put, tickets):
    stop = threading.Event()
    thread = threading.Thread(target=Monitor(spec, store, broker).run, args=(stop,))
    thread.start()
    put(tickets(2))
    try:
        wait_for(lambda: (found := store.gauges("tickets").get("monitor")) and found.value["index"] == 8)
    finally:
        stop.set()
        thread.join()


def test_a_change_of_the_routing_is_followed_when_it_is_heard_of(spec, store, broker, monkeypatch):
    asked, stop = [], threading.Event()

    def follow(self):
        asked.append(self.store.intent("tickets")[0])

    monkeypatch.setattr(Monitor, "_follow_champion", follow)
    monkeypatch.setattr(monitoring, "FOLLOW_SECONDS", 7_200.0)
    monkeypatch.setattr(monitoring, "IDLE_SECONDS", 0.001)
    monitor = Monitor(spec, store, broker)
    steps, step = [], monitor.step
    monkeypatch.setattr(monitor, "step", lambda *a, **named: steps.append(named["follow"]) or step(*a, **named))
    thread = threading.Thread(target=monitor.run, args=(stop,))
    thread.start()
    try:
        wait_for(lambda: steps[-3:] == [False] * 3)  # it looks at the streams alone
        assert store.bells.heard and set(asked) == {0}
        store.put_intent("tickets", 0, Intent())
        wait_for(lambda: asked[-1] == 1)
    finally:
        stop.set()
        thread.join(90)
    assert not thread.is_alive()


class Marked(MemoryConsumer):
    """Counts a mark behind the last record until a poll has passed it, as Kafka does after a transaction."""

    passed = False

    def poll(self, max_records=500, timeout=0.5):
        records = super().poll(max_records, timeout)
        self.passed = not records
        return records

    def lag(self):
        return super().lag() + (not self.passed)


def test_the_lag_that_is_reported_comes_to_nothing_behind_the_mark_of_a_transaction(
    spec, store, broker, put, tickets, monkeypatch
):
    monkeypatch.setattr("components.stream.memory.MemoryConsumer", Marked)
    monitor = Monitor(spec, store, broker)
    put(tickets(3))
    assert monitor.step(0.0) and store.gauges("tickets")["monitor"].value["lag"] == 1
    assert monitor.step(0.0) == 0 and store.gauges("tickets")["monitor"].value["lag"] == 0
    at = store.gauges("tickets")["monitor"].at
    monitor.step(0.0)
    assert store.gauges("tickets")["monitor"].at == at, "then the database is left alone"


def test_a_monitor_goes_on_where_it_is_not_told_how_much_waits(spec, store, broker, put, tickets, monkeypatch):
    monitor = Monitor(spec, store, broker)

    def away(consumer):
        raise UnavailableError("embedded broker", "127.0.0.1:1", "it is being given its records back")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(MemoryConsumer, "lag", away)
        put(tickets(3))
        assert monitor.step(0.0) and "monitor" not in store.gauges("tickets")
    assert monitor.step(0.0) == 0
    place = store.gauges("tickets")["monitor"].value
    assert (place["index"], place["lag"]) == (12, 0)


def test_a_monitor_without_records_still_says_that_it_lives(spec, store, broker, clock):
    monitor = Monitor(spec, store, broker)
    monitor.step(0.0)
    assert "monitor" not in store.gauges("tickets")
    for _ in range(2):
        clock.now += 10.0
        monitor.step(0.0)
        assert store.gauges("tickets")["monitor"].at == clock.now


def test_traffic_that_returns_orders_the_canary_for_its_old_champion_over_a_restart(
    spec, store, broker, serve, put, tickets, clock
):
    serve(tickets(60), version="1", always="billing")
    old = store.intent("tickets")[1].champion
    serve(tickets(60, seed=1), version="2", always="login")
    new = store.intent("tickets")[1].champion
    state = {"champion": msgspec.to_builtins(old), "candidate": msgspec.to_builtins(new), "phase": "promoted",
             "forced": False, "restored": False, "ended_at": NOW}  # fmt: skip
    store.put_rollout("r1", "tickets", 0, False, state)
    monitor, later = Monitor(spec, store, broker), NOW + 10.0 + spec.trigger.cooldown_seconds
    put(tickets(200, classes=("login",), seed=2), at=later)
    drain(monitor)
    put(tickets(10, classes=("billing",), seed=3), at=later)
    drain(monitor)
    assert store.open_orders("tickets") == []
    again = Monitor(spec, store, broker)
    put(tickets(15, classes=("billing",), seed=4), at=later)
    drain(again)
    (order,) = store.open_orders("tickets")
    assert (order.verb, order.args["version"]) == ("start", "1") and "the last 25 labels" in order.reason
    assert store.intent("tickets")[1].champion.version == "2", "the controller decides, by its canary"
