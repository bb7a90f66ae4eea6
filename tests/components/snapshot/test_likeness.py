import random

import numpy as np
import pytest

from components.snapshot.likeness import PLACES, Index, Sketches, likeness, sketch

TEXT = "The quarterly figures are late again, and nobody in accounting answers the telephone before noon. " * 3
OTHER = "Please find attached the minutes of the meeting that was held on Thursday in the large room upstairs. " * 3


def spoilt(data, n, seed=0):
    chance = random.Random(seed)
    out = list(data)
    for i in chance.sample(range(len(out)), n):
        out[i] = "#" if isinstance(data, str) else 35
    return "".join(out) if isinstance(data, str) else bytes(out)


@pytest.mark.parametrize("kind", [str, str.encode])
def test_what_is_alike_has_sketches_alike(kind):
    base, other = kind(TEXT), kind(OTHER)
    assert likeness(sketch(base), sketch(base)) == 1.0
    assert likeness(sketch(base), sketch(spoilt(base, 3))) > 0.6
    assert likeness(sketch(base), sketch(other)) < 0.2
    assert sketch(base).shape == (PLACES,) and sketch(base).dtype == "uint32"


def test_text_is_taken_without_case_and_punctuation():
    assert (sketch("Hello, World! Again?") == sketch("hello world again")).all()
    assert not (sketch(b"Hello, World! Again?") == sketch(b"hello world again")).all()


def test_rows_of_a_table_are_alike_only_where_their_numbers_are_equal():
    row = {"age": 34, "country": "DE", "income": 1234.5678, "tags": [1.0, 2.0]}
    assert likeness(sketch(row), sketch({**row, "income": 1234.56780001})) == 1.0
    assert likeness(sketch(row), sketch({**row, "age": 35})) < 0.1
    assert likeness(sketch([1.0, 2.0]), sketch([1.0, 2.5])) < 0.1


def test_sketches_are_the_same_for_good():
    assert sketch("a stable sketch")[:3].tolist() == sketch("a stable sketch")[:3].tolist()
    assert sketch(b"")[0] == sketch(b"")[0] != sketch(b"a")[0]


def test_long_payloads_are_sketched_by_a_part_of_their_pieces():
    chance = random.Random(0)
    long = bytes(chance.randrange(256) for _ in range(60_000))
    assert likeness(sketch(long), sketch(spoilt(long, 300))) > 0.8


def test_the_index_finds_the_first_that_is_alike():
    index = Index(0.6)
    assert index.first(sketch(TEXT)) is None and len(index) == 0
    for i, payload in enumerate([OTHER, TEXT, spoilt(TEXT, 2)]):
        assert index.add(sketch(payload)) == i
    assert index.first(sketch(spoilt(TEXT, 2, seed=9))) == 1
    assert index.first(sketch("nothing of the kind was ever said here by anyone")) is None
    assert Index(1.0).first(sketch(TEXT)) is None


def test_few_near_duplicates_are_missed_and_fewer_strangers_taken():
    chance = random.Random(1)
    words = [f"w{i}" for i in range(3_000)]
    texts = [" ".join(chance.choices(words, k=40)) for _ in range(300)]
    index = Index(0.7)
    for text in texts:
        index.add(sketch(text))
    found = [index.first(sketch(spoilt(t, 3, seed=i))) for i, t in enumerate(texts)]
    assert sum(f == i for i, f in enumerate(found)) >= 285
    strangers = [" ".join(chance.choices(words, k=40)) for _ in range(300)]
    assert all(index.first(sketch(t)) is None for t in strangers)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9, 1.0])
def test_sketches_together_find_what_the_index_finds(threshold):
    chance = np.random.default_rng(0)
    base = chance.integers(0, 2**32, size=(30, PLACES), dtype=np.uint32)
    added = np.concatenate([base, base[:5], np.where(chance.random((30, PLACES)) < 0.1, base[::-1], base)])
    index, together = Index(threshold), Sketches(threshold)
    assert not together.alike(base).any()
    for some in np.array_split(added, 4):
        together.add(some)
    for made in added:
        index.add(made)
    shares = chance.random((400, 1))
    asked = np.where(
        chance.random((400, PLACES)) < shares,
        chance.integers(0, 2**32, (400, PLACES)),
        base[chance.integers(0, 30, 400)],
    )
    asked = np.concatenate([asked.astype(np.uint32), base])
    expected = [index.first(made) is not None for made in asked]
    assert together.alike(asked).tolist() == expected and 30 < sum(expected) < 400
    together.add(asked)
    assert together.alike(asked).all()
