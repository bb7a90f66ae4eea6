import hashlib
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from components.contracts.errors import ArtifactError, FinderError, ProvenanceError
from components.contracts.masking import TRIES
from components.contracts.records import SoftLabel, encode
from components.contracts.spec import Factory, Features, Masking, Payload
from components.contracts.storage import digest_of, get_bytes, local_path, put_bytes
from components.control.store import ControlStore, StaleRevisionError
from components.snapshot import feature_repo, freeze, known_truths, read, snapshot_schema, with_truth
from components.snapshot.table import parquet_bytes
from components.stream.memory import MemoryBroker
from serving.control.facts import read_facts
from tests.stores import migrated

BASE = 1_700_000_000.0
NOW = BASE + 10_000


@pytest.fixture
def freeze_now(spec, tape, store, artifacts):
    return lambda now=NOW: freeze(spec, tape, store, artifacts, now=now)


def truth_labels(window):
    table = read(window.uri, window.digest)
    return dict(zip(table["input_id"].to_pylist(), table["truth_label"].to_pylist(), strict=True))


def test_no_labels_no_window(freeze_now, put, make_truth, store):
    assert freeze_now() is None
    put(make_truth(1, BASE + 5))
    assert freeze_now() is None
    assert store.windows("files") == []


def test_a_window_holds_what_is_new_since_the_last(freeze_now, put, make_label, store, artifacts):
    put(*(make_label(i) for i in (2, 0, 1)))
    first = freeze_now()
    assert freeze_now() is None
    put(*(make_label(i) for i in (3, 4)))
    second = freeze_now()
    assert [(w.number, w.rows, w.digest) for w in store.windows("files")] == [
        (1, 3, first.digest),
        (2, 2, second.digest),
    ]
    assert read(first.uri, first.digest)["input_id"].to_pylist() == ["i0000", "i0001", "i0002"]
    assert read(second.uri, second.digest)["input_id"].to_pylist() == ["i0003", "i0004"]
    assert first.uri == f"{artifacts}/files/snapshots/{first.digest}.parquet"
    assert first.digest == hashlib.sha256(get_bytes(first.uri)).hexdigest()


def test_the_manifest_says_what_the_window_is(freeze_now, put, make_label, make_truth):
    put(*(make_label(i) for i in range(8)), make_truth(1, BASE + 5), make_truth(99, BASE + 5))
    freeze_now()
    put(*(make_label(i) for i in range(8, 20)), make_truth(9, BASE + 5))
    manifest = freeze_now().manifest
    assert {k: manifest[k] for k in ("teacher", "space", "time_range", "started_at_index", "with_truth", "cut")} == {
        "teacher": "sure@1",
        "space": "s@1",
        "time_range": [BASE + 8, BASE + 19],
        "started_at_index": 8,
        "with_truth": 1,
        "cut": NOW,
    }
    assert manifest["positions"] == {"files.labels:0": 20, "files.truth:0": 3}
    assert (manifest["rejected"], manifest["duplicates"], manifest["truth_rejected"]) == (0, 0, 0)
    assert 0 < manifest["holdout_rows"] < 12
    assert manifest["replaced_partitions"] == []


def of_texts(spec, masking, **changes):
    features = Features(factory="components.student.text:TextNgrams", options={"buckets": 1024})
    values = {"payload": Payload(decoder="text"), "features": features, "masking": masking, **changes}
    return msgspec.structs.replace(spec, **values)


def test_where_the_spec_masks_the_manifest_counts_the_placeholders(spec, tape, store, artifacts, put, make_label):
    masking = of_texts(spec, Masking(entities=("EMAIL", "PHONE")))
    put(*(make_label(i, payload=p) for i, p in enumerate([b"[EMAIL] or [EMAIL]", b"[PHONE]", b"[SSN]"])))
    assert freeze(masking, tape, store, artifacts, now=NOW).manifest["masked"] == {"EMAIL": 2, "PHONE": 1}
    put(make_label(9))
    assert "masked" not in freeze(spec, tape, store, artifacts, now=NOW).manifest


def test_what_was_labelled_before_masking_was_turned_on_is_masked_as_it_is_frozen(
    spec, tape, store, artifacts, put, make_label
):
    masking = of_texts(spec, Masking(entities=("EMAIL",)))
    old, new, broken = b"write to ada@example.com", b"write to [EMAIL]", b"\xff ada@example.com"
    put(*(make_label(i, payload=p) for i, p in enumerate([old, new, broken])))
    window = freeze(masking, tape, store, artifacts, now=NOW)
    assert (window.manifest["masked"], window.manifest["masked_at_freeze"]) == ({"EMAIL": 2}, {"EMAIL": 1})
    assert window.manifest["rejected_reasons"] == {"undecodable": 1}
    assert read(window.uri, window.digest)["payload"].to_pylist() == [new, new]
    refused = [r.value for p, log in tape.logs.items() if p.topic == "files.labels.refused" for r in log]
    assert len(refused) == 1 and b"example.com" not in refused[0]
    kept = [p for p in Path(artifacts.removeprefix("file://")).rglob("*") if p.is_file()]
    assert kept and not [p for p in kept if b"example.com" in p.read_bytes()]


FINDER = """
import pathlib


def find(text):
    with pathlib.Path(__file__).with_name("asked").open("a") as asked:
        asked.write(text + "\\n")
    if pathlib.Path(__file__).with_name("state").read_text() == "away" or "poison" in text:
        raise OSError(text)
    return []


def made():
    return find
"""


def test_a_freeze_waits_for_a_finder_that_fails_and_refuses_a_label_that_it_alone_fails_on(
    spec, tape, store, artifacts, put, make_label, tmp_path
):
    (tmp_path / "finder.py").write_text(FINDER)
    state = (tmp_path / "state").write_text
    masking = Masking(entities=("NAME",), finder=Factory(factory="finder.py:made"))
    masking = of_texts(spec, masking, source=str(tmp_path / "files.yaml"))
    put(make_label(1, payload=b"poison"), make_label(2, payload=b"good"))
    state("away")
    with pytest.raises(FinderError):
        freeze(masking, tape, store, artifacts, now=NOW)
    assert store.windows("files") == []
    state("works")
    window = freeze(masking, tape, store, artifacts, now=NOW)
    assert window.rows == 1 and window.manifest["rejected_reasons"] == {"mask_failed": 1}
    refused = [r.value for p, log in tape.logs.items() if p.topic == "files.labels.refused" for r in log]
    assert len(refused) == 1 and b"poison" not in refused[0]
    assert (tmp_path / "asked").read_text().splitlines().count("poison") == 1 + TRIES  # once while it was away


def test_a_column_that_masking_names_and_no_label_has_is_told(spec, tape, store, artifacts, put, make_label):
    masking = Masking(entities=("EMAIL",), columns=("mail", "nmae"))
    options = {"numbers": [{"name": "x", "mean": 0, "scale": 1}]}
    columns = Features(factory="components.student.columns:MixedColumns", options=options)
    tables = of_texts(spec, masking, payload=Payload(decoder="json"), features=columns)
    put(make_label(1, payload=b'{"name": "a@example.com"}'), make_label(2, payload=b'{"mail": "a@example.com"}'))
    window = freeze(tables, tape, store, artifacts, now=NOW)
    assert window.manifest["masking_columns_absent"] == ["nmae"]
    assert store.gauges("files")["masking"].value == {"columns_absent": ["nmae"]}
    assert read_facts(store, "files", NOW, leader_term=5.0).columns_absent == ("nmae",)
    put(make_label(3, payload=b'{"mail": "b@example.com"}'))
    assert freeze(msgspec.structs.replace(tables, masking=None), tape, store, artifacts, now=NOW + 1)
    assert store.gauges("files")["masking"].value == {}
    assert read_facts(store, "files", NOW + 1, leader_term=5.0).columns_absent is None


def test_the_same_labels_give_the_same_snapshot(freeze_now, put, make_label, make_truth, spec, artifacts, tmp_path):
    records = [*(make_label(i) for i in range(5)), make_truth(2, BASE + 3)]
    put(*records)
    first = freeze_now()
    again, fresh = MemoryBroker(), migrated(f"sqlite:///{tmp_path}/other.db")
    again.ensure_topics(spec.topics)
    for record in reversed(records):
        topic = "files.truth" if record is records[-1] else "files.labels"
        again.producer().send(topic, None, encode(record))
    second = freeze(spec, again, fresh, f"file://{tmp_path}/elsewhere", now=NOW)
    fresh.close()
    assert second.digest == first.digest
    assert get_bytes(second.uri) == get_bytes(first.uri)


# What is refused


def test_labels_of_another_teacher_are_refused_and_counted(freeze_now, put, make_label):
    put(make_label(0), make_label(1, teacher="student@7"), make_label(2))
    window = freeze_now()
    assert read(window.uri, window.digest)["teacher"].to_pylist() == ["sure@1", "sure@1"]
    assert window.manifest["rejected_reasons"] == {"undeclared_teacher": 1}


def test_only_labels_of_another_teacher_are_an_error(freeze_now, put, make_label, store):
    put(make_label(1, teacher="student@7"))
    with pytest.raises(ProvenanceError) as caught:
        freeze_now()
    assert (caught.value.declared, caught.value.found) == ("sure@1", "student@7")
    assert store.windows("files") == []


def test_the_teacher_of_the_last_window_stays_the_declared_one(
    freeze_now, put, make_label, spec, tape, store, artifacts
):
    put(make_label(0))
    freeze_now()
    put(make_label(1, teacher="sure@2"))
    with pytest.raises(ProvenanceError):
        freeze_now()
    replaced = msgspec.structs.replace(spec, teacher_digest="sure@2")
    assert freeze(replaced, tape, store, artifacts, now=NOW).manifest["teacher"] == "sure@2"


def test_a_declared_teacher_may_answer_in_another_space_than_the_one_before(
    freeze_now, put, make_label, spec, tape, store, artifacts
):
    put(make_label(0))
    assert freeze_now().manifest["space"] == "s@1"
    replaced = msgspec.structs.replace(spec, teacher_digest="sure@2")

    def said(space):
        return SoftLabel(task="classification", space=space, distribution={"a": 0.6, "c": 0.4})

    put(make_label(1, teacher="sure@2", soft=said("s@2")), make_label(2, teacher="sure@2", soft=said("s@3")))
    window = freeze(replaced, tape, store, artifacts, now=NOW)
    assert (window.rows, window.manifest["space"]) == (1, "s@2")
    assert window.manifest["rejected_reasons"] == {"undeclared_space": 1}, "a window is of one space"
    put(make_label(3, teacher="sure@2", soft=said("s@1")))
    assert freeze(replaced, tape, store, artifacts, now=NOW) is None, "the space is that of its last window"


def test_a_declared_teacher_is_not_built(freeze_now, put, make_label, spec, tape, store, artifacts):
    put(make_label(0))
    spec = msgspec.structs.replace(spec, teacher=Factory(factory="nowhere:T"), teacher_digest="sure@1")
    assert freeze(spec, tape, store, artifacts, now=NOW).rows == 1


def test_unusable_records_are_counted_by_reason(freeze_now, put, make_label, tape):
    regression = SoftLabel(task="regression", space="s@1", value=1.0, scale=1.0)
    put(make_label(0), make_label(1, workload="mail"), make_label(2, soft=regression))
    put(make_label(3, payload=b"x" * 1001))
    tape.put("files.labels", b"\xff poison")
    window = freeze_now()
    assert window.rows == 1
    assert window.manifest["rejected"] == 4
    assert sorted(window.manifest["rejected_reasons"].values()) == [1, 1, 1, 1]
    assert {"other_workload", "other_task", "undecodable"} <= set(window.manifest["rejected_reasons"])


def test_duplicates_are_dropped_within_and_across_windows(freeze_now, put, make_label, store):
    put(make_label(0), make_label(0), make_label(1), make_label(7, payload=b"payload 1"))
    first = freeze_now()
    assert (first.rows, first.manifest["duplicates"]) == (3, 1), "equal content is no duplicate, an equal key is"
    put(make_label(1))
    assert freeze_now() is None
    put(make_label(2))
    second = freeze_now()
    assert (second.rows, second.manifest["duplicates"]) == (1, 1)
    assert store.gauges("files")["snapshot"].value == {"duplicates": 2}


def test_the_gauge_of_duplicates_is_there_and_zero_when_there_are_none(freeze_now, put, make_label, store):
    put(make_label(0), make_label(1))
    freeze_now()
    assert store.gauges("files")["snapshot"].value == {"duplicates": 0}


def test_equal_content_is_on_one_side_of_the_split(freeze_now, put, make_label, spec, tape, store, artifacts):
    put(*(make_label(i) for i in range(40)))
    first = freeze_now()
    spec = msgspec.structs.replace(spec, teacher_digest="sure@2")
    put(*(make_label(i, teacher="sure@2") for i in range(40)))
    second = freeze(spec, tape, store, artifacts, now=NOW)
    assert second.rows == 40
    sides = [dict(zip(t["content"].to_pylist(), t["split"].to_pylist(), strict=True)) for t in
             (read(w.uri, w.digest) for w in (first, second))]  # fmt: skip
    assert sides[0] == sides[1]
    assert set(sides[0].values()) == {"train", "holdout"}


# Truth


def test_truth_comes_before_with_or_after_its_label(freeze_now, put, make_label, make_truth, artifacts):
    put(make_truth(1, BASE + 5, "early"), make_label(0), make_truth(0, BASE + 6, "same window"))
    first = freeze_now()
    put(make_label(1), make_label(2), make_truth(0, BASE + 7, "corrected"))
    second = freeze_now()
    put(make_label(3), make_truth(2, BASE + 8, "late"))
    freeze_now()
    assert truth_labels(first) == {"i0000": "same window"}
    assert truth_labels(second) == {"i0001": "early", "i0002": None}
    rejoined = with_truth(read(second.uri, second.digest), known_truths("files", artifacts), NOW)
    assert rejoined["truth_label"].to_pylist() == ["early", "late"]
    corrected = with_truth(read(first.uri, first.digest), known_truths("files", artifacts), NOW)
    assert corrected["truth_label"].to_pylist() == ["corrected"]


@pytest.mark.parametrize("apart", [False, True], ids=["one window", "two windows"])
@pytest.mark.parametrize("before", [0, 998, 999, 1999])
def test_of_truths_written_in_one_millisecond_the_last_counts(
    freeze_now, put, make_label, make_truth, artifacts, before, apart
):
    put(*(make_truth(7, BASE + 1, "another input's") for _ in range(before)))
    put(make_label(0), make_truth(0, BASE + 5, "older"))
    first = freeze_now() if apart else None
    put(make_truth(0, BASE + 5, "newer"), make_label(1))
    second = freeze_now()
    if not apart:
        assert truth_labels(second) == {"i0000": "newer", "i0001": None}
    window = first or second
    rejoined = with_truth(read(window.uri, window.digest), known_truths("files", artifacts), NOW)
    assert rejoined["truth_label"].to_pylist()[0] == "newer"


def test_of_truths_in_one_partition_the_last_counts_whatever_their_producers_clocks_say(
    freeze_now, make_label, make_truth, tape, put
):
    put(make_label(0))
    tape.put("files.truth", encode(make_truth(0, BASE + 5, "by a clock ahead")), timestamp=BASE + 60)
    tape.put("files.truth", encode(make_truth(0, BASE + 5, "corrected")), timestamp=BASE)
    assert truth_labels(freeze_now()) == {"i0000": "corrected"}


def test_truth_known_after_the_cut_waits(freeze_now, put, make_label, make_truth):
    put(make_label(0), make_truth(0, NOW + 1))
    window = freeze_now()
    assert truth_labels(window) == {"i0000": None}
    assert window.manifest["with_truth"] == 0


def test_truth_of_another_kind_or_workload_is_counted(freeze_now, put, make_label, make_truth, tape):
    put(make_label(0), make_truth(0, BASE + 1, workload="mail"))
    number = msgspec.structs.replace(make_truth(0, BASE + 1), label=None, value=3.0)
    tape.put("files.truth", encode(number))
    tape.put("files.truth", b"poison")
    window = freeze_now()
    assert window.manifest["truth_rejected"] == 3
    assert truth_labels(window) == {"i0000": None}


def test_tombstones_are_refused_labels_and_truths(freeze_now, put, make_label, make_truth, tape):
    put(make_label(0))
    tape.put("files.labels", None)
    put(make_label(1), make_truth(0, BASE + 1))
    tape.put("files.truth", None)
    window = freeze_now()
    assert window.rows == 2 and window.manifest["rejected_reasons"] == {"empty": 1}
    assert window.manifest["truth_rejected_reasons"] == {"empty": 1}
    put(make_label(2))
    assert freeze_now().rows == 1, "a place behind a tombstone is one to go on from"


def test_regression_has_values_for_truth(put, make_label, make_truth, spec, tape, store, artifacts):
    spec = msgspec.structs.replace(spec, task="regression", teacher_space="kWh")
    soft = SoftLabel(task="regression", space="kWh", value=2.5, scale=0.5)
    put(make_label(0, soft=soft))
    tape.put("files.truth", encode(msgspec.structs.replace(make_truth(0, BASE), label=None, value=2.0)))
    window = freeze(spec, tape, store, artifacts, now=NOW)
    (row,) = read(window.uri, window.digest).to_pylist()
    assert (row["label"], row["truth_value"], row["truth_label"], row["space"]) == (None, 2.0, None, "kWh")


USER = """
class Describer:
    buckets = 16

    def describe(self, payload):
        size = float(len(payload))
        return {"created": size, "rn": size} if payload[-1:] < b"5" else {"created": float("nan"), "Created": size}


class Sure:
    name, digest, task, space, classes = "sure", "1", "classification", "s@1", ("a", "b")
"""


def test_descriptors_may_have_any_names_and_gaps(put, make_label, spec, tape, store, artifacts, tmp_path):
    (tmp_path / "odd.py").write_text(USER)
    spec = msgspec.structs.replace(spec, features=Factory(factory="odd.py:Describer"))
    for n in (0, 10):
        put(*(make_label(n + i, entity=f"k{i}") for i in range(10)))
        assert freeze(spec, tape, store, artifacts, now=NOW).rows == 10
    found = feature_repo(spec, artifacts).latest(["k1", "k7"], NOW)
    assert found["k1"] == {"seen_at": BASE + 11, "created": 10.0, "rn": 10.0, "Created": None}
    assert found["k7"] == {"seen_at": BASE + 17, "created": None, "rn": None, "Created": 10.0}


# Crashes


class Crash(Exception):
    pass


@pytest.mark.parametrize("step", ["repo.add", "repo.apply", "repo.truth", "put_bytes", "add_window", "repo.push"])
def test_after_a_crash_anywhere_the_next_freeze_is_as_if_nothing_had_happened(
    step, freeze_now, put, make_label, make_truth, store, artifacts, monkeypatch
):
    from components.snapshot import features, window

    def dies(*_, **__):
        raise Crash

    put(*(make_label(i) for i in range(3)), make_truth(1, BASE + 5))
    owner = {"put_bytes": window, "add_window": ControlStore}.get(step, features.FeatureRepo)
    monkeypatch.setattr(owner, step.removeprefix("repo."), dies)
    with pytest.raises(Crash):
        freeze_now()
    monkeypatch.undo()
    assert store.windows("files") == []
    put(make_label(3), make_truth(2, BASE + 5))
    window = freeze_now()
    rows = [i for w in store.windows("files") for i in read(w.uri, w.digest)["input_id"].to_pylist()]
    assert rows == [f"i{i:04d}" for i in range(4)]
    assert len(store.windows("files")) == 1
    table = read(window.uri, window.digest)
    assert dict(zip(table["input_id"].to_pylist(), table["truth_label"].to_pylist(), strict=True)).get("i0002") == "a"
    assert window.manifest["positions"] == {"files.labels:0": 4, "files.truth:0": 2}


def test_of_two_freezes_at_once_one_is_told(freeze_now, put, make_label, spec, tape, store, artifacts, monkeypatch):
    put(make_label(0))
    add = ControlStore.add_window

    def beaten(self, row):
        monkeypatch.setattr(ControlStore, "add_window", add)
        put(make_label(1))
        freeze_now()
        add(self, row)

    monkeypatch.setattr(ControlStore, "add_window", beaten)
    with pytest.raises(StaleRevisionError):
        freeze_now()
    assert [w.rows for w in store.windows("files")] == [2]


def test_a_broker_that_lost_its_memory_is_read_from_its_start(freeze_now, put, make_label, tape, store):
    put(*(make_label(i) for i in range(3)))
    freeze_now()
    tape.logs.clear()
    put(*(make_label(i) for i in range(2, 9)))
    window = freeze_now()
    assert (window.rows, window.manifest["duplicates"]) == (6, 1)
    assert window.manifest["replaced_partitions"] == ["files.labels:0"]
    assert window.manifest["started_at_index"] == 3


# Reading, features, separation


def test_a_changed_snapshot_is_not_read(freeze_now, put, make_label):
    put(make_label(0))
    window = freeze_now()
    put_bytes(window.uri, get_bytes(window.uri) + b" ")
    with pytest.raises(ArtifactError, match="expected"):
        read(window.uri, window.digest)


@pytest.mark.parametrize("kind", ["text", "other columns"])
def test_what_is_no_snapshot_is_not_read(artifacts, kind, make_label):
    import pyarrow as pa

    data = b"hello" if kind == "text" else parquet_bytes(pa.table({"x": [1]}))
    put_bytes(f"{artifacts}/x.parquet", data)
    with pytest.raises(ArtifactError, match="is not"):
        read(f"{artifacts}/x.parquet", hashlib.sha256(data).hexdigest())


def test_a_snapshot_that_is_gone_says_so(freeze_now, put, make_label):
    put(make_label(0))
    window = freeze_now()
    local_path(window.uri).unlink()
    put(make_label(1))
    with pytest.raises(ArtifactError, match="artifact root"):
        freeze_now()


def test_the_file_is_plain_parquet_without_metadata(freeze_now, put, make_label):
    put(make_label(0))
    metadata = pq.read_metadata(local_path(freeze_now().uri))
    assert metadata.num_rows == 1
    assert not {b"pandas"} & set(metadata.metadata or {})
    assert metadata.schema.to_arrow_schema().equals(snapshot_schema())


def test_the_newest_inputs_are_online_after_a_freeze(freeze_now, put, make_label, spec, artifacts):
    put(make_label(0, entity="ada", payload=b"xyz"), make_label(5, entity="ada", payload=b"newer"))
    freeze_now()
    latest = feature_repo(spec, artifacts).latest(["ada"], NOW)
    assert latest == {"ada": {"seen_at": BASE + 5, "size": 5.0, "first": "n"}}


@pytest.mark.parametrize("entity", ["a\0b", "\0", "\ud7ff\U0010ffff", "a\nb"])
def test_any_text_is_an_entity(freeze_now, put, make_label, spec, artifacts, entity):
    put(make_label(0, entity=entity), make_label(1, entity="a"))
    window = freeze_now()
    assert read(window.uri, window.digest)["key"].to_pylist() == [entity, "a"]
    found = feature_repo(spec, artifacts).latest([entity, "a"], NOW)
    assert {name: row["seen_at"] for name, row in found.items()} == {entity: BASE, "a": BASE + 1}


def test_workloads_freeze_side_by_side(freeze_now, put, make_label, spec, tape, store, artifacts):
    put(make_label(0))
    mail = msgspec.structs.replace(spec, name="mail")
    assert freeze(mail, tape, store, artifacts, now=NOW) is None
    tape.put("mail.labels", encode(make_label(1, workload="mail")))
    assert freeze(mail, tape, store, artifacts, now=NOW).number == 1
    assert freeze_now().number == 1
    assert [w.rows for w in store.windows("mail")] == [1]


def test_a_snapshot_from_before_rows_said_how_they_were_chosen_stays_readable(freeze_now, put, make_label, artifacts):
    put(*(make_label(i) for i in range(8)))
    window = freeze_now()
    table = read(window.uri, window.digest)
    old = parquet_bytes(table.drop_columns(["policy", "probability", "audit"]))
    put_bytes(f"{artifacts}/old.parquet", old)
    assert read(f"{artifacts}/old.parquet", digest_of(old)) == table
    assert window.manifest["audit_rows"] == 0
