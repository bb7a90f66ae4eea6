from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import ConfigError
from components.contracts.spec import Factory
from components.student.features import longest, placer
from components.student.tagging import TOKEN, TaggedWords, _shape


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada Lovelace's mail: a@b.c!", ["Ada", "Lovelace", "'", "s", "mail", ":", "a", "@", "b", ".", "c", "!"]),
        ("PX-4471\n\tnew", ["PX", "-", "4471", "new"]),
        ("東京tower", ["東", "京", "tower"]),
        ("Élodie 🙂 x", ["Élodie", "🙂", "x"]),
        ("  ", []),
    ],
)
def test_a_text_is_split_into_words_and_signs(text, words):
    assert [text[start:end] for start, end in TaggedWords().tokens(text)] == words


@given(st.text(max_size=60))
def test_words_cover_all_that_is_no_space_in_order(text):
    places = TaggedWords().tokens(text)
    assert "".join(text[s:e] for s, e in places) == "".join(c for c in text if not c.isspace() or TOKEN.match(c))
    assert all(a[1] <= b[0] for a, b in pairwise(places))


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_there_is_a_row_of_ids_for_each_word_and_padding_behind(texts):
    made = TaggedWords(buckets=512)
    ids = made.encode(texts)["ids"]
    assert ids.shape == (len(texts), max([1, *(len(made.tokens(t)) for t in texts)]), 10)
    for row, text in zip(ids, texts, strict=True):
        real = row.any(axis=1)
        assert real.sum() == len(made.tokens(text)) and not real[real.sum() :].any()
    assert ids.min() >= 0 and ids.max() < 512 and longest({"ids": ids}, made.signature) == ids.shape[1]
    alone = made.encode(texts[:1])["ids"]
    assert np.array_equal(alone[0], ids[0, : alone.shape[1]])


def test_words_behind_the_length_are_left_out_of_both():
    made = TaggedWords(length=3)
    assert made.tokens("a b c d e") == [(0, 1), (2, 3), (4, 5)]
    assert made.encode(["a b c d e"])["ids"].shape[1] == 3


def test_a_word_shares_its_ids_with_words_that_are_like_it():
    made = TaggedWords()
    kettle, kettles, capital = (set(made.encode([w])["ids"][0, 0]) - {0} for w in ("kettle", "kettles", "Kettle"))
    assert kettle & kettles and len(kettle & capital) > len(kettle & kettles)
    assert kettle != capital  # by their shape alone
    assert [_shape(w) for w in ("Ada", "PX", "AAAAAA", "4471", "x-1")] == ["Xxx", "XX", "XXX", "ddd", "x-d"]


def test_descriptors_are_those_of_a_text_and_its_words():
    found = TaggedWords().describe("Ada met 2 men!")
    assert found["log_words"] == pytest.approx(np.log1p(5)) and found["exclamations"] == 1.0


@pytest.mark.parametrize(("field", "value"), [("buckets", 10), ("length", 0), ("pieces", 2)])
def test_options_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"features.options.{field}"):
        TaggedWords(**{field: value})


def test_a_featuriser_that_tells_no_places_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"tokens\(payload\).*TaggedWords"):
        placer(Factory(factory="components.student.words:WordSequence"))
    found = placer(Factory(factory="components.student.tagging:TaggedWords"))
    assert found("a b") == [(0, 1), (2, 3)]
