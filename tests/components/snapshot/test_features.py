import contextlib
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from components.contracts.errors import ConfigError
from components.snapshot import features
from components.snapshot.features import OTHER_STORES, FeatureRepo
from components.snapshot.table import (
    FEAST_KEEPS,
    INPUT_KEYS,
    column_names,
    input_table,
    label_table,
    snapshot_table,
    truth_table,
)
from components.snapshot.truth import with_truth

BASE = 1_700_000_000.0
DAY = 86_400.0


@pytest.fixture
def repo(artifacts):
    return FeatureRepo(f"{artifacts}/files/feast", "files", entity="sender")


def add(repo, number, labels, truths=(), describe=lambda label: {"size": float(len(label.input.payload)), "kind": "x"}):
    inputs = input_table(labels, [describe(label) for label in labels])
    tables = (inputs, label_table(labels), truth_table([(t, i) for i, t in enumerate(truths)]))
    for source, table in zip(("inputs", "labels", "truth"), tables, strict=True):
        repo.add(source, number, table)
    repo.apply(*(t.schema for t in tables))
    return inputs


def test_truth_known_after_the_cut_is_not_visible(repo, make_label, make_truth):
    add(repo, 1, [make_label(i) for i in range(3)], [make_truth(0, BASE + 100), make_truth(1, BASE + 200, "b")])
    asked = ["i0000", "i0001", "i0002"]
    assert repo.truth(asked, BASE + 99.999) == {}
    at_100 = repo.truth(asked, BASE + 100)
    assert at_100 == {"i0000": {"truth_label": "a", "truth_value": None, "truth_known_at": BASE + 100}}
    assert sorted(repo.truth(asked, BASE + 200)) == ["i0000", "i0001"]


def test_a_correction_counts_from_when_it_was_known(repo, make_label, make_truth):
    add(repo, 1, [make_label(0)], [make_truth(0, BASE + 100, "a"), make_truth(0, BASE + 300, "b")])
    assert repo.truth(["i0000"], BASE + 299)["i0000"]["truth_label"] == "a"
    assert repo.truth(["i0000"], BASE + 300)["i0000"]["truth_label"] == "b"


def test_truth_of_a_later_window_is_found_for_an_earlier_input(repo, make_label, make_truth):
    add(repo, 1, [make_label(0)])
    assert repo.truth(["i0000"], BASE + 900) == {}
    add(repo, 2, [make_label(1)], [make_truth(0, BASE + 500)])
    assert list(repo.truth(["i0000", "i0001"], BASE + 900)) == ["i0000"]


def test_features_are_joined_as_of_the_time_asked(repo, make_label, make_truth):
    add(repo, 1, [make_label(0), make_label(5)], [make_truth(0, BASE + 3)])
    asked = ["inputs:size", "inputs:kind", "labels:label", "labels:confidence", "truth:truth_label"]
    found = repo.history(["i0000", "i0005", "nobody"], BASE + 4, asked)
    assert found["i0000"] == {"size": 9.0, "kind": "x", "label": "a", "confidence": 0.75, "truth_label": "a"}
    nothing = dict.fromkeys(found["i0000"])
    assert found["i0005"] == nothing
    assert found["nobody"] == nothing
    assert repo.history([], BASE, asked) == {}


def test_the_join_in_memory_is_the_join_of_feast(repo, make_label, make_truth):
    labels = [make_label(i) for i in range(6)]
    truths = [make_truth(i, BASE + 10 * i + j, f"{i}{j}") for i in range(5) for j in (0, 7)]
    add(repo, 1, labels, truths)
    table = truth_table([(t, i) for i, t in enumerate(truths)])
    for cut in (BASE + 5, BASE + 17, BASE + 25, BASE + 60):
        by_feast = snapshot_table(labels, repo.truth([x.input.id for x in labels], cut), 0.25)
        assert with_truth(snapshot_table(labels, {}, 0.25), table, cut) == by_feast


def test_what_is_older_than_the_declared_ttl_is_not_seen(artifacts, make_label, make_truth):
    repo = FeatureRepo(f"{artifacts}/files/feast", "files", ttl=timedelta(days=1))
    inputs = add(repo, 1, [make_label(0)], [make_truth(0, BASE + 10)])
    assert "i0000" in repo.truth(["i0000"], BASE + 10 + DAY)
    assert repo.truth(["i0000"], BASE + 11 + DAY) == {}
    repo.push(inputs)
    assert "k" in repo.latest(["k"], BASE + DAY)
    assert repo.latest(["k"], BASE + DAY + 1) == {}


def test_a_late_row_never_replaces_a_newer_one_online(repo, make_label):
    newer = add(repo, 1, [make_label(50, entity="ada", payload=b"newer"), make_label(60, entity="bob")])
    late = add(repo, 2, [make_label(40, entity="ada", payload=b"later but older"), make_label(70, entity="eve")])
    assert repo.push(newer) == 2
    assert repo.push(late) == 1
    assert repo.latest(["ada", "eve", "nobody"], BASE) == {
        "ada": {"seen_at": BASE + 50, "size": 5.0, "kind": "x"},
        "eve": {"seen_at": BASE + 70, "size": 10.0, "kind": "x"},
    }
    assert repo.push(newer) == 0


def test_feast_itself_would_let_a_late_row_through(repo, make_label):
    newer = add(repo, 1, [make_label(50, entity="ada", payload=b"newer")])
    late = add(repo, 2, [make_label(40, entity="ada", payload=b"older")])
    repo.push(newer)
    repo._store.push("latest_push", late.to_pandas())
    assert repo.latest(["ada"], BASE)["ada"]["seen_at"] == BASE + 40


def test_a_read_online_imports_the_clients_of_no_other_store(repo, make_label, monkeypatch):
    """Feast would, all that are installed, to compare their types with the store's."""
    repo.push(add(repo, 1, [make_label(0)]))
    for name in OTHER_STORES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    repo._opened = None  # the store keeps what it found
    assert repo.latest(["k0"], BASE) is not None
    assert [name for name in OTHER_STORES if name in sys.modules] == []


def test_of_one_batch_the_newest_row_of_an_entity_is_kept(repo, make_label):
    labels = [make_label(i, entity="ada", payload=b"x" * (i + 1)) for i in (3, 9, 1)]
    assert repo.push(add(repo, 1, labels)) == 1
    assert repo.latest(["ada"], BASE)["ada"]["size"] == 10.0


def test_times_within_one_second_are_told_apart(repo, make_label):
    def at(time):
        return input_table([make_label(1, entity="ada", time=time)], [{"size": time - BASE, "kind": "x"}])

    add(repo, 1, [make_label(1)])
    assert repo.push(at(BASE + 0.75)) == 1
    assert repo.push(at(BASE + 0.5)) == 0
    assert repo.latest(["ada"], BASE)["ada"]["size"] == 0.75


def test_applying_again_changes_nothing_and_other_descriptors_replace_the_old(repo, make_label):
    add(repo, 1, [make_label(0)])
    add(repo, 1, [make_label(0)])
    assert repo.history(["i0000"], BASE + 9, ["inputs:size"]) == {"i0000": {"size": 9.0}}
    add(repo, 2, [make_label(1)], describe=lambda _: {"words": 2.0})
    assert repo.history(["i0001"], BASE + 9, ["inputs:words"]) == {"i0001": {"words": 2.0}}


def test_a_second_process_finds_the_same_registry_and_online_store(artifacts, make_label):
    first = FeatureRepo(f"{artifacts}/files/feast", "files")
    first.push(add(first, 1, [make_label(0)]))
    second = FeatureRepo(f"{artifacts}/files/feast", "files")
    assert second.latest(["k"], BASE)["k"]["size"] == 9.0
    assert second.history(["i0000"], BASE + 9, ["labels:label"]) == {"i0000": {"label": "a"}}


def test_workloads_do_not_see_each_other(artifacts, make_label, make_truth):
    one, two = (FeatureRepo(f"{artifacts}/{w}/feast", w) for w in ("files", "my-mail"))
    one.push(add(one, 1, [make_label(0)], [make_truth(0, BASE)]))
    add(two, 1, [make_label(1)])
    assert two.truth(["i0000"], BASE + 9) == {}
    assert two.latest(["k"], BASE) == {}


def test_names_that_would_clash_are_refused(repo, artifacts, make_label):
    with pytest.raises(ConfigError, match="must not be 'input'"):
        FeatureRepo(artifacts, "files", entity="input")


ODD = (
    "created", "event_timestamp", "rn", "entity_row_id", "__dummy_id", "event_time", "Event_Time", "seen_at", "key",
    "Key", "input_id", "", " ", "a:b", "a b", "Ä", "Age", "age", "__log_date",
)  # fmt: skip


@pytest.mark.parametrize("value", [3.0, "three"])
def test_descriptors_may_have_the_names_that_feast_keeps_for_itself(repo, make_label, value):
    def describe(label):
        return dict.fromkeys(ODD, value) if label.input.id != "i0001" else {}

    assert repo.push(add(repo, 1, [make_label(i, entity=f"k{i}") for i in range(3)], describe=describe)) == 3
    columns = column_names(ODD)
    asked = [columns[n] if n in INPUT_KEYS else n for n in ODD]
    found = repo.history(["i0000", "i0001"], BASE + 9, [f"inputs:{name}" for name in asked])
    assert found == {"i0000": dict.fromkeys(asked, value), "i0001": dict.fromkeys(asked)}
    assert repo.truth(["i0000"], BASE + 9) == {}
    assert repo.latest(["k0"], BASE + 9)["k0"] == {"seen_at": BASE, **dict.fromkeys(asked, value)}


def test_other_descriptors_keep_their_names():
    assert column_names(["age", "log_chars", "Size", "a b"]) == {n: n for n in ("age", "log_chars", "Size", "a b")}
    names = column_names(ODD)
    assert len({n.lower() for n in names.values()}) == len(ODD)
    assert not {n.lower() for n in names.values()} & FEAST_KEEPS


def test_feast_is_imported_by_one_thread_at_a_time(monkeypatch):
    """Each puts back what it found, which must not be what another has changed."""
    held = []

    @contextlib.contextmanager
    def looked_at(*_):
        held.append(features._importing.locked())
        yield

    monkeypatch.setattr(features, "without", looked_at)
    features.import_feast()
    assert held == [True]


def test_feast_changes_nothing_of_the_process_that_imports_it():
    code = (
        "import os, sys, typeguard; before = dict(os.environ), typeguard.typechecked\n"
        "from components.snapshot.features import import_feast; assert 'feast' not in sys.modules; import_feast()\n"
        "assert (dict(os.environ), typeguard.typechecked) == before\n"
        "import prometheus_client.values as v; assert v.ValueClass.__name__ == 'MutexValue'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
