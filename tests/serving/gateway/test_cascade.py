import asyncio
import pickle

import msgspec
import pytest

from components.contracts.errors import AccessError, ConfigError, UnansweredError
from components.contracts.records import Input, SoftLabel, decode
from components.contracts.spec import Deferral, load_spec
from components.review import reviews
from serving.gateway.cascade import Cascade, people
from serving.gateway.reply import Reply
from tests.clock import Time
from tests.serving.running import Running

ENTRY = Input(workload="signs", id="i", key="k", time=1.0, payload=b"{}")


def soft(p):
    return SoftLabel(task="classification", space="signs@1", distribution={"pos": p, "neg": 1 - p})


STUDENT = soft(0.55)


def answering(p, asked=None):
    async def ask(entry, student, urgency, need, version=""):
        if asked is not None:
            asked.append(entry.id)
        return Reply(soft(p))

    return ask


async def paced(entry, student, urgency, need, version=""):
    return Reply(None, "paced", "the label budget is paced", near=soft(0.9))


async def failing(entry, student, urgency, need, version=""):
    raise ConnectionError("away")


async def hanging(entry, student, urgency, need, version=""):
    await asyncio.sleep(60)


def ask(options, asks, times=1):
    outcomes = []

    async def run():
        cascade = Cascade(options, asks, lambda *told: outcomes.append(told))
        return [await cascade.answer(ENTRY, STUDENT, 3) for _ in range(times)]

    return asyncio.run(run()), outcomes


def test_a_neighbours_answer_is_found_where_nobody_answers():
    ((found,), _) = ask(Deferral(to=("teacher",)), {"teacher": paced})
    assert (found.soft, found.by, found.near, found.waits) == (None, None, soft(0.9), False)
    ((found,), _) = ask(Deferral(to=("teacher", "expert"), expert_below=0.99), {"teacher": paced, "expert": failing})
    assert found.soft is None and found.near == soft(0.9), "also where others fail after it"
    ((found,), _) = ask(Deferral(to=("teacher", "expert")), {"teacher": paced, "expert": answering(0.7)})
    assert found.soft == soft(0.7) and found.by == "expert", "who was asked about the input goes first"


def test_the_first_that_is_sure_enough_answers():
    asked = []
    options = Deferral(to=("expert", "teacher"), expert_below=0.8)
    ((found, by, *_),), outcomes = ask(options, {"expert": answering(0.9), "teacher": answering(1.0, asked)})
    assert (found.confidence, by, asked, outcomes) == (0.9, "expert", [], [("expert", "answered")])
    ((found, by, *_),), _ = ask(options, {"expert": answering(0.7), "teacher": answering(0.6)})
    assert (found.confidence, by) == (0.6, "teacher")


def test_an_unsure_expert_answers_where_the_teacher_does_not():
    options = Deferral(to=("expert", "teacher"), expert_below=0.8)
    ((found, by, told, *_),), _ = ask(options, {"expert": answering(0.7), "teacher": failing})
    assert (found.confidence, by) == (0.7, "expert") and "ConnectionError" in told[1]


def test_one_that_hangs_is_given_up_and_the_next_one_asked():
    options = Deferral(to=("expert", "teacher"), timeout_seconds=0.5)
    ((_, by, told, *_),), outcomes = ask(options, {"expert": hanging, "teacher": answering(1.0)})
    assert by == "teacher" and "within 0.5 s" in told[0] and outcomes[0] == ("expert", "timeout")


REFUSED = AccessError("teacher", "http://m", "password", "401", "set its key")
"""An error that has a cause of another kind: a code."""


@pytest.mark.parametrize("error", [UnansweredError("teacher", "http://m", "it hung", (b"x",)), REFUSED], ids=type)
def test_what_failed_here_or_in_another_process_is_named(error):
    from ray.exceptions import RayTaskError

    async def elsewhere(entry, student, urgency, need, version=""):
        raise RayTaskError("label", "Traceback", pickle.loads(pickle.dumps(error))).as_instanceof_cause()  # noqa: S301

    async def here(entry, student, urgency, need, version=""):
        raise error

    for asked in (elsewhere, here):
        ((found, _, told, *_),), _ = ask(Deferral(to=("teacher",)), {"teacher": asked})
        assert found is None and told == [f"the teacher did not answer: {type(error).__name__}"]


@pytest.fixture
def time(monkeypatch):
    """The time of breakers and budgets."""
    made = Time()
    monkeypatch.setattr("purgatory.domain.model.time", made)
    monkeypatch.setattr("limits.storage.memory.time", made)
    return made


def test_the_breaker_leaves_a_failing_one_alone_and_tries_again(time):
    calls = []

    async def counted(entry, student, urgency, need, version=""):
        calls.append(1)
        raise ConnectionError("away")

    options = Deferral(breaker_failures=3, breaker_seconds=60.0)
    found, outcomes = ask(options, {"teacher": counted}, times=10)
    assert len(calls) == 3 and all(answer is None for answer, *_ in found)
    assert [code for _, code in outcomes] == ["failed"] * 3 + ["breaker_open"] * 7

    async def later():
        cascade = Cascade(Deferral(breaker_failures=1, breaker_seconds=60.0), {"teacher": once})
        first = await cascade.answer(ENTRY, STUDENT, 3)
        time.sleep(61.0)
        return first, await cascade.answer(ENTRY, STUDENT, 3)

    state = []

    async def once(entry, student, urgency, need, version=""):
        state.append(1)
        if len(state) == 1:
            raise ConnectionError("away")
        return Reply(soft(1.0))

    (first, *_), (second, by, *_) = asyncio.run(later())
    assert first is None and second.confidence == 1.0 and by == "teacher"


def test_the_budget_of_a_minute_is_kept(time):
    asked = []
    found, outcomes = ask(Deferral(per_minute=3), {"teacher": answering(1.0, asked)}, times=5)
    assert len(asked) == 3 and [code for _, code in outcomes][3:] == ["over_budget"] * 2
    assert found[4][0] is None and "budget of 3 a minute" in found[4][2][0]


@pytest.mark.parametrize(("code", "waits"), [("paced", False), ("over_budget", True)])
def test_what_the_pace_refuses_is_no_more_waited_for(code, waits):
    async def refuses(entry, student, urgency, need, version=""):
        return Reply(None, code, f"{need:g} is not enough")

    (found,), outcomes = ask(Deferral(), {"teacher": refuses})
    assert (found.soft, found.waits, found.told) == (None, waits, ["1 is not enough"])
    assert outcomes == [("teacher", code)]


@pytest.fixture
def reviewed(spec, store, broker, clock, model):
    to = Deferral(to=("teacher", "review"))
    spec = msgspec.structs.replace(spec, serve=msgspec.structs.replace(spec.serve, deferral=to))
    running = Running(spec, store, broker, clock, failing)
    running.gateway.cascade = Cascade(
        to, {"teacher": failing, "review": people(store, running.versions)}, running.gateway.metrics.asked
    )
    return running


def test_people_are_asked_where_no_machine_answers(reviewed, store, model):
    reviewed.serve(model("1"))
    (answer,) = reviewed.predict(0.01, allow_defer=True).json()["predictions"]
    reviewed.predict(0.01, allow_defer=True)
    (row,) = reviews.waiting(store, "signs")
    assert decode(Input, row.input).id == "i0" and row.classes == ["neg", "pos"] and row.teacher == "human@gateway"
    assert row.draft["distribution"]["pos"] == pytest.approx(answer["confidence"])
    assert answer["degraded"] and answer["answered_by"] == "student" and "people were asked" in answer["defer_reason"]
    text = reviewed.call("GET", "/metrics").text
    assert 'cohobate_deferral_questions_total{outcome="asked",to="review",workload="signs"} 2.0' in text


def test_a_teacher_with_people_behind_it_gets_their_answers_as_its_own(reviewed, store, model):
    reviewed.serve(msgspec.structs.replace(model("1"), teacher="sign-human@1"))
    reviewed.predict(0.01, allow_defer=True)
    assert [row.teacher for row in reviews.waiting(store, "signs")] == ["sign-human@1"]


@pytest.mark.parametrize(
    ("serve", "field"),
    [
        ("deferral: {to: [expert]}", "serve.deferral.expert"),
        ("deferral: {expert: {factory: 'teacher.py:SignTeacher'}}", "serve.deferral.expert"),
        ("defer_below: 0.5, max_disagreement: 0.1", "serve.max_disagreement"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(spec, tmp_path, serve, field):
    text = (tmp_path / "signs.yaml").read_text().splitlines()
    path = tmp_path / "bad.yaml"
    path.write_text("\n".join([line for line in text if not line.startswith("serve:")] + [f"serve: {{{serve}}}"]))
    with pytest.raises(ConfigError) as caught:
        load_spec(path)
    assert caught.value.field == field
