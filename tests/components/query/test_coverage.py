import importlib
import inspect
import io
import math
import pkgutil
import tracemalloc

import numpy as np
import pytest
import soundfile
from PIL import Image as pillow
from tokenizers import Tokenizer, models, pre_tokenizers

import components.student
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


def _image(size):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _sound(hertz, seconds):
    buffer = io.BytesIO()
    samples = 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(16_000 * seconds)) / 16_000)
    soundfile.write(buffer, samples, 16_000, format="WAV")
    return buffer.getvalue()


SHORT, LONG = "send my card", " ".join(f"w{n:03d}" for n in range(90))
ROWS = [{"a": 1.0, "b": "x"}, {"a": -2.0, "b": "y"}]
COLUMN = [{"name": "a", "mean": 0.0, "scale": 1.0}]
BUILT_IN = {
    "text:TextNgrams": ({}, [SHORT, LONG]),
    "words:WordSequence": ({}, [SHORT, LONG]),
    "tagging:TaggedWords": ({}, [SHORT, LONG]),
    "tokens:Tokens": ({"tokenizer": "tokenizer.json"}, [SHORT, LONG]),
    "bytes:ByteNgrams": ({}, [b"%PDF-1.7", bytes(range(256))]),
    "image:Image": ({"height": 8, "width": 8}, [_image(9), _image(30)]),
    "audio:Spectrogram": ({}, [_sound(440, 0.3), _sound(3_000, 1.5)]),
    "table:TableColumns": ({"columns": COLUMN}, [{"a": 1.0}, {"a": -2.0}]),
    "columns:MixedColumns": ({"numbers": COLUMN, "categories": [{"name": "b", "values": ["x", "y"]}]}, ROWS),
}


@pytest.fixture(scope="module")
def spec_file(tmp_path_factory):
    """A spec's path, beside which lies a tokenizer."""
    folder = tmp_path_factory.mktemp("spec")
    words = {"[PAD]": 0, "[UNK]": 1, **{w: n + 2 for n, w in enumerate(f"{SHORT} {LONG}".split())}}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    return str(folder / "spec.yaml")


def test_every_built_in_featuriser_is_tried():
    found = set()
    for module in pkgutil.iter_modules(components.student.__path__):
        for name, kind in inspect.getmembers(importlib.import_module(f"components.student.{module.name}")):
            mine = inspect.isclass(kind) and kind.__module__ == f"components.student.{module.name}"
            if mine and not name.startswith("_") and hasattr(kind, "encode") and hasattr(kind, "describe"):
                found.add(f"{module.name}:{name}")
    assert found - {"features:Featuriser", "features:WithEntity"} == set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_built_in_featuriser_s_padding_is_content(name, spec_file):
    options, (one, other) = BUILT_IN[name]
    made = featuriser(Factory(factory=f"components.student.{name}", options=options), spec_file)
    alone = np.concatenate([sketches(made, [payload], 3) for payload in (one, other)])
    assert sketches(made, [one, other], 3) == pytest.approx(alone, abs=1e-6)
    assert np.linalg.norm(alone, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert alone[0] @ alone[1] < 0.9, "two inputs that have little in common are told apart"


def test_a_longer_sound_is_like_a_shorter_one_of_its_pitch():
    made = featuriser(Factory(factory="components.student.audio:Spectrogram"))
    low, longer, high = sketches(made, [_sound(440, 0.5), _sound(440, 0.6), _sound(3_000, 0.6)], 0)
    assert low @ longer > 0.85 and low @ longer > high @ longer + 0.1


def test_large_inputs_take_no_memory_of_their_own():
    """A matrix that projects these 200,000 numbers would be 200 megabytes."""
    rows = np.random.default_rng(0).standard_normal((2, 200_000)).tolist()
    tracemalloc.start()
    sketches(Points(), rows, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


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
