import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contracts.errors import ConfigError
from components.teachers.logprobs import Position, Token, answers, class_mass


def position(taken, **top):
    """A position by token probabilities; ``_`` in a name is a space."""
    top = {t.replace("_", " "): q for t, q in top.items()}
    logs = [Token(t, math.log(q), list(t.encode())) for t, q in top.items()]
    return Position(taken, math.log(top[taken]), list(taken.encode()), logs)


def mass(positions, *classes, written=None, case_sensitive=False):
    return class_mass(positions, answers(classes, written or {}, case_sensitive), case_sensitive)


def test_whole_words_and_mass_outside():
    found = mass([position("spam", spam=0.7, ham=0.2, The=0.1)], "ham", "spam")
    assert found == pytest.approx({"ham": 0.2, "spam": 0.7})


def test_a_class_is_known_by_its_first_token():
    found = mass([position("sp", sp=0.7, h=0.2, x=0.1), position("am", am=1.0)], "ham", "spam")
    assert found == pytest.approx({"ham": 0.2, "spam": 0.7})


def test_case_leading_space_and_several_tokens_of_one_class_are_added():
    found = mass([position(" Spam", **{"_Spam": 0.4, "spam": 0.3, "SP": 0.1, "Ham": 0.2})], "ham", "spam")
    assert found == pytest.approx({"ham": 0.2, "spam": 0.8})
    strict = mass([position("Spam", Spam=0.4, spam=0.3, ham=0.2)], "ham", "spam", case_sensitive=True)
    assert strict == pytest.approx({"ham": 0.2, "spam": 0.3})


def test_a_shared_first_token_is_split_by_the_next_where_the_model_went_on():
    path = [position("s", s=0.8, ham=0.2), position("pam", pam=0.75, afe=0.25)]
    assert mass(path, "ham", "safe", "spam") == pytest.approx({"ham": 0.2, "safe": 0.2, "spam": 0.6})


def test_a_shared_first_token_that_was_not_taken_is_outside():
    assert mass([position("ham", s=0.3, ham=0.7)], "ham", "safe", "spam") == {"ham": 0.7, "safe": 0.0, "spam": 0.0}


def test_one_answer_that_begins_another():
    goes_on = [position("java", java=0.9, go=0.1), position("script", script=0.6, **{".": 0.4})]
    found = mass(goes_on, "go", "java", "javascript")
    assert found == pytest.approx({"go": 0.1, "java": 0.36, "javascript": 0.54})
    ended = mass([position("java", java=0.9, go=0.1)], "go", "java", "javascript")
    assert ended == pytest.approx({"go": 0.1, "java": 0.9, "javascript": 0.0})
    assert mass([position("java", java=0.9, go=0.1), position(" is", **{"_is": 1.0})], "go", "java", "javascript")[
        "java"
    ] == pytest.approx(0.9)


def listed(taken, *top):
    """A position by (text, probability or None) in the server's order; ``taken`` is one of them."""
    tokens = [Token(t, None if q is None else math.log(q)) for t, q in (taken, *top)]
    return Position(tokens[0].token, tokens[0].logprob, None, tokens[1:])


def test_tokens_of_one_text_have_the_sum_of_their_probabilities():
    found = mass([listed(("spam", 0.4), ("spam", 0.4), ("ham", 0.2), ("spam", 0.3))], "ham", "spam")
    assert found == pytest.approx({"ham": 0.2, "spam": 0.7})
    path = [listed(("s", 0.5), ("s", 0.5), ("s", 0.3), ("ham", 0.2)), listed(("pam", 1.0))]
    assert mass(path, "ham", "safe", "spam") == pytest.approx({"ham": 0.2, "safe": 0.0, "spam": 0.8})


def test_the_taken_token_counts_once_though_it_is_listed_twice():
    found = mass([listed(("spam", 0.7), ("spam", 0.7), ("spam", 0.7), ("ham", 0.2))], "ham", "spam")
    assert found == pytest.approx({"ham": 0.2, "spam": 0.7})


def test_a_candidate_without_a_log_probability_has_none():
    found = mass([listed(("spam", 0.7), ("spam", 0.7), ("ham", None), ("ham", 0.2))], "ham", "spam")
    assert found == pytest.approx({"ham": 0.2, "spam": 0.7})
    assert mass([listed(("spam", None), ("spam", 0.7), ("ham", 0.3))], "ham", "spam")["spam"] == pytest.approx(0.7)


def test_white_space_first_is_passed():
    path = [position("\n", **{"\n": 0.9, "ham": 0.1}), position("spam", spam=1.0)]
    assert mass(path, "ham", "spam") == pytest.approx({"ham": 0.1, "spam": 0.9})


def test_written_answers_and_characters_that_tokens_split():
    found = mass([position("A", A=0.9, B=0.1)], "spam", "ham", written={"spam": "A", "ham": "B"})
    assert found == pytest.approx({"spam": 0.9, "ham": 0.1})
    umlaut = "ü".encode()
    halves = [Position("\ufffd", math.log(0.9), list(umlaut[:1]), [Token("\ufffd", math.log(0.9), list(umlaut[:1])),
              Token("h", math.log(0.1))]), Position("\ufffd", 0.0, list(umlaut[1:]), [])]  # fmt: skip
    assert mass(halves, "übel", "ham") == pytest.approx({"übel": 0.9, "ham": 0.1})


def test_the_taken_token_counts_where_the_server_leaves_it_out():
    one = Position("spam", math.log(0.6), None, [Token("ham", math.log(0.4))])
    assert mass([one], "ham", "spam") == pytest.approx({"ham": 0.4, "spam": 0.6})


@pytest.mark.parametrize(
    "bad",
    [
        Position("a", 0.5, None, []),
        Position("a", math.nan, None, []),
        Position("a", math.log(0.6), None, [Token("b", math.log(0.6))]),
    ],
)
def test_probabilities_that_are_none(bad):
    with pytest.raises(ValueError, match=r"none|more than one"):
        mass([bad], "ham", "spam")


@pytest.mark.parametrize("written", [{"eggs": "E"}, {"ham": "spam"}, {"ham": " SPAM"}, {"ham": " "}])
def test_answers_that_tell_no_classes_apart(written):
    with pytest.raises(ConfigError, match="answers"):
        answers(("ham", "spam"), written, case_sensitive=False)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["s", "sp", "pam", "ham", "h", " ", "x", "safe"]), st.floats(0.01, 1.0)),
                min_size=1, max_size=8, unique_by=lambda pair: pair[0]), st.integers(1, 3))  # fmt: skip
def test_mass_is_a_part_of_one(pairs, length):
    total = math.fsum(q for _, q in pairs)
    one = position(pairs[0][0], **{t.replace(" ", "_"): q / total for t, q in pairs})
    found = mass([one] * length, "ham", "safe", "spam")
    assert all(q >= 0 for q in found.values()) and math.fsum(found.values()) <= 1 + 1e-9
