import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import ConfigError, RecordError, TeacherError
from components.contracts.records import Span
from components.contracts.tagging import aligned
from components.student.tagging import TaggedWords
from components.teachers.contract import outcomes
from components.teachers.logprobs import class_mass
from components.teachers.openai_spans import ChatSpanTeacher, places_of, schema, values
from tests.components.teachers.conftest import SPACE
from tests.components.teachers.test_openai_chat import KEPT_BACK
from tests.components.teachers.test_openai_sets import positions, said

KINDS = ("LOC", "PER", "PERIOD")
NONE = ('{"entities":[]}',)
TEXT = "Ada of London met Ada Byron."


def mention(text, kind):
    """The tokens of a mention; ``kind``: candidates of the first token of its kind, or the kind."""
    return ('{"text":"', json.dumps(text)[1:-1], '","label":"', kind, '"}')


def listed(*mentions):
    parts = ['{"entities":[']
    for n, one in enumerate(mentions):
        parts += [*([","] if n else []), *one]
    return (*parts, "]}")


BOTH = listed(mention("Ada", {"PER": 0.7, "LOC": 0.3}), mention("London", {"LOC": 1.0}), mention("Ada Byron", "PER"))


@pytest.fixture
def teacher(chat_server, quick):
    made = []

    def make(**options):
        chat_server.faults.insert(0, said(*NONE))  # what it answers at the start
        given = {"url": f"{chat_server.url}/v1", "model": "m", "space": SPACE, "kinds": KINDS, "http": quick}
        made.append(ChatSpanTeacher(**given | options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_mentions_are_spans_with_the_chances_of_their_kinds(teacher, chat_server):
    asked = teacher()
    chat_server.faults += [said(*BOTH), said(*NONE)]
    (soft,), (none,) = (outcomes(asked, [text]) for text in (TEXT, "nobody here"))
    assert soft.spans == (
        Span(start=0, end=3, label="PER"), Span(start=7, end=13, label="LOC"), Span(start=18, end=27, label="PER"),
    )  # fmt: skip
    words = {TEXT[t.start : t.end]: t.distribution for t in soft.tokens}
    assert soft.tokens[0].distribution == pytest.approx({"B-PER": 0.7, "B-LOC": 0.3})
    assert words["of"] == {"O": 1.0} and words["Byron"] == pytest.approx({"I-PER": 1.0}) and words["."] == {"O": 1.0}
    assert none.spans == () and len(none.tokens) == 2 and none.confidence == 1.0
    assert asked.task == "tagging" and asked.classes[:3] == ("O", "B-LOC", "I-LOC") and len(asked.classes) == 7
    body = chat_server.bodies[1]
    assert body["response_format"] == schema(KINDS) and body["logprobs"] is True and body["max_tokens"] == 1024
    assert "LOC, PER, PERIOD" in body["messages"][0]["content"]
    assert asked.digest != teacher(kinds=KINDS[:2]).digest and len(asked.digest) == 64


def test_a_student_s_words_have_the_tags_as_they_are(teacher, chat_server):
    asked = teacher()
    chat_server.faults += [said(*BOTH)]
    (soft,) = asked.label([TEXT])
    assert aligned(soft, TaggedWords().tokens(TEXT)) == [t.distribution for t in soft.tokens]


def test_a_token_that_ends_the_answer_is_none_of_it(teacher, chat_server):
    asked, ended = teacher(), said(*BOTH, "<|im_end|>")

    def without(answer):
        told = ended(answer)
        told["choices"][0]["message"]["content"] = "".join(t if isinstance(t, str) else next(iter(t)) for t in BOTH)
        return told

    chat_server.faults += [without]
    assert len(asked.label([TEXT])[0].spans) == 3


def test_a_kind_that_begins_another_s_name_is_followed(teacher, chat_server):
    asked = teacher(kinds=["PER", "PERIOD"])
    chat_server.faults += [said(*listed(('{"text":"May"', ',"label":"', "PER", {"IOD": 0.6, '"': 0.4}, '"}')))]
    (soft,) = asked.label(["in May"])
    assert soft.tokens[1].distribution == pytest.approx({"B-PERIOD": 0.6, "B-PER": 0.4})


LABEL = [("PER", 0.8), ("LOC", 0.2)]
CUT = (
    ('{"entities":[{"text":"Ada","label":"PER"}]}',),
    ('{"entities":[{"text":"Ada","label', {'":"PER': 0.8, '":"LOC': 0.2}, '"}]}'),
    ('{"entities": [ {"label" :', {' "PER': 0.8, '"LOC': 0.2}, '" , "text":"Ada"} ]}'),
    ('{"entities":[{"text":"a \\"label\\": \\"PER\\"\\\\', '","label":"', {"P": 0.8, "L": 0.2}, "ER", '"}]}'),
)


@pytest.mark.parametrize("tokens", CUT[1:])
def test_tokens_may_be_cut_anywhere(tokens):
    (some,) = values(positions(*tokens), "label")
    found = class_mass(some, {"PER": "PER", "LOC": "LOC"}, case_sensitive=True)
    assert found == pytest.approx(dict(LABEL))


def test_a_whole_answer_in_one_token_is_sure():
    (some,) = values(positions(*CUT[0]), "label")
    assert class_mass(some, {"PER": "PER", "LOC": "LOC"}, case_sensitive=True) == {"PER": 1.0, "LOC": 0.0}


@pytest.mark.parametrize(
    ("text", "mentions", "found"),
    [
        ("Ann's annual Ann", ["Ann", "Ann"], ["0-3", "13-16"]),  # not within a word, though it would be the first
        ("annual", ["ann"], ["0-3"]),  # unless it is nowhere else
        ("B then A then B", ["B", "A", "B"], ["0-1", "7-8", "14-15"]),
        ("A then B", ["B", "A"], ["7-8", "0-1"]),  # in another order than the text's
        ("A then B", ["A", "A", "B"], ["0-1", None, "7-8"]),  # named once more than it is there
        ("University of London", ["University of London", "London"], ["0-20", None]),  # a part of another
        ("University of London", ["London", "University of London"], [None, "0-20"]),  # whichever is named first
        ("Ann Smith met Ann", ["Ann", "Ann Smith"], ["14-17", "0-9"]),
        ("the City of York in York", ["York", "City of York", "the City of York"], ["20-24", None, "0-16"]),
        ("New York, York", ["York", "New  York"], ["10-14", "0-8"]),
        ("New\n  York", ["New York"], ["0-10"]),  # other spaces
        ("東京都", ["京"], ["1-2"]),
        ("a+b (c)", ["(c)", "a+b"], ["4-7", "0-3"]),
    ],
)
def test_where_a_mention_stands(text, mentions, found):
    assert places_of(text, mentions) == [None if p is None else tuple(map(int, p.split("-"))) for p in found]


def test_a_text_is_searched_once_for_each_mention_that_differs(monkeypatch):
    searched, search = [], re.finditer
    monkeypatch.setattr(re, "finditer", lambda *given: searched.append(given) or search(*given))
    places = places_of("a " * 5_000, ["a"] * 5_001)
    assert places == [*((2 * n, 2 * n + 1) for n in range(5_000)), None] and len(searched) == 1


@given(st.lists(st.sampled_from(["ab", "a", "b", "ba b", "a b"]), max_size=6), st.text("ab ", max_size=30))
def test_places_have_the_text_and_are_apart(mentions, text):
    if all(m in text for m in mentions):
        places = places_of(text, mentions)
        for place, mention in zip(places, mentions, strict=True):
            assert place is None or text[slice(*place)].split() == mention.split()
        assert all(a[1] <= b[0] for a, b in pairwise(sorted(p for p in places if p is not None)))
    else:
        with pytest.raises(ValueError, match="not in the text"):
            places_of(text, ["c", *mentions])


@pytest.mark.parametrize(
    ("tokens", "reason", "detail"),
    [
        (listed(mention("Eve", "PER")), "stop", "names 'Eve', which is not in the text"),
        (listed(mention(" ", "PER")), "stop", "names ' ', which is not in the text"),
        (('{"entities":[{"text":"Ada",',), "length", "was cut off: raise max_tokens"),
        (
            listed(mention("Ada", {"PER": 0.7, "ORG": 0.3})), "stop",
            r"puts 0\.300 of the probability of a kind outside LOC, PER, PERIOD",
        ),
        (
            listed(mention("Ada", {"PERSON": 0.9, "LOC": 0.1})), "stop", "names the kind 'PERSON', which is none of",
        ),
        (listed(mention("Ada", {"LOC": 0.6, "PERSON": 0.4})), "stop", r"puts 0\.400 of the probability of a kind"),
        (listed(('{"text":"Ada","label":"', "PER", 'CENT"}')), "stop", "names the kind 'PERCENT', which is none of"),
        (('{"entities":[{"text":"Ada","label":"PERCENT"}]}',), "stop", "names the kind 'PERCENT', which is none of"),
        (('{"entities":[{"text":"Ada","label":"ORG"}]}',), "stop", "names the kind 'ORG', which is none of"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_letter_or_an_error(teacher, chat_server, tokens, reason, detail):
    chat_server.faults += [said(*tokens, reason=reason)]
    (found,) = teacher().outcomes([TEXT])
    assert isinstance(found, RecordError) and found.reason == "unreadable_answer"
    strict = teacher(on_outside="error")
    chat_server.faults += [said(*tokens, reason=reason)]
    with pytest.raises(TeacherError, match=detail):
        strict.label([TEXT])


@pytest.mark.parametrize(
    "tokens",
    [("Ada", " is one"), ('{"entities":[{"text":"Ada"}]}',),
     ('{"entities":[{"text":"Ada","label":"PER","label":"LOC"}]}',), ('{"people":["Ada"]}',)],
)  # fmt: skip
def test_what_is_no_such_list_is_the_teachers_fault(teacher, chat_server, tokens):
    asked = teacher()
    chat_server.faults += [said(*tokens)]
    with pytest.raises(TeacherError, match=r"answered no list of mentions.*response_format"):
        asked.label([TEXT])


def test_mentions_without_a_place_of_their_own_are_counted(teacher, chat_server):
    asked = teacher()
    chat_server.faults += [
        said(*listed(mention("Byron", "LOC"), mention("Ada Byron", "PER"), mention("London", "LOC")))
    ]
    (soft,) = asked.label([TEXT])
    assert soft.spans == (Span(start=7, end=13, label="LOC"), Span(start=18, end=27, label="PER"))
    assert asked.state()["left_out_total"] == 1 and asked.state()["outside_total"] == 0


def test_text_that_the_model_does_not_see_is_in_no_span(teacher, chat_server):
    asked = teacher(max_characters=8)
    chat_server.faults += [said(*listed(mention("Ada", "PER"))), said(*listed(mention("Byron", "PER")))]
    (found,), (unseen,) = (asked.outcomes([TEXT]) for _ in range(2))
    assert found.tokens[-1].end <= 8 and found.spans == (Span(start=0, end=3, label="PER"),)
    assert isinstance(unseen, RecordError)


@pytest.mark.parametrize("kinds", [[], ["PER", "PER"], ["O"], ['a"b'], [""], [3]])
def test_kinds_that_are_none_are_refused(kinds):
    with pytest.raises(ConfigError, match="kinds"):
        ChatSpanTeacher("http://127.0.0.1:1/v1", "m", SPACE, kinds)


@pytest.mark.parametrize(("fault", "detail"), KEPT_BACK)
def test_an_answer_that_was_kept_back_is_its_input_s_dead_letter(teacher, chat_server, fault, detail):
    asked = teacher()
    chat_server.faults += [fault]
    (letter,) = asked.outcomes(["text"])
    assert isinstance(letter, RecordError) and letter.reason == "teacher_refused" and detail in letter.detail
