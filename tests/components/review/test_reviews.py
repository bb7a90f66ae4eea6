import msgspec
import pytest

from components.contracts.errors import ConfigError, NotFoundError, TransitionError, UnavailableError
from components.contracts.records import Input, Label, SoftLabel, decode, encode, label_key
from components.contracts.spec import Factory, Masking, Payload, Spec
from components.control.tables import ReviewRow
from components.review import reviews
from components.stream.memory import MemoryBroker, MemoryProducer
from components.teachers.contract import Deferred, Question
from tests.clock import Clock

TEACHER, SPACE, CLASSES = "human@" + "d" * 64, "mail@1", ("eggs", "ham", "spam")
DRAFT = SoftLabel.of(SPACE, CLASSES, [0.2, 0.3, 0.5])


@pytest.fixture
def clock():
    return Clock(1_700_000_000.0, step=1.0)


@pytest.fixture
def store(store, clock):
    store.clock = clock
    return store


@pytest.fixture
def broker():
    broker = MemoryBroker()
    broker.ensure_topics(["w.labels"], partitions=3)
    return broker


def question(text, why="unsure", draft=DRAFT, **fields):
    entry = Input(workload="w", id=f"i-{text}", key="k", time=1_600_000_000.0, payload=text.encode())
    return Question(label_key(entry, TEACHER, SPACE), entry, Deferred(why, draft), **fields)


def ask(store, *questions, workload="w"):
    return reviews.ask(store, workload, TEACHER, SPACE, CLASSES, questions)


def labels(broker):
    found = [decode(Label, r.value) for p in broker.partitions("w.labels") for r in broker.logs[p]]
    return (
        {label.input.payload.decode(): label for label in found} if len({x.key for x in found}) == len(found) else None
    )


def test_questions_wait_in_order_and_asking_again_changes_nothing(store):
    first, second = question("a"), question("b")
    assert ask(store, first, second, first) == 2
    assert ask(store, first._replace(deferred=Deferred("other")), question("c")) == 1
    assert [decode(Input, r.input).payload for r in reviews.waiting(store, "w")][:1] in ([b"a"], [b"b"])
    assert [r.why for r in reviews.waiting(store, "w")] == ["unsure"] * 3
    assert len(reviews.waiting(store, "w", limit=2)) == 2 and reviews.waiting(store, "other") == []


def test_an_answer_is_a_label_with_everything_the_question_knew(store, broker):
    asked = question("a", policy="margin", probability=0.25, audit=True)
    ask(store, asked)
    row = reviews.answer(store, broker, "w", asked.key[:8], "ham", "ada", confidence=0.8)
    assert row.published_at and row.answered_at and reviews.waiting(store, "w") == []
    (label,) = labels(broker).values()
    assert (label.key, label.teacher, label.annotator, label.input) == (asked.key, TEACHER, "ada", asked.input)
    assert (label.policy, label.probability, label.audit) == ("margin", 0.25, True)
    assert label.soft.distribution == pytest.approx({"ham": 0.8, "eggs": 0.1, "spam": 0.1})
    assert label.labelled_at == row.answered_at


def test_the_same_answer_again_sends_nothing_and_another_is_refused(store, broker):
    asked = question("a")
    ask(store, asked)
    for _ in range(2):
        reviews.answer(store, broker, "w", asked.key, "ham", "ada")
    with pytest.raises(TransitionError, match="answered by ada"):
        reviews.answer(store, broker, "w", asked.key, "spam", "ada")
    with pytest.raises(TransitionError, match="answered by ada"):
        reviews.answer(store, broker, "w", asked.key, "ham", "bob")
    assert ask(store, asked) == 0, "answered content is not asked again"
    assert labels(broker)["a"].soft.label == "ham"


@pytest.mark.parametrize(
    ("label", "annotator", "confidence", "says"),
    [
        ("bacon", "ada", 1.0, "must be one of eggs, ham, spam"),
        ("ham", "", 1.0, "annotator"),
        ("ham", "ada", 0.3, "between 0.333 and 1"),
        ("ham", "ada", 1.1, "between 0.333 and 1"),
        ("ham", "ada", float("nan"), "between 0.333 and 1"),
    ],
)
def test_answers_that_are_refused(store, broker, label, annotator, confidence, says):
    asked = question("a")
    ask(store, asked)
    with pytest.raises(ConfigError, match=says):
        reviews.answer(store, broker, "w", asked.key, label, annotator, confidence)
    assert len(reviews.waiting(store, "w")) == 1 and labels(broker) == {}


def test_keys_that_name_no_single_question(store, broker):
    ask(store, question("a"), question("b"))
    for key in ("zz", "", "%"):
        with pytest.raises(NotFoundError, match="cohobate review list"):
            reviews.get(store, "w", key)


class Dying(MemoryBroker):
    """Its producers raise where ``dies`` says: before anything is there, or after it is."""

    dies = None

    def producer(self):
        broker = self

        class Producer(MemoryProducer):
            def send(self, *args, **kwargs):
                if broker.dies == "before":
                    raise UnavailableError("broker", "memory", "start it")
                super().send(*args, **kwargs)

            def flush(self, timeout=30.0):
                if broker.dies == "after":
                    raise UnavailableError("broker", "memory", "start it")

        return Producer(self)


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_broker_that_goes_away_loses_and_doubles_nothing(store, dies):
    broker = Dying()
    broker.ensure_topics(["w.labels"], partitions=3)
    asked = question("a")
    ask(store, asked)
    broker.dies = dies
    with pytest.raises(UnavailableError):
        reviews.answer(store, broker, "w", asked.key, "ham", "ada")
    assert reviews.get(store, "w", asked.key).published_at is None
    broker.dies = None
    assert reviews.publish(store, broker, "w") == (1 if dies == "before" else 0)
    assert labels(broker)["a"].annotator == "ada"
    assert reviews.publish(store, broker, "w") == 0


def test_a_publisher_that_died_between_sending_and_marking_is_repaired_once_its_claim_is_over(store, broker, clock):
    asked, other = question("a"), question("b")
    ask(store, asked, other)
    reviews.answer(store, broker, "w", asked.key, "ham", "ada")
    with store.transaction() as s:  # as a kill -9 between steps 4 and 5 leaves it
        row = s.get_one(ReviewRow, ("w", asked.key))
        row.published_at, row.publisher, row.publisher_until = None, "dead", clock.now + reviews.CLAIM_SECONDS
    assert reviews.publish(store, broker, "w") == 0, "it is held by who may still be sending"
    clock.now += reviews.CLAIM_SECONDS
    assert reviews.publish(store, broker, "w") == 0, "its label is there"
    assert reviews.get(store, "w", asked.key).published_at is not None
    reviews.answer(store, broker, "w", other.key, "spam", "bob")
    assert sorted(labels(broker)) == ["a", "b"]


def test_labels_of_others_since_then_are_no_reason_to_leave_one_out(store, broker):
    asked = question("a")
    ask(store, asked)
    producer = broker.producer()
    for n in range(20):
        producer.send("w.labels", f"other-{n}", encode(asked.input))
    with store.transaction() as s:
        row = s.get_one(ReviewRow, ("w", asked.key))
        row.answer, row.annotator, row.answered_at = {"task": "classification", "space": SPACE,
                                                      "distribution": {"ham": 1.0}}, "ada", 5.0  # fmt: skip
    assert reviews.publish(store, broker, "w") == 1


def test_an_answer_to_a_question_of_before_masking_is_published_masked(store, broker, monkeypatch):
    asked, bad = question("write to ada@example.com"), question("x")
    bad = bad._replace(input=msgspec.structs.replace(bad.input, payload=b"\xff\xfe"))
    ask(store, asked, bad)
    spec = Spec(
        name="w", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), payload=Payload(decoder="text"),
        masking=Masking(entities=("EMAIL",)),
    )  # fmt: skip
    monkeypatch.setattr(reviews, "spec_in_force", lambda *_: spec)
    reviews.answer(store, broker, "w", asked.key, "ham", "ada")
    assert [(text, label.key) for text, label in labels(broker).items()] == [("write to [EMAIL]", asked.key)]
    assert decode(Input, reviews.get(store, "w", asked.key).input).payload == b"write to [EMAIL]"
    with pytest.raises(NotFoundError):  # it cannot be searched, so nothing of it is kept
        reviews.answer(store, broker, "w", bad.key, "ham", "ada")
    assert len(labels(broker)) == 1
