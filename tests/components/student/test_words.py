import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import ConfigError
from components.student.text import TextNgrams
from components.student.words import WordSequence

FEATURES = WordSequence(buckets=4096, length=20)


def ids(text, features=FEATURES):
    return [i for i in features.encode([text])["ids"][0].tolist() if i]


@given(st.lists(st.text(max_size=80), max_size=5))
def test_a_text_has_the_same_ids_alone_and_in_a_batch_and_padding_is_zero(texts):
    found = FEATURES.encode(texts)["ids"]
    assert found.dtype == np.int64 and found.shape[1] <= 20
    for text, row in zip(texts, found.tolist(), strict=True):
        mine = ids(text)
        assert row == mine + [0] * (len(row) - len(mine)) and all(0 < i < 4096 for i in mine)


def test_ids_are_the_same_for_good():
    assert ids("My parcel, late!") == [1155, 2016, 1849, 1135, 504, 679, 1842]


def test_words_come_in_order_without_case_and_long_ones_with_their_pieces():
    assert ids("dog bites man") != ids("man bites dog")
    assert ids("DOG") == ids("dog") and len(ids("dog")) == 1
    assert len(ids("parcel")) == 3 and len(ids("parcels")) == 3 and set(ids("parcel")) & set(ids("parcels"))
    assert len(ids("parcel", WordSequence(buckets=4096, piece=0))) == 1


def test_only_the_head_and_the_first_ids_are_read():
    assert ids("word " * 100) == ids("word") * 20
    short = WordSequence(buckets=4096, head=9)
    assert ids("some word and others", short) == ids("some word", short)


def test_no_text_is_an_empty_batch_and_an_empty_text_is_padding():
    assert FEATURES.encode([])["ids"].shape == (0, 1)
    assert FEATURES.encode([""])["ids"].tolist() == [[0]]


def test_describes_a_text_as_other_text_features_do():
    assert FEATURES.describe("WIN $1 now!") == TextNgrams().describe("WIN $1 now!")


@pytest.mark.parametrize("options", [{"buckets": 10}, {"length": 0}, {"head": 0}, {"piece": 1}, {"piece": -1}])
def test_refuses_options_out_of_range(options):
    with pytest.raises(ConfigError, match=f"features.options.{next(iter(options))}"):
        WordSequence(**options)
