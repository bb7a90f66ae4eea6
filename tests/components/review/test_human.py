import pytest

from components.contracts.errors import ConfigError, TeacherError
from components.contracts.records import Input, RecordError, SoftLabel, label_key
from components.review import reviews
from components.review.human import HumanTeacher
from components.teachers.contract import Deferred, Question, cost, outcomes, reference, state

TEXTS = ["win win money !", "the kernel", "what!"]


@pytest.fixture
def human(store):
    made = []

    def make(**options):
        made.append(HumanTeacher("mail@1", **{"classes": ["ham", "spam"], "database_url": store.url} | options))
        return made[-1]

    yield make
    for teacher in made:
        teacher.close()


@pytest.fixture
def primary(chat_server, quick):
    options = {"url": f"{chat_server.url}/v1", "model": "m", "space": "mail@1", "classes": ["ham", "spam"],
               "on_outside": "letter", "price_per_million_prompt_tokens": 1.0, "http": quick}  # fmt: skip
    return {"factory": "components.teachers.openai_chat:ChatTeacher", "options": options}


def test_alone_every_input_waits(human):
    teacher = human()
    assert outcomes(teacher, TEXTS) == [Deferred("no model is asked")] * 3
    with pytest.raises(TeacherError, match="waits for a person"):
        teacher.label(TEXTS)
    assert teacher.label([]) == [] and state(teacher) == {}


def test_behind_a_model_only_what_it_is_unsure_of_waits(human, primary):
    teacher = human(primary=primary, below=0.7)
    sure, also_sure, unsure = outcomes(teacher, TEXTS)
    assert isinstance(sure, SoftLabel) and isinstance(also_sure, SoftLabel)
    assert isinstance(unsure, Deferred) and unsure.draft.confidence < 0.6 and "is below 0.7" in unsure.why
    assert state(teacher)["requests_total"] == 4


def test_what_the_model_refuses_waits_too(human, primary, chat_server):
    teacher = human(primary=primary, below=0.6)
    chat_server.outside = 0.5
    (refused,) = outcomes(teacher, TEXTS[:1])
    assert isinstance(refused, Deferred) and refused.draft is None and refused.why.startswith("outside_classes")
    assert not isinstance(refused, RecordError)


def test_questions_are_kept_and_the_other_inputs_are_not_held_up(human, primary, store):
    teacher = human(primary=primary, below=0.7)
    entries = [Input(workload="w", id=t, key="k", time=1.0, payload=t.encode()) for t in TEXTS]
    keys = [label_key(e, reference(teacher), teacher.space) for e in entries]
    found = outcomes(teacher, TEXTS)
    asked = [Question(k, e, o) for k, e, o in zip(keys, entries, found, strict=True) if isinstance(o, Deferred)]
    teacher.defer("w", asked)
    teacher.defer("w", [])
    (row,) = reviews.waiting(store, "w")
    assert (row.key, row.teacher, row.classes) == (keys[2], reference(teacher), ["ham", "spam"])
    assert row.draft["distribution"]["spam"] == pytest.approx(0.5, abs=0.02)


def test_the_digest_covers_guidelines_and_the_model_behind(human, primary, chat_server):
    found = {
        human().digest, human(guidelines="Spam: what nobody asked for.").digest, human(classes=["spam", "ham"]).digest,
        human(primary=primary, below=0.7).digest, human(primary=primary, below=0.8).digest,
    }  # fmt: skip
    assert human().digest in found and len(found) == 5
    chat_server.fingerprint = "fp_2"
    assert human(primary=primary, below=0.7).digest not in found
    assert human(primary=primary, below=0.7).name == "m-human"


def test_cost_is_the_models_and_the_persons(human, primary):
    assert cost(human(price_per_question=2.0), TEXTS) == 6.0
    assert cost(human(price_per_question=2.0, primary=primary, below=0.7), TEXTS) > 6.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"classes": ["ham"]}, "classes"),
        ({"below": 0.5}, "goes with primary"),
        ({"primary": {"options": {}}, "below": 0.5}, "must have factory"),
    ],
)
def test_options_that_are_refused(human, options, says):
    with pytest.raises(ConfigError, match=says):
        human(**options)


def test_primaries_that_do_not_fit(human, primary):
    with pytest.raises(ConfigError, match="goes with primary"):
        human(primary=primary)
    with pytest.raises(ConfigError, match="above 0"):
        human(primary=primary, below=1.5)
    with pytest.raises(ConfigError, match="must answer in mail@1"):
        human(primary=primary, below=0.5, classes=["ham", "eggs"])
