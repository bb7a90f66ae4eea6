import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer

from components.contracts.errors import ConfigError
from components.student.text import TextNgrams

FEATURES = TextNgrams(buckets=4096, head=100)


def pairs(text):
    ids, weights = FEATURES.encode([text])
    return {int(i): float(w) for i, w in zip(ids[0], weights[0], strict=True) if w > 0}


@settings(max_examples=50)
@given(st.text(min_size=1, max_size=120))
def test_weights_sum_to_one_or_the_text_says_nothing(text):
    ids, weights = FEATURES.encode([text])
    assert weights.sum() == pytest.approx(1.0, abs=1e-5) or not weights.any()
    assert ids.min() >= 0 and ids.max() < FEATURES.buckets


@pytest.mark.parametrize(("chars", "words"), [((3, 4), (1, 2)), ((1, 6), (2, 3)), ((2, 2), (1, 1))])
def test_they_are_those_of_scikit_learn(chars, words):
    common = {"n_features": 1024, "alternate_sign": False, "norm": None, "dtype": np.float32}
    theirs = (
        HashingVectorizer(analyzer="word", ngram_range=words, **common),
        HashingVectorizer(analyzer="char_wb", ngram_range=chars, **common),
    )
    features = TextNgrams(buckets=2048, chars=chars, words=words)

    @given(st.text(max_size=60) | st.text("ab \u00a0\t\n\x1c\u0130\u00df_-1", max_size=40))
    def same(text):
        of_words, of_chars = (one.transform([text]) for one in theirs)
        weights = np.sqrt(np.concatenate([of_words.data, of_chars.data]))
        ids, ours = features.encode([text])
        assert ids[0].tolist() == ([*of_words.indices, *(of_chars.indices + 1024)] or [0])
        assert ours[0].tolist() == ((weights / max(weights.sum(), 1.0)).astype(np.float32).tolist() or [0.0])

    same()


def test_a_text_has_the_same_features_alone_and_in_a_batch():
    texts = ["win money now", "", "the meeting is at noon, see you there"]
    ids, weights = FEATURES.encode(texts)
    for row, weight, text in zip(ids, weights, texts, strict=True):
        assert {int(i): float(w) for i, w in zip(row, weight, strict=True) if w > 0} == pairs(text)


def test_words_and_characters_have_halves_of_their_own():
    found = pairs("money")
    assert any(i < 2048 for i in found) and any(i >= 2048 for i in found)


def test_the_order_of_words_matters_through_pairs():
    assert pairs("dog bites man") != pairs("man bites dog")


def test_only_the_head_is_read():
    assert pairs("word " * 20) == pairs("word " * 20 + "other")


def test_describes_a_text():
    found = FEATURES.describe("WIN $100 now! http://x.y HTTPS://z é")
    assert found["links"] == 2.0 and found["exclamations"] == 1.0
    assert found["digit_share"] == pytest.approx(3 / 36) and found["non_ascii_share"] == pytest.approx(1 / 36)
    assert found["upper_share"] == pytest.approx(8 / 36)
    assert found["log_chars"] == pytest.approx(np.log(37))
    assert set(FEATURES.describe("").values()) == {0.0}


def test_no_text_is_an_empty_batch():
    assert FEATURES.encode([])[0].shape == (0, 1)


@pytest.mark.parametrize("options", [{"buckets": 10}, {"head": 0}, {"chars": [4, 3]}, {"words": [1]}])
def test_refuses_options_out_of_range(options):
    with pytest.raises(ConfigError):
        TextNgrams(**options)
