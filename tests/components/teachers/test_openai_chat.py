import math

import pytest
from starlette.responses import JSONResponse, Response

from components.contracts.errors import ConfigError, TeacherError, UnavailableError
from components.contracts.records import RecordError, SoftLabel
from components.contracts.spec import Factory, Payload, Spec
from components.contracts.spec.data_free import DataFree
from components.synthetic.methods import make_up
from components.teachers.contract import TeacherChangedError
from tests.components.teachers.conftest import spamminess

TEXTS = ["win money !", "the kernel patch", "win win !"]


def test_token_probabilities_become_soft_labels(chat):
    teacher = chat()
    for text, soft in zip(TEXTS, teacher.label(TEXTS), strict=True):
        assert soft.distribution["spam"] == pytest.approx(spamminess(text), abs=0.02)
    assert teacher.outside_mass == pytest.approx(0.02, abs=0.05)


def test_what_is_asked(chat, chat_server):
    chat(system="One of {classes} {in braces}", prompt="Mail: {text}", max_characters=3, body={"seed": 7}).label(
        ["abcdef"]
    )
    body = chat_server.bodies[-1]
    assert [m["content"] for m in body["messages"]] == ["One of ham, spam {in braces}", "Mail: abc"]
    assert (body["logprobs"], body["top_logprobs"], body["temperature"], body["seed"]) == (True, 20, 0, 7)
    assert body["model"] == "mail-llm"


def test_the_digest_covers_what_decides_an_answer_and_not_the_url(chat, chat_server, quick):
    from components.teachers.openai_chat import ChatTeacher

    first = chat().digest
    assert chat().digest == first
    by_name = ChatTeacher(chat_server.url.replace("127.0.0.1", "localhost") + "/v1", "mail-llm", "mail@1",
                          ["ham", "spam"], http=quick | {"attempts": 1})  # fmt: skip
    by_name.close()
    assert by_name.digest == first
    others = [
        chat(prompt="Is this spam? {text}").digest, chat(system="Say {classes}").digest, chat(space="mail@2").digest,
        chat(answers={"spam": "s", "ham": "h"}).digest, chat(body={"seed": 1}).digest, chat(max_characters=9).digest,
    ]  # fmt: skip
    chat_server.fingerprint = "fp_2"
    others.append(chat().digest)
    chat_server.model = "mail-llm-2026-02"
    others.append(chat().digest)
    assert len({first, *others}) == 9


def test_another_fingerprint_or_model_is_an_error_that_names_both(chat, chat_server):
    teacher = chat()
    chat_server.fingerprint = "fp_2"
    with pytest.raises(TeacherChangedError, match=r"fingerprint was 'fp_1' and is 'fp_2'.*labeler anew") as caught:
        teacher.label(TEXTS)
    assert caught.value.found["system_fingerprint"] == "fp_2" and teacher.changed == caught.value.found
    chat_server.fingerprint, chat_server.model = "fp_1", "cheaper"
    with pytest.raises(TeacherChangedError, match="model was 'mail-llm-2026-01' and is 'cheaper'"):
        teacher.label(TEXTS)


def test_a_change_can_be_reported_instead_or_left_out_of_the_identity(chat, chat_server):
    reporting, unpinned = chat(on_change="report"), chat(pin_fingerprint=False)
    chat_server.fingerprint = "fp_2"
    assert len(reporting.label(TEXTS)) == 3 and reporting.changed["system_fingerprint"] == "fp_2"
    assert reporting.state()["changed"] == reporting.changed
    assert len(unpinned.label(TEXTS)) == 3 and unpinned.changed is None
    chat_server.fingerprint = "fp_3"
    assert chat(pin_fingerprint=False).digest == unpinned.digest


def test_too_much_outside_the_classes_is_an_error_or_a_dead_letter(chat, chat_server):
    teacher, lenient = chat(), chat(on_outside="letter")
    chat_server.outside = 0.6
    with pytest.raises(TeacherError, match=r"0\.[67]\d* of its probability outside.*max_outside is 0.1.*ham, spam"):
        teacher.label(TEXTS[:1])
    (letter,) = lenient.outcomes(TEXTS[:1])
    assert isinstance(letter, RecordError) and letter.reason == "outside_classes"
    assert lenient.state()["outside_total"] == 1 and lenient.outside_mass > 0.6 - 1e-9
    chat_server.outside = 0.05
    assert math.isclose(math.fsum(teacher.label(TEXTS)[0].distribution.values()), 1.0)


def test_an_input_that_the_server_refuses_is_a_dead_letter_and_the_others_are_labelled(chat, chat_server):
    teacher = chat(http={"concurrency": 1})
    chat_server.faults += [400]
    refused, *others = teacher.outcomes(TEXTS)
    assert isinstance(refused, RecordError) and refused.reason == "teacher_refused" and "HTTP 400" in refused.detail
    assert [o.label for o in others] == ["ham", "spam"]
    chat_server.faults += [413]
    with pytest.raises(TeacherError, match="refuses an input"):
        teacher.label(TEXTS[:1])
    chat_server.faults += [404]
    with pytest.raises(TeacherError, match="HTTP 404"):
        teacher.outcomes(TEXTS[:1])


def kept_back(reason, **message):
    """What makes a server's answer one that the model or a filter kept back, which has no probabilities."""
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": None, **message}}
    return lambda answer: answer | {"choices": [choice | {"logprobs": {"content": None}}]}


KEPT_BACK = [
    (kept_back("stop", refusal="I cannot help with that"), "refused to answer: I cannot help"),
    (kept_back("content_filter"), "cut off by a filter"),
]


@pytest.mark.parametrize(("fault", "detail"), KEPT_BACK)
def test_an_answer_that_was_kept_back_is_its_input_s_dead_letter(chat, chat_server, fault, detail):
    teacher = chat()
    chat_server.faults += [fault]
    (letter,) = teacher.outcomes(TEXTS[:1])
    assert isinstance(letter, RecordError) and letter.reason == "teacher_refused" and detail in letter.detail
    assert isinstance(teacher.outcomes(TEXTS[:1])[0], SoftLabel)
    chat_server.faults += [fault]
    with pytest.raises(TeacherError, match=f"examples of spam and .*{detail}"):
        teacher.examples("spam", 2, 0)


def test_an_outage_in_the_middle_of_a_batch_pays_for_nothing_twice(chat, chat_server):
    teacher = chat(http={"attempts": 1, "concurrency": 1})
    chat_server.faults += [None, 500]
    with pytest.raises(UnavailableError):
        teacher.label(TEXTS)
    assert len(chat_server.bodies) == 3
    assert len(teacher.label(TEXTS)) == 3 and len(chat_server.bodies) == 4


def change(**fields):
    return lambda answer: answer | fields


def choice(**fields):
    return lambda answer: answer | {"choices": [answer["choices"][0] | fields]}


def first_logprob(value):
    def spoil(answer):
        position = answer["choices"][0]["logprobs"]["content"][0]
        position["top_logprobs"][0]["logprob"] = value
        return answer

    return spoil


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (change(choices=[]), "0 choices"),
        (change(choices="x"), "no chat completion"),
        (change(model=None), "no chat completion"),
        (lambda answer: {"error": "overloaded"}, "no chat completion"),
        (lambda answer: [answer], "no chat completion"),
        (choice(logprobs=None), "no top_logprobs"),
        (choice(logprobs={"content": []}), "no top_logprobs"),
        (first_logprob(0.7), "log probabilities that are none"),
        (first_logprob(None), "outside the classes"),
        (Response(b'{"model": "m", "choices": [', media_type="application/json"), "not JSON"),
        (Response(b'{"model": "m", "choices": NaN}', media_type="application/json"), "not JSON"),
    ],
)
def test_answers_that_are_none(chat, chat_server, fault, says):
    teacher = chat()
    chat_server.faults += [fault]
    with pytest.raises(TeacherError, match=says):
        teacher.label(TEXTS[:1])
    assert teacher.label(TEXTS[:1])[0].label == "spam"


def test_a_server_without_logprobs_is_refused_at_start(chat, chat_server):
    chat_server.faults += [choice(logprobs=None)]
    with pytest.raises(TeacherError, match="use a model and server that do"):
        chat()


def test_faults_that_pass_do_not_show(chat, chat_server):
    teacher = chat(http={"attempts": 6})
    chat_server.faults += [500, 0.05, Response(status_code=429, headers={"retry-after": "0"}), 503]
    assert [s.label for s in teacher.label(TEXTS)] == ["spam", "ham", "spam"]
    assert teacher.state()["retries_total"] == 3


def test_tokens_and_money_are_counted_and_the_estimate_is_an_upper_bound(chat):
    teacher = chat(price_per_million_prompt_tokens=2.0, price_per_million_answer_tokens=8.0)
    before, most = teacher.state()["spent_total"], teacher.cost(TEXTS)
    teacher.label(TEXTS)
    state = teacher.state()
    assert 0 < state["spent_total"] - before <= most
    assert state["prompt_tokens_total"] > 60 and state["tokens_total"] > state["prompt_tokens_total"]
    assert chat().cost(TEXTS) == 0.0


def silent(answer):
    answer["usage"] = None
    return answer


def null_candidate(answer):
    """As servers print a probability of zero, or leave out what they have none of."""
    (first, *_) = answer["choices"][0]["logprobs"]["content"]
    first["top_logprobs"].append({"token": "never", "logprob": None, "bytes": None})
    return answer | {"usage": {"prompt_tokens": None}}


def test_what_a_server_does_not_report_is_no_fault(chat, chat_server):
    teacher = chat(http={"attempts": 1})
    asked = teacher.state()
    for fault in (silent, null_candidate):
        chat_server.faults = [fault]
        (found,) = teacher.label(TEXTS[:1])
        assert found.distribution["spam"] == pytest.approx(spamminess(TEXTS[0]), abs=0.02)
    used = teacher.state()
    assert used["prompt_tokens_total"] > asked["prompt_tokens_total"] + 2 * 20, "estimated, not free"
    assert used["answer_tokens_total"] == asked["answer_tokens_total"] + 2 * 4


UNSUPPORTED = {
    "error": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported_parameter",
    }
}  # fmt: skip


def test_the_limit_has_the_name_that_the_server_asks_for(chat, chat_server):
    plain = chat().digest
    right = chat_server.right
    refuse = JSONResponse(UNSUPPORTED, 400)
    chat_server.right = lambda body: refuse if "max_tokens" in body else right(body)
    teacher = chat()
    assert teacher.digest == plain, "what it is called decides no answer"
    assert len(teacher.label(TEXTS)) == 3
    assert [("max_tokens" in b, b.get("max_completion_tokens")) for b in chat_server.bodies] == [(False, 4)] * 3
    named = chat(body={"max_completion_tokens": 7})
    assert named.label(TEXTS[:1]) and chat_server.bodies[-1]["max_completion_tokens"] == 7


def test_many_requests_at_once_may_learn_the_limits_name(chat, chat_server):
    teacher = chat(http={"concurrency": 8})
    right = chat_server.right
    refuse = JSONResponse(UNSUPPORTED, 400)
    chat_server.right = lambda body: refuse if "max_tokens" in body else right(body)
    assert all(isinstance(x, SoftLabel) for x in teacher.outcomes([f"text {i}" for i in range(16)]))


@pytest.mark.parametrize(
    "options",
    [{"classes": [True, False]}, {"classes": [0, 1]}, {"answers": {True: "Y"}}, {"answers": {"ham": 1, "spam": 2}}],
)
def test_names_and_answers_that_are_no_text_are_refused(chat, options):
    with pytest.raises(ConfigError, match="quote class names"):
        chat(**options)


def test_only_texts(chat):
    with pytest.raises(TeacherError, match=r"payload\.decoder to text"):
        chat().label([b"bytes"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompt": "no place"}, "prompt"),
        ({"classes": ["ham"]}, "classes"),
        ({"classes": ["ham", "ham"]}, "classes"),
        ({"answers": {"eggs": "E"}}, "answers"),
        ({"on_outside": "ignore"}, "on_outside"),
        ({"on_change": "ignore"}, "on_change"),
        ({"max_outside": 1.0}, "max_outside"),
        ({"http": {"retries": 1}}, "retries"),
    ],
)
def test_options_that_are_refused(chat, options, says):
    with pytest.raises(ConfigError, match=says):
        chat(**options)


MAIL = Spec(
    name="mail", teacher=Factory(factory="chat"), payload=Payload(decoder="text"), features=Factory(factory="words")
)  # fmt: skip


def test_examples_of_each_class_are_asked_for_and_read_strictly(chat, chat_server):
    teacher, paid = chat(), []
    made = make_up(MAIL, teacher, DataFree(rows=10, seed=3), lambda calls: paid.append(calls) or True)
    assert made.synthetic == "chat;seed=3"
    texts = [p.decode() for p in made.payloads]
    assert [t.split()[0] for t in texts] == ["ham"] * 5 + ["spam"] * 5 and len({*texts}) == 10
    assert paid == [1] * len(chat_server.bodies) == [1] * 4
    first = chat_server.bodies[0]
    assert first["messages"][1]["content"].startswith("Write 5 different inputs of the class ham")
    assert (first["temperature"], first["seed"], first["max_tokens"]) == (1, 3, 400)


@pytest.mark.parametrize("wrote", ["Sure! Here you are", '["a", 1]', '{"a": "b"}', '["cut o', ""])
def test_what_is_no_list_of_examples_is_an_error_that_says_what_to_do(chat, chat_server, wrote):
    teacher = chat()
    chat_server.writes = wrote or " "
    with pytest.raises(TeacherError, match=r"asked for examples of ham as a JSON array of strings .*take a"):
        make_up(MAIL, teacher, DataFree(rows=10))


def test_a_class_of_which_there_is_no_more_to_say_has_fewer_examples(chat, chat_server):
    teacher = chat()
    chat_server.writes = '["one", "two", " ", "one"]'
    made = make_up(MAIL, teacher, DataFree(rows=10))
    assert made.payloads == [b"one", b"two"] and len(chat_server.bodies) == 7


def test_examples_are_written_within_the_budget(chat, chat_server):
    teacher, left = chat(), iter([True, False])
    with pytest.raises(ConfigError, match=r"label\.budget"):
        make_up(MAIL, teacher, DataFree(rows=10), lambda calls: next(left))
    assert len(chat_server.bodies) == 1
