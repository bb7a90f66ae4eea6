"""What is deleted by its age, what stays and why, and that a sweep which was cut off is finished by the next."""

import msgspec
import pytest

from components.contracts.errors import AccessError, PipelineError, UnavailableError
from components.contracts.records import Truth
from components.contracts.spec import DAY, Retention
from components.contracts.storage import files, get_bytes, put_bytes
from components.control import runs
from components.control.intent import Intent, ModelRef
from components.control.tables import ReviewRow
from components.evaluate.judge import replay
from components.forget import retention
from components.forget.order import forget
from components.forget.retention import ACTION, RETRY_SECONDS, SWEEP_SECONDS, Sweeper, due, swept
from components.ledger.ledger import entries, verify
from components.snapshot.leaks import HeldOut
from components.snapshot.table import truth_table
from components.snapshot.truth import known_truths
from components.snapshot.window import feature_repo, read
from components.steps import evidence_folder
from tests.components.forget.conftest import BASE, KEY


@pytest.fixture
def old(world, monkeypatch):
    """The world a month later."""
    monkeypatch.setattr(world, "now", BASE + 30 * DAY)
    return world


def aged(world, **ages):
    return msgspec.structs.replace(world.spec, retention=Retention(**ages))


def sweep(world, **ages):
    return swept(aged(world, **ages), world.settings, world.store)


def serve(world):
    champion = ModelRef(version="1", uri="u", digest="d", snapshot="s", teacher="sure@1")
    world.store.put_intent("files", world.store.intent("files")[0], Intent(champion=champion))


def told(world):
    return [e.detail for e in entries(world.store, "files") if e.action == ACTION]


def ids(window):
    return set(read(window.uri, window.digest)["input_id"].to_pylist())


def snapshots(world):
    return {uri.rsplit("/", 1)[1].partition(".")[0] for uri in files(f"{world.artifacts}/files/snapshots/*")}


def sourced(world, number):
    import pyarrow.parquet as pq

    return {
        uri.split("/feast/")[1].split("/")[0]: set(pq.read_table(uri.removeprefix("file://"))["input_id"].to_pylist())
        for name in ("inputs", "labels", "truth")
        for uri in files(f"{world.artifacts}/files/feast/{name}/{number:06d}-*.parquet")
    }


def test_rows_that_are_too_old_go_with_what_was_made_of_them_and_the_newest_window_stays(old):
    first, newest = old.store.windows("files")
    found = sweep(old, rows=10.0)
    assert found.rows == {1: first.rows} and found.kept == 0
    lost, kept = old.store.windows("files")
    assert lost.rows == 0 and lost.digests == (lost.digest, first.digest) and ids(lost) == set()
    assert (kept.digest, kept.rows) == (newest.digest, newest.rows)
    assert sourced(old, 1) == {"inputs": set(), "labels": set(), "truth": set()}
    assert all(names == ids(newest) for names in sourced(old, 2).values()) and sourced(old, 2)
    assert files(f"{old.artifacts}/files/unlabelled/{first.digest}.parquet") == []
    assert files(f"{old.artifacts}/files/unlabelled/{newest.digest}.parquet")
    assert files(f"{old.artifacts}/files/states/*") == []
    assert files(first.uri) == [], "the snapshot that was replaced is gone"
    (entry,) = told(old)
    assert {n: entry[n] for n in ("window", "before", "digest", "rows", "days")} == {
        "window": 1, "before": first.digest, "digest": lost.digest, "rows": first.rows, "days": 10.0,
    }  # fmt: skip
    assert verify(old.store) >= 1
    assert not due(aged(old, rows=10.0), old.settings, old.store).any


def test_the_learning_curve_stays_when_what_was_learnt_from_goes(old):
    from pipelines.payoff import learnt_of
    from pipelines.trigger import _regimes

    old.store.raise_alarm("files", "drift", 0, {"champion": "1"})
    first, newest = old.store.windows("files")
    counts = [first.of_traffic, first.of_traffic + newest.of_traffic]
    for until, left in ((1_010, counts[0] - 10), (9_000, 0)):
        sweep(old, rows=(old.now - (BASE + until)) / DAY)
        windows = old.store.windows("files")
        assert windows[0].of_traffic == left
        assert [learnt_of(w.digest, windows, []) for w in (first, newest)] == counts
        assert _regimes(old.store.alarms("files"), windows) == counts[1:]


def test_only_the_rows_of_a_window_go_that_are_too_old(old):
    first, _ = old.store.windows("files")
    ages = (old.now - (BASE + 1_010)) / DAY
    assert sweep(old, rows=ages).rows == {1: 10}
    lost, _ = old.store.windows("files")
    assert lost.rows == first.rows - 10 and lost.manifest["time_range"][0] == BASE + 1_010
    assert sum(read(lost.uri, lost.digest)["split"].to_pylist().count(s) for s in ("train", "holdout")) == lost.rows


def test_a_window_that_was_emptied_is_read_as_the_others_and_the_next_one_is_frozen_beside_it(old):
    sweep(old, rows=10.0)
    emptied = old.store.windows("files")[0]
    held = HeldOut(old.spec)
    held.add(read(emptied.uri, emptied.digest))
    assert not held.alike(["nothing"], [None]).any()
    old.labelled(300, "entity-1", old.now - 1.0)
    assert old.freeze().rows == 1


def test_a_truth_goes_with_its_row_and_one_that_came_before_its_label_when_it_is_old(old):
    lost = sorted(ids(old.store.windows("files")[0]))[0]
    repo = feature_repo(old.spec, old.artifacts)

    def known(number, name, at):
        truth = Truth(workload="files", input_id=name, time=BASE, known_at=at, source="person", label="a")
        repo.add("truth", number, truth_table([(truth, number)]))

    known(1, "waits", old.now - 5 * DAY)  # for its label, which a person gives
    known(1, "never labelled", old.now - 11 * DAY)
    known(2, lost, old.now - 5 * DAY)  # a correction, in a later window's file
    sweep(old, rows=10.0)
    left = set(known_truths("files", old.artifacts)["input_id"].to_pylist())
    assert left == {"waits", *ids(old.store.windows("files")[1])}
    old.now += 6 * DAY
    sweep(old, rows=10.0)
    assert "waits" not in known_truths("files", old.artifacts)["input_id"].to_pylist()


def test_held_out_rows_that_judge_stay_while_a_champion_serves(old):
    first, _ = old.store.windows("files")
    table = read(first.uri, first.digest)
    sides = dict(zip(table["input_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    held = {name for name, side in sides.items() if side == "holdout"}
    assert held
    serve(old)
    found = sweep(old, rows=10.0)
    assert found.kept == len(held) and found.rows == {1: first.rows - len(held)}
    assert ids(old.store.windows("files")[0]) == held
    assert not due(aged(old, rows=10.0), old.settings, old.store).any


def test_verdicts_are_had_again_after_their_rows_went(old):
    first, _ = old.store.windows("files")
    uri = f"{evidence_folder(first)}/student-1.jsonl"
    before = get_bytes(uri)
    sweep(old, rows=10.0, questions=1.0, reports=1.0)
    assert get_bytes(uri) == before and replay(before.splitlines()).same is True
    assert evidence_folder(old.store.windows("files")[0]) == evidence_folder(first)


def test_an_order_to_forget_says_that_rows_went_before_whose_entities_nobody_knows(old):
    sweep(old, rows=10.0)
    left = [text for text in forget(old.platform, KEY, "asked by letter")["left"] if "by their age" in text]
    assert len(left) == 1 and "windows 1 " in left[0] and "students that learnt from them are not listed" in left[0]
    assert left[0] in get_bytes(files(f"{old.artifacts}/files/forgotten/*.json")[0]).decode()


def test_questions_go_when_they_are_settled_and_reports_by_their_window(old):
    with old.store.transaction() as s:
        settled, open_ = s.query(ReviewRow).order_by(ReviewRow.key).all()
        settled.answered_at = settled.published_at = BASE + 5.0
        left = open_.key
    assert len(files(f"{old.artifacts}/files/reports/*/*")) == 2
    found = sweep(old, questions=10.0, reports=10.0)
    assert (found.questions, found.reports, found.rows) == (1, 2, {})
    with old.store.session() as s:
        assert [row.key for row in s.query(ReviewRow)] == [left]
    assert files(f"{old.artifacts}/files/reports/*/*") == []
    assert told(old) == [{"questions": 1, "reports": 2}]
    sweep(old, questions=10.0, reports=10.0)
    assert len(told(old)) == 1, "of nothing the ledger is not told"


def test_what_is_not_too_old_stays(old):
    assert not due(aged(old, rows=60.0, questions=60.0, reports=60.0), old.settings, old.store).any
    before = [w.digest for w in old.store.windows("files")]
    sweep(old, rows=60.0, questions=60.0, reports=60.0)
    assert [w.digest for w in old.store.windows("files")] == before and told(old) == []


@pytest.mark.parametrize("place", ["retention.window", "retention.sources"])
def test_a_sweep_that_was_cut_off_is_finished_by_the_next_look_and_told_once(old, monkeypatch, place):
    first, _ = old.store.windows("files")

    class Cut(Exception):
        pass

    def cut(name):
        if name == place:
            raise Cut(name)

    with monkeypatch.context() as patch:
        patch.setattr(retention, "failpoint", cut)
        with pytest.raises(Cut):
            sweep(old, rows=10.0)
    assert old.store.windows("files")[0].rows == 0 and told(old) == []
    assert old.store.runs("files")[-1].status == "failed"
    for _ in range(2):
        Sweeper(old.settings, old.store).tend(aged(old, rows=10.0))
    assert len(old.store.runs("files")) == 2, "the second look finds nothing to do"
    assert [e["before"] for e in told(old)] == [first.digest]
    assert not any(sourced(old, 1).values())


def test_a_successor_that_could_not_be_signed_stays_nowhere(old, monkeypatch):
    """The age moves on, so that each look makes another one."""

    def away(*args):
        raise UnavailableError("AWS KMS", "k", "no answer")

    before, spec = snapshots(old), aged(old, rows=(old.now - (BASE + 1_005)) / DAY)
    with monkeypatch.context() as patch:
        patch.setattr(retention, "sign", away)
        for _ in range(2):
            with pytest.raises(UnavailableError):
                swept(spec, old.settings, old.store)
            assert snapshots(old) == before
            old.now += 5.0
    swept(spec, old.settings, old.store)
    assert snapshots(old) == {w.digest for w in old.store.windows("files")} != before


@pytest.mark.parametrize("orphan", ["0" * 64 + ".parquet", "0" * 64 + ".parquet.dsse"])
def test_what_a_cut_left_that_no_window_names_goes_with_the_next_sweep(old, orphan):
    folder = old.store.windows("files")[0].uri.rsplit("/", 1)[0]
    put_bytes(f"{folder}/{orphan}", b"rows that were to go")
    sweep(old, rows=10.0)
    assert files(f"{folder}/{orphan}") == []
    assert snapshots(old) == {w.digest for w in old.store.windows("files")}


def test_nothing_is_swept_beside_an_update_and_the_next_look_does_it(old):
    spec, sweeper = aged(old, rows=10.0), Sweeper(old.settings, old.store)
    run = runs.begin(old.store, "files", "continual", "labels", "ana")
    with pytest.raises(PipelineError, match="under way"):
        sweep(old, rows=10.0)
    sweeper.tend(spec)
    assert old.store.windows("files")[0].rows > 0
    runs.end(old.store, run, "succeeded", {}, "ana")
    sweeper.tend(spec)
    assert old.store.windows("files")[0].rows > 0, "not every second: a look reads the windows"
    old.now += RETRY_SECONDS
    sweeper.tend(spec)
    assert old.store.windows("files")[0].rows == 0


def test_it_looks_once_a_day_and_begins_no_run_for_nothing(old, monkeypatch):
    spec, looks = aged(old, rows=60.0), []
    monkeypatch.setattr(retention, "due", lambda *args: looks.append(old.now) or due(*args))
    sweeper = Sweeper(old.settings, old.store)
    for seconds in (0.0, 1.0, SWEEP_SECONDS - 1.0, SWEEP_SECONDS):
        old.now = BASE + 30 * DAY + seconds
        sweeper.tend(spec)
    assert looks == [BASE + 30 * DAY, BASE + 30 * DAY + SWEEP_SECONDS] and old.store.runs("files") == []
    Sweeper(old.settings, old.store).tend(old.spec)
    assert len(looks) == 2, "a spec without ages is not looked at"


class Kept:
    """Topics of a broker, by how long it keeps their records (seconds). ``refuses``: the right that it withholds."""

    def __init__(self, refuses="", **seconds):
        self.seconds, self.refuses = {f"files.{name}": s for name, s in seconds.items()}, refuses

    def _require(self, right):
        if self.refuses == right:
            raise AccessError("Kafka", "k:9092", "permission", f"{right} is not allowed", "allow it")

    def kept_longer(self, topics, seconds):
        self._require("DescribeConfigs")
        return {t: s for t, s in self.seconds.items() if t in topics and (s is None or s > seconds)}

    def keep(self, topics, seconds):
        self._require("AlterConfigs")
        self.seconds |= dict.fromkeys(topics, seconds)


def test_topics_keep_records_no_longer_and_the_ledger_says_how_long_they_did(old):
    kept = Kept(inputs=30 * DAY, labels=None, truth=5 * DAY, others=90 * DAY)
    spec = aged(old, topics=10.0)
    Sweeper(old.settings, old.store, kept).tend(spec)
    assert kept.seconds == {
        "files.inputs": 10 * DAY, "files.labels": 10 * DAY, "files.truth": 5 * DAY, "files.others": 90 * DAY,
    }  # fmt: skip
    assert told(old) == [{"topics": {"files.inputs": 30 * DAY, "files.labels": None}, "days": 10.0}]
    Sweeper(old.settings, old.store, kept).tend(spec)
    assert len(old.store.runs("files")) == 1


@pytest.mark.parametrize("right", ["DescribeConfigs", "AlterConfigs"])
def test_a_broker_that_refuses_keeps_nothing_else_from_being_deleted(old, caplog, right):
    kept = Kept(refuses=right, inputs=30 * DAY)
    Sweeper(old.settings, old.store, kept).tend(aged(old, topics=10.0, rows=10.0))
    assert old.store.windows("files")[0].rows == 0 and [e["window"] for e in told(old)] == [1]
    assert f"{right} is not allowed" in caplog.text and old.store.runs("files")[-1].status == "failed"
