import math

import numpy as np
import pytest

from components.contracts.spec import Factory
from components.query.coverage import FAR, PLACES, Coverage, sketches
from components.student.features import TensorSpec, featuriser


class Points:
    """Payloads are lists of numbers."""

    signature = {"x": TensorSpec(dtype="float32", shape=("batch", "length"))}  # noqa: RUF012

    def encode(self, payloads):
        longest = max(map(len, payloads))
        rows = [[*p, *[0.0] * (longest - len(p))] for p in payloads]
        return {"x": np.array(rows, dtype=np.float32)}


@pytest.fixture
def text():
    return featuriser(Factory(factory="components.student.text:TextNgrams"))


def test_sketches_are_as_near_as_their_inputs_are():
    chance = np.random.default_rng(0)
    rows = chance.standard_normal((40, 200)).astype(np.float32)
    rows[20:] = rows[:20] + 0.3 * rows[20:]
    made = sketches(Points(), [row.tolist() for row in rows], seed=0)
    assert made.shape == (40, PLACES) and np.linalg.norm(made, axis=1) == pytest.approx(1.0, abs=1e-5)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.abs(made @ made.T - unit @ unit.T).mean() < 1.2 / np.sqrt(PLACES)
    assert (np.diag(made[:20] @ made[20:].T) > 0.85).all()


def test_a_sketch_is_the_input_s_own_whatever_else_is_in_the_batch(text):
    short, long = [1.0, -2.0], [3.0] * 9
    alone, beside = sketches(Points(), [short], 3), sketches(Points(), [short, long], 3)
    assert beside[0] == pytest.approx(alone[0], abs=1e-6)
    alone, beside = sketches(text, ["a ticket"], 3), sketches(text, ["a ticket", "one that is a good deal longer"], 3)
    assert beside[0] == pytest.approx(alone[0], abs=1e-6)
    assert sketches(text, [], 0).shape == (0, PLACES)


def test_distance_is_to_the_nearest_that_is_labelled_or_came_before_in_the_batch(text):
    cover = Coverage(text, seed=0)
    first = cover.distances(["reset my password", "reset my password!", "the invoice is wrong"])
    assert first[0] == pytest.approx(FAR) and first[1] < 0.5 < first[2]
    cover.labelled([2])
    again = cover.distances(["the invoice was wrong", "reset my password"])
    assert again[0] < 0.6 < again[1]
    cover.labelled([])
    assert cover.distances(["reset my password"]) == pytest.approx(again[1:], abs=0.05), (
        "what was skipped is not covered"
    )
    assert cover.distances([]) == []


def test_a_distance_weighs_by_how_rare_it_is():
    cover, rows = Coverage(Points(), seed=0), np.eye(3).tolist()
    assert cover.rarities(rows[:1]) == [0.0], "nothing is known of distances yet"
    cover.labelled([0])
    for _ in range(99):
        cover.rarities(rows[:1])
    (far,) = cover.rarities(rows[1:2])
    (near,) = cover.rarities(rows[:1])
    assert far == pytest.approx(math.log(101 / 2)) and near == 0.0  # one of the 100 before was as far: the first of all
    usual = cover.rarities(rows[1:2])
    assert usual == pytest.approx([math.log(103 / 3)], abs=0.5) and usual[0] < far


def test_memory_is_bounded_and_every_labelled_input_is_as_likely_in_it():
    counts = np.zeros(60)
    rows = np.eye(60).tolist()
    for seed in range(300):
        cover = Coverage(Points(), seed=seed, memory=20)
        for start in range(0, 60, 10):
            cover.distances(rows[start : start + 10])
            cover.labelled(range(10))
        # none of the inputs is like another, so that what is remembered is what is near
        near = np.array([cover.distances([row])[0] for row in rows]) < 1e-3
        assert near.sum() == 20
        counts += near
    spread = np.sqrt(300 * (1 / 3) * (2 / 3))
    assert (np.abs(counts - 100) < 4.5 * spread).all()


def test_who_prefers_the_farthest_covers_rare_kinds_with_fewer_labels(text):
    """Nine in ten inputs are of one kind; the tenth are of twenty others."""
    chance = np.random.default_rng(1)
    kinds = [f"{chance.bytes(6).hex()} {chance.bytes(6).hex()}" for _ in range(21)]
    stream = [0 if chance.random() < 0.9 else int(chance.integers(1, 21)) for _ in range(1_200)]
    cover, found, labels = Coverage(text, seed=0), set(), 0
    for start in range(0, len(stream), 20):
        batch = stream[start : start + 20]
        distances = cover.distances([f"{kinds[k]} number {start + i}" for i, k in enumerate(batch)])
        chosen = sorted(np.argsort(distances)[-2:].tolist())
        cover.labelled(chosen)
        found |= {batch[i] for i in chosen}
        labels += len(chosen)
    assert labels == 120 and len(found) == 21
