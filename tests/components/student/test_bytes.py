import gc
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import ConfigError
from components.student.bytes import ByteNgrams

FEATURES = ByteNgrams(head=64, buckets=2048)


def pairs(features, payload):
    ids, weights = features.encode([payload])
    return {int(i): float(w) for i, w in zip(ids[0], weights[0], strict=True) if w > 0}


@given(st.binary(min_size=1, max_size=200))
def test_weights_sum_to_one_over_distinct_buckets(payload):
    ids, weights = FEATURES.encode([payload])
    assert ids.dtype == np.int64 and weights.dtype == np.float32 and ids.shape == weights.shape
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert ids.min() >= 0 and ids.max() < FEATURES.buckets
    assert len(set(ids[0].tolist())) == ids.shape[1]


@given(st.lists(st.binary(min_size=1, max_size=90), min_size=1, max_size=6))
def test_an_input_has_the_same_features_alone_and_in_a_batch(payloads):
    ids, weights = FEATURES.encode(payloads)
    for row, weight, payload in zip(ids, weights, payloads, strict=True):
        together = {int(i): float(w) for i, w in zip(row, weight, strict=True) if w > 0}
        assert together == pairs(FEATURES, payload)


@given(st.binary(min_size=64, max_size=64), st.binary(max_size=40))
def test_only_the_head_is_read(head, tail):
    assert pairs(FEATURES, head) == pairs(FEATURES, head + tail)


def test_features_are_the_same_for_good():
    ids, weights = ByteNgrams().encode([b"\x89PNG\r\n"])
    assert ids[0].tolist() == [
        2845, 3319, 3658, 5554, 7199, 7338, 8984, 9270, 10199, 10303, 11755, 16351, 17899, 19706, 19870, 20995, 21222,
        21724, 23896, 28834, 30169,
    ]  # fmt: skip
    assert weights[0] == pytest.approx([1 / 21] * 21)


def test_the_place_of_the_first_bytes_matters():
    assert pairs(FEATURES, b"PKaaaaaaaaaaaa") != pairs(FEATURES, b"aPKaaaaaaaaaaa")


def test_more_of_an_ngram_weighs_more_but_less_than_in_proportion():
    few, many = pairs(FEATURES, b"ab" + b"z" * 4), pairs(FEATURES, b"ab" + b"z" * 40)
    assert max(few.values()) < max(many.values()) < 10 * max(few.values())


def test_describes_text_and_noise():
    text = FEATURES.describe(b"int main() { return 0; }\n")
    noise = FEATURES.describe(bytes(range(192, 256)))
    assert text["text_share"] == 1.0 and text["bracket_share"] == 4 / 25 and text["digit_share"] == 1 / 25
    assert noise["high_share"] == 1.0 and noise["text_share"] == 0.0 and noise["byte_entropy"] == 6.0
    assert FEATURES.describe(b"aaaa")["byte_entropy"] == 0.0
    assert text["log_bytes"] == pytest.approx(np.log(26))


def test_no_payload_is_an_empty_batch():
    ids, weights = FEATURES.encode([])
    assert ids.shape == weights.shape == (0, 1)


@pytest.mark.parametrize("options", [{"head": 0}, {"buckets": 10}])
def test_refuses_options_out_of_range(options):
    with pytest.raises(ConfigError, match="head >= 1"):
        ByteNgrams(**options)


def test_is_fast():
    """No Python runs for each byte."""
    features, data = ByteNgrams(), bytes(np.random.default_rng(0).integers(256, size=512, dtype=np.uint8))

    def lines(payload):
        ran = [0]

        def count(_frame, event, _arg):
            ran[0] += event == "line"
            return count

        before = sys.gettrace()
        gc.disable()  # what is called at a collection runs lines too
        sys.settrace(count)
        try:
            features.encode([payload])
        finally:
            sys.settrace(before)
            gc.enable()
        return ran[0]

    lines(data)
    assert 0 < lines(data) == lines(data[:64]) < 500
