import json
import math

import pytest

from components.contracts.errors import RecordError, TeacherError
from components.teachers.contract import outcomes
from components.teachers.logprobs import Position, Token
from components.teachers.openai_sets import ChatSetTeacher, chances, schema
from tests.components.teachers.conftest import SPACE
from tests.components.teachers.test_openai_chat import KEPT_BACK

CLASSES = ("late", "torn")


def positions(*tokens):
    """Positions whose token is the first of its candidates; a text alone is sure."""
    made = []
    for token in tokens:
        top = token if isinstance(token, dict) else {token: 1.0}
        others = [Token(text, math.log(share)) for text, share in top.items()]
        made.append(Position(token=next(iter(top)), logprob=others[0].logprob, top_logprobs=others))
    return made


def said(*tokens, reason="stop"):
    """What makes a server's answer one of these tokens."""
    content = [
        {"token": p.token, "logprob": p.logprob, "bytes": list(p.token.encode()),
         "top_logprobs": [{"token": t.token, "logprob": t.logprob} for t in p.top_logprobs]}
        for p in positions(*tokens)
    ]  # fmt: skip
    text = "".join(p["token"] for p in content)
    choice = {
        "index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text},
        "logprobs": {"content": content},
    }  # fmt: skip
    return lambda answer: answer | {"choices": [choice]}


BOTH = ('{"', "late", '":', {" true": 0.8, " false": 0.19, " null": 0.01}, ', "torn', '":', {"false": 0.7, "true": 0.3})
SURE = ('{"late":', "true", ',"torn":', "false}")


@pytest.fixture
def teacher(chat_server, quick):
    made = []

    def make(**options):
        chat_server.faults.insert(0, said(*SURE))  # what it answers at the start
        given = {"url": f"{chat_server.url}/v1", "model": "m", "space": SPACE, "classes": CLASSES, "http": quick}
        made.append(ChatSetTeacher(**given | options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_each_class_has_the_chance_of_its_boolean(teacher, chat_server):
    asked = teacher()
    chat_server.faults += [said(*BOTH)]
    (soft,) = outcomes(asked, ["late and torn"])
    assert soft.task == "multilabel" and soft.label == '["late"]'
    assert soft.distribution == pytest.approx({"late": 0.8 / 0.99, "torn": 0.3})
    body = chat_server.bodies[-1]
    assert body["response_format"] == schema(CLASSES) and body["logprobs"] is True
    assert (
        body["max_tokens"] >= len('{"late": false, "torn": false}') and "late, torn" in body["messages"][0]["content"]
    )
    assert asked.digest != teacher(classes=("torn", "late")).digest and len(asked.digest) == 64


WHOLE = ('{"late": true, "torn": false}',)
GLUED = ('{"late', {'": true': 0.6, '": false': 0.4}, ', "torn":', {"\n true": 0.9, "false": 0.1})
PARTS = ('{"torn":', {"t": 0.7, "f": 0.3}, "rue", ' ,"late" :', {" f": 0.8, " t": 0.2}, "alse}")


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(WHOLE, [(1.0, 0.0), (0.0, 1.0)]), (GLUED, [(0.6, 0.4), (0.9, 0.1)]), (PARTS, [(0.2, 0.8), (0.7, 0.3)])],
)
def test_tokens_may_be_cut_anywhere(tokens, expected):
    assert chances(positions(*tokens), CLASSES) == [pytest.approx(pair) for pair in expected]


def test_a_value_that_is_no_boolean_is_none():
    with pytest.raises(ValueError, match="'late' has the value b'maybe"):
        chances(positions('{"late":', "maybe", ',"torn":', "false}"), CLASSES)


def test_a_name_is_found_as_json_writes_it():
    names = ('sa"id', "böse")
    for ascii_only in (True, False):
        keys = [json.dumps(n, ensure_ascii=ascii_only) for n in names]
        tokens = (f"{{{keys[0]}:", {"true": 0.9, "false": 0.1}, f",{keys[1]}:", {"false": 0.6, "true": 0.4}, "}")
        assert chances(positions(*tokens), names) == [pytest.approx(p) for p in ((0.9, 0.1), (0.4, 0.6))]


def test_what_is_no_such_object_is_the_teachers_fault(teacher, chat_server):
    asked = teacher()
    chat_server.faults += [said("yes", " it", " is")]
    with pytest.raises(TeacherError, match="says nothing of 'late'"):
        asked.label(["text"])
    chat_server.faults += [said('{"late":', "true", ',"to', reason="length")]
    with pytest.raises(TeacherError, match="raise max_tokens"):
        asked.label(["text"])


def test_doubt_outside_the_booleans_is_an_error_or_a_letter(teacher, chat_server):
    doubt = ('{"late":', {"true": 0.5, "null": 0.4, "false": 0.1}, ',"torn":', "false", "}")
    for asked, letter in ((teacher(), False), (teacher(on_outside="letter"), True)):
        chat_server.faults += [said(*doubt)]
        if letter:
            (found,) = asked.outcomes(["text"])
            assert isinstance(found, RecordError) and found.reason == "outside_classes" and "'late'" in found.detail
        else:
            with pytest.raises(TeacherError, match="outside true and false"):
                asked.label(["text"])
        assert asked.state()["outside_total"] == 1 and asked.outside_mass == pytest.approx(0.4)


@pytest.mark.parametrize(("fault", "detail"), KEPT_BACK)
def test_an_answer_that_was_kept_back_is_its_input_s_dead_letter(teacher, chat_server, fault, detail):
    asked = teacher()
    chat_server.faults += [fault]
    (letter,) = asked.outcomes(["text"])
    assert isinstance(letter, RecordError) and letter.reason == "teacher_refused" and detail in letter.detail
