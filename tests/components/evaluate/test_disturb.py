import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluate.disturb import bit_flips, case, disturbances, disturbed, missing, noise, truncation, typos


def test_each_kind_of_payload_suffers_its_own():
    assert set(disturbances("text")) == {"typos", "case"}
    assert set(disturbances(b"bytes")) == {"bit_flips", "truncation"}
    assert set(disturbances({"x": 1})) == set(disturbances([1.0])) == {"noise", "missing"}


@pytest.mark.parametrize(
    "payload", ["some words to spoil, and more of them", b"\x00\x01 bytes" * 10, {"a": 1.5, "b": [1, "x"]}]
)
def test_equal_seeds_disturb_alike_and_others_otherwise(payload):
    for name, disturb in disturbances(payload).items():
        once, again, other = (disturbed([payload] * 8, disturb, seed, 0.3) for seed in ("1", "1", "2"))
        assert once == again
        assert name == "case" or once != other
        assert type(once[0]) is type(payload)


def test_typos_change_about_the_share_of_letters_that_is_asked_for():
    text = "abcdefghij " * 200
    for strength in (0.02, 0.2):
        changed = typos(text, random.Random(0), strength)
        same = sum(a == b for a, b in zip(text.split(), changed.split(), strict=False))
        assert abs(len(changed) - len(text)) < len(text) * strength and changed != text
        assert (same > 100) == (strength == 0.02)


def test_case_keeps_the_letters():
    assert case("Some Text", random.Random(1), 0.1).lower() == "some text"


def test_bits_flip_one_a_byte():
    data = bytes(1000)
    flipped = bit_flips(data, random.Random(0), 0.05)
    assert sum(b != 0 for b in flipped) == 50 and all(b.bit_count() <= 1 for b in flipped)
    assert bit_flips(b"a", random.Random(0), 0.01) != b"a" and bit_flips(b"", random.Random(0), 0.5) == b""


@given(st.binary(min_size=1, max_size=200), st.floats(0.01, 1.0), st.integers(0, 99))
def test_truncation_leaves_a_beginning(data, strength, seed):
    kept = truncation(data, random.Random(seed), strength)
    assert kept and data.startswith(kept)


def test_numbers_get_noise_and_the_rest_does_not():
    found = noise({"a": 100.0, "n": 1000, "s": "x", "t": True, "l": [1.0]}, random.Random(0), 0.1)
    assert 50 < found["a"] < 150 and found["a"] != 100.0 and isinstance(found["n"], int)
    assert found["s"] == "x" and found["t"] is True and found["l"] != [1.0]


def test_at_least_one_cell_goes_missing():
    assert list(missing({"a": 1, "b": 2}, random.Random(0), 1e-9).values()).count(None) == 1
    assert missing([1.0, 2.0, 3.0], random.Random(0), 1.0) == [None] * 3
    assert missing({}, random.Random(0), 0.5) == {}
