import errno
import os
import random

import msgspec
import numpy as np
import pytest

from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.spec import Factory, Variant
from components.contracts.spec.objective import Hidden
from components.contracts.spec.student import Export, Pruning, Stage
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.distill import columns
from components.distill.columns import Texts, View, spooled
from components.distill.data import arrays, update_rows
from components.distill.train import distill
from components.distill.unlabelled import Unlabelled
from tests.components.distill.teachers import DIGEST

TEACHER = f"t@{DIGEST}"


@pytest.fixture
def files(monkeypatch):
    """Every column in a file, and few rows together."""
    monkeypatch.setattr(columns, "IN_MEMORY", 0)
    for name in ("ROWS", "APART", "ENCODED"):
        monkeypatch.setattr(columns, name, 7)
    monkeypatch.setattr(columns.spans, "__defaults__", (7,))
    monkeypatch.setattr(columns.filled, "__defaults__", (7,))


def padded(items):
    """Rows as wide as the longest of them, in two arrays, padded by what is none of their items."""
    wide, tall = max(map(len, items)), max([1, *(i.count(b"x") for i in items)])
    rows, counts = np.full((len(items), wide), 7), np.full((len(items), tall), -1.0)
    for i, item in enumerate(items):
        rows[i, : len(item)], counts[i, : item.count(b"x")] = list(item), 1.0
    return {"rows": rows, "counts": counts}


@pytest.mark.parametrize("seed", range(6))
def test_what_is_encoded_in_parts_is_as_wide_as_what_is_encoded_at_once(seed, files):
    chance = random.Random(seed)
    items = [bytes(chance.choices(b"abx", k=chance.randrange(1, 20))) for _ in range(60)]
    items.append(b"x" * 18)  # the most of one letter, though not the longest
    chance.shuffle(items)
    whole, parts = padded(items), columns.encoded(items, padded, len)
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) and whole[name].dtype == parts[name].dtype for name in whole)


def test_columns_in_files_are_what_they_are_in_memory(files):
    values = np.arange(300, dtype=np.float32).reshape(100, 3)
    rows = np.random.default_rng(0).permutation(100)[:60]
    found = columns.taken(values, rows)
    assert columns.in_files() and np.array_equal(found, values[rows]) and found.dtype == values.dtype
    columns.release()
    assert np.array_equal(found, values[rows]), "what was given back is read again"
    assert np.array_equal(columns.changed(found, lambda part: part * 2), values[rows] * 2)
    late = columns.filled(20, lambda span: {"a": np.ones(span.stop - span.start)} if span.start else {"b": np.ones(7)})
    assert late["a"].tolist() == [0] * 7 + [1] * 13 and late["b"].tolist() == [1] * 7 + [0] * 13
    assert columns.taken(values, rows[:0]).shape == (0, 3)


def test_a_disk_without_room_is_told_of(files, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ConfigError, match=r"TMPDIR.*no room for 11 MiB"):
        columns.column((3_000_000,), np.float32)


def test_texts_and_views_of_them_are_sequences(monkeypatch):
    monkeypatch.setattr(columns, "IN_MEMORY", 20)
    texts, items = Texts(), [f"text {i} {'#' * i}".encode() for i in range(50)]
    for item in items:
        texts.add(item)
    assert len(texts) == 50 and list(texts) == items and texts[3:6] == items[3:6]
    view = View.of(texts, np.array([4, 2, 2, 9]), bytes.decode)
    expected = [items[i].decode() for i in (4, 2, 2, 9)]
    assert view == expected and view[-1] == expected[-1] and view[1:3] == expected[1:3] and expected[0] in view
    assert view != expected[:3] and view != expected[::-1] and view != 5
    some, both = view.take(np.array([3, 0]), {}), view.join(View.of([b"own"], np.array([0]), bytes.decode), {})
    assert some == [expected[3], expected[0]] and both == [*expected, "own"]
    assert both.take(np.array([4, 1]), {}) == ["own", expected[1]]
    assert spooled(range(100), lambda n: str(n).encode(), int) == list(range(100))


def test_what_is_saved_is_read_by_others(tmp_path):
    uri, made = f"file://{tmp_path}/rows", {
        "ids": np.arange(12).reshape(6, 2), "mask": np.array([True, False] * 3), "none": np.zeros((0, 4), np.float32),
    }  # fmt: skip
    columns.saved(uri, made)
    found = columns.read(uri)
    assert found.keys() == made.keys()
    for name, values in made.items():
        assert np.array_equal(found[name], values) and found[name].dtype == values.dtype
    found["ids"][0] = 9  # a reader's copy is its own
    assert np.array_equal(columns.read(uri)["ids"], made["ids"])
    with pytest.raises(ArtifactError, match="does not exist"):
        columns.read(f"file://{tmp_path}/none")


@pytest.fixture(scope="module")
def spec(letter_spec):
    stage = Stage(name="general", objective=(Hidden(student="hidden", teacher="shares", distance="cosine"),), epochs=1)
    student = msgspec.structs.replace(
        letter_spec.student, epochs=2, stages=(stage,), replay_rows=40,
        export=Export(also=("pruned",), pruning=Pruning(share=0.5, epochs=1)),
    )  # fmt: skip
    teacher = Factory(factory="tests.components.distill.teachers:Letters")
    return msgspec.structs.replace(letter_spec, teacher=teacher, student=student)


def test_an_update_learns_the_same_wherever_its_rows_lie(spec, letters, freeze_rows, tmp_path, request):
    """With new classes, replay, unlabelled traffic, a teacher's states, a pruned export and another shape."""
    artifacts = f"file://{tmp_path}"
    windows = [
        freeze_rows(spec, letters(c, 130, seed=i), artifacts, i, teacher=TEACHER) for i, c in enumerate(("ab", "bc"))
    ]
    traffic = Unlabelled(payloads=[p for p, _, _ in letters("abc", 20, seed=5)], digest="f" * 64)

    def run(folder):
        made = []
        for until, dim in ((1, 8), (2, 8), (2, 12)):
            last = made[-1] if made else None
            parent = None if last is None else ModelRef(
                version="1", uri=last.uri, digest=last.digest, snapshot=last.card.snapshots[0], teacher=TEACHER
            )  # fmt: skip
            variant = Variant(name="tiny", dim=dim, hidden=16)
            own = msgspec.structs.replace(spec, student=msgspec.structs.replace(spec.student, variants=(variant,)))
            made.append(
                distill(
                    own, windows[:until], variant=variant, parent=parent, artifacts=f"{artifacts}/{folder}", seed=0,
                    inputs=lambda: traffic,
                )
            )  # fmt: skip
        return made

    memory = run("memory")
    assert not columns.in_files()
    request.getfixturevalue("files")
    disk = run("disk")
    assert [d.digest for d in disk] == [d.digest for d in memory]
    assert [d.metrics for d in disk] == [d.metrics for d in memory]
    assert [d.history for d in disk] == [d.history for d in memory]
    for one, other in zip(memory, disk, strict=True):
        assert get_bytes(one.weights_uri) == get_bytes(other.weights_uri)
        pruned = [get_bytes(f"{d.uri.rsplit('/', 1)[0]}/pruned.onnx") for d in (one, other)]
        assert pruned[0] == pruned[1]
    assert memory[1].metrics["replay_rows"] == 40 and memory[2].metrics["taught_rows"] > 200


def test_the_rows_of_an_update_lie_in_files_where_they_are_many(spec, letters, freeze_rows, tmp_path, files):
    window = freeze_rows(spec, letters("ab", 30), f"file://{tmp_path}", 1, teacher=TEACHER)
    rows = update_rows(spec, [window], 0).new
    made = arrays(spec, rows, ("a", "b"))
    bases = [made.features["ids"], made.features["weights"], made.soft, made.truth]
    before = len(columns._mapped)
    assert columns.in_files() and before >= len(bases)
    del made, bases
    assert not columns.in_files(), "what nobody looks at is gone"
