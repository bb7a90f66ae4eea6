from dataclasses import replace

import msgspec
import pytest

from components.contracts import storage
from components.contracts.errors import ConfigError, RemainsError
from components.contracts.storage import digest_of, files, get_bytes
from components.control import forgettings
from components.control.requests import Content
from components.control.store import certificates_of
from components.control.tables import RequestRow, ReviewRow, TeacherRow
from components.evaluate.judge import replay
from components.forget import order
from components.forget.order import STEPS, forget, look
from components.forget.rows import request_names
from components.ledger.ledger import entries, verify
from components.snapshot.window import read
from components.steps import evidence_folder
from tests.components.forget.conftest import BASE, KEY, label_of

REASON = "asked by letter"


def forgotten(world):
    return forget(world.platform, KEY, REASON)


def requests_of(world):
    with world.store.session() as s:
        return sorted(row.id for row in s.query(RequestRow))


def everything(world):
    """What tells whether two worlds are the same, beside what is drawn at random."""
    windows = [(w.number, w.digest, w.rows, w.digests, w.manifest) for w in world.store.windows("files")]
    files = {
        str(path.relative_to(world.folder)): digest_of(path.read_bytes())
        for path in world.folder.rglob("*")
        if path.is_file() and path.suffix in (".parquet", ".html")
    }
    records = {p: [(r.key, r.value) for r in log] for p, log in world.broker.logs.items()}
    with world.store.session() as s:
        asked = sorted(r.key for r in s.query(ReviewRow))
        probes = [r.state["probes"] for r in s.query(TeacherRow)]
    return windows, files, records, asked, probes


def test_no_trace_is_left_and_nothing_else_is_lost(world):
    needles = world.needles()
    before = {place.partition(":")[0] for place in world.traces(needles)}
    assert any("snapshots" in place for place in before) and any("online.db" in place for place in before)
    others = world.traces(["entity-1"])
    result = forgotten(world)
    assert world.traces(needles) == set()
    assert {place.rpartition("@")[0] for place in world.traces(["entity-1"])} == {
        place.rpartition("@")[0] for place in others
    }, "where the others are, they stay"
    assert [w["rows"] for w in result["windows"]] == [3, 3]
    assert result["topics"] == {
        "files.inputs": 9, "files.inputs.dlq": 1, "files.labels": 6, "files.labels.quarantine": 1,
        "files.predictions": 6, "files.truth": 6,
    }  # fmt: skip
    assert result["left"] == []


def test_a_window_has_a_successor_by_which_its_former_digest_is_found(world):
    before = world.store.windows("files")
    result = forgotten(world)
    for old, new, told in zip(before, world.store.windows("files"), result["windows"], strict=True):
        assert (told["before"], told["digest"]) == ([old.digest], new.digest)
        assert new.digests == (new.digest, old.digest) and new.manifest["forgotten_rows"] == 3
        table = read(new.uri, new.digest)
        assert table.num_rows == new.rows == old.rows - 3 and KEY not in table["key"].to_pylist()
        assert new.manifest["holdout_rows"] == table["split"].to_pylist().count("holdout")
        assert evidence_folder(new) == evidence_folder(old)


def test_verdicts_are_replayed_byte_for_byte(world):
    uri = f"{evidence_folder(world.store.windows('files')[0])}/student-1.jsonl"
    before = get_bytes(uri)
    result = forgotten(world)
    after = get_bytes(uri)
    assert result["files"][digest_of(before)] == digest_of(after)
    done = replay(after.splitlines())
    assert done.same and done.verdict == replay(before.splitlines()).verdict
    assert len({line for line in after.splitlines() if b"forgotten-" in line}) == 2, "each row has a name of its own"


def test_what_the_teacher_showed_of_inputs_goes_as_it_can_be_asked_again(world):
    assert files(f"{world.artifacts}/files/states/*")
    forgotten(world)
    assert files(f"{world.artifacts}/files/states/*") == []


def test_students_that_had_learnt_are_listed(world):
    world.registry.add("3", ["another"], parent="2")
    world.registry.add("4", ["another"])
    result = forgotten(world)
    assert [s["version"] for s in result["students"]] == ["1", "2", "3"]
    assert "parent" in result["students"][2]["why"]
    assert forgettings.tainted(world.store, "files").keys() == {"student-1", "student-2", "student-3"}
    assert [r.id for r in forgettings.waiting(world.store, "files", "student-2")]
    assert not forgettings.waiting(world.store, "files", "student-4")


def test_the_proof_and_the_ledger_name_nobody(world):
    result = forgotten(world)
    proof = get_bytes(result["proof"]["uri"])
    said = msgspec.json.decode(proof)["predicate"]
    (entry,) = [e for e in entries(world.store, "files") if e.action == order.ACTION]
    (row,) = forgettings.orders(world.store, "files")
    assert digest_of(proof) == result["proof"]["digest"] == entry.detail["proof"]
    assert said["subject"] == forgettings.hashed(row.secret, KEY) == entry.detail["subject"]
    assert row.secret.encode() not in proof and row.found is None and row.done_at is not None
    assert verify(world.store) >= 1
    assert said["searched"].keys() == {f"files.{k}:0" for k in (
        "inputs", "inputs.urgent", "labels", "predictions", "truth", "inputs.dlq", "labels.quarantine", "labels.refused"
    )}  # fmt: skip


def test_a_look_changes_nothing_and_says_what_would_go(world):
    before = everything(world)
    seen = look(world.platform, KEY)
    assert everything(world) == before and forgettings.orders(world.store, "files") == []
    result = forgotten(world)
    assert seen["topics"] == result["topics"]
    assert [w["rows"] for w in seen["windows"]] == [w["rows"] for w in result["windows"]]
    assert (seen["evidence"], seen["reviews"]) == (len(result["files"]), result["reviews"])
    assert seen["students"] == result["students"]
    assert seen["requests"] == result["requests"] == 2


def test_a_request_that_waits_tells_of_ids_that_are_nowhere_else(world):
    """It goes by the key in its body, or by the ids that it names; the id of an input that has none is its key."""
    body = msgspec.json.encode({"text": "said", "key": KEY})
    shared = msgspec.json.encode({"inputs": [{"text": "said"}, {"text": "more", "key": "entity-1"}]})
    answer = msgspec.json.encode([{"id": "drawn-1", "request_id": "r"}])
    rows = {
        "alone": (Content(body, ["drawn-1"], 6), None, BASE),
        "bare": (Content(shared, [KEY, "drawn-2"], 6), None, BASE),
        "answered": (None, answer, BASE),
        "failed": (None, b'{"title": "internal", "status": 500}', BASE),
        "later": (Content(body, ["drawn-3"], 6), None, world.now + 1),
    }
    with world.store.transaction() as s:
        for name, (content, said, at) in rows.items():
            given = None if content is None else msgspec.msgpack.encode(content)
            s.add(
                RequestRow(
                    id=name, workload="files", fingerprint="f", mode="structured", accepted_at=at, attempts=0,
                    content=given, answer=said,
                )
            )  # fmt: skip
    names = request_names(world.spec, world.store, KEY, world.now).ids
    assert {"drawn-1", KEY} <= names and not {"drawn-2", "drawn-3"} & names, "those are of another, and of later"
    assert forgotten(world)["requests"] == 5
    assert requests_of(world) == ["failed", "later", "told-901", "waits-901"]


def test_journals_of_other_workloads_stay_as_they_are(world):
    """Ids are unique in a workload alone. A certificate's journal has no rollout, and is told by its student."""
    lines = list(world.store.journal("rollout-900"))
    own, foreign = f"{certificates_of('student-2')}17", f"{certificates_of('foreign')}17"
    for name in (own, foreign, "rollout-of-mail"):
        world.store.keep_journal(name, lines)
    world.store.put_rollout("rollout-of-mail", "mail", 0, True, {})
    assert forgotten(world)["journal_lines"] == 2
    changed = [n for n in ("rollout-900", own, foreign, "rollout-of-mail") if list(world.store.journal(n)) != lines]
    assert changed == ["rollout-900", own]


@pytest.mark.parametrize("late", ["a journal", "evidence", "a request"])
def test_what_a_rollout_writes_beside_an_order_makes_it_begin_anew(world, monkeypatch, late):
    window, erase = world.store.windows("files")[0], world.broker.erase
    uri = f"{evidence_folder(window)}/student-1.jsonl"
    before, lines = get_bytes(uri), list(world.store.journal("rollout-900"))

    def meanwhile(places):
        erase(places)
        if late == "a journal":
            world.store.keep_journal("rollout-900", lines)
        elif late == "evidence":
            storage.put_bytes(uri, before)
        else:
            with world.store.transaction() as s:
                body = msgspec.json.encode({"text": "said", "key": KEY})
                s.add(
                    RequestRow(
                        id="late", workload="files", fingerprint="f", mode="structured", accepted_at=BASE, attempts=0,
                        content=msgspec.msgpack.encode(Content(body, ["drawn-1"], 6)), answer=None,
                    )
                )  # fmt: skip

    monkeypatch.setattr(world.broker, "erase", meanwhile)
    with pytest.raises(RemainsError, match={"a journal": "in journals", "a request": "in requests"}.get(late, late)):
        forgotten(world)
    monkeypatch.setattr(world.broker, "erase", erase)
    forgotten(world)
    assert world.traces([KEY]) == set()


def test_windows_that_lose_all_rows_have_successors_that_differ(world):
    for i in (1, 2):
        world.labelled(950 + i, "somebody-alone", BASE + 5_000 + i)
        world.freeze()
    result = forget(world.platform, "somebody-alone", REASON)
    assert [w["rows"] for w in result["windows"]] == [1, 1]
    *_, one, other = world.store.windows("files")
    assert one.digest != other.digest
    assert [read(w.uri, w.digest).num_rows for w in (one, other)] == [one.rows, other.rows] == [0, 0]


def test_each_step_asks_whether_it_may_go_on(world):
    asked = []

    def before():
        asked.append(forgettings.orders(world.store, "files")[0].step)
        if len(asked) == 4:
            raise Cut

    with pytest.raises(Cut):
        forget(world.platform, KEY, REASON, before)
    assert asked == [0, 1, 2, 3] and forgettings.orders(world.store, "files")[0].step == 3


def test_what_runs_elsewhere_left_is_named_in_the_proof(world):
    said = "artifacts of Kubeflow's runs 8f1a"
    on = replace(world.platform, leftovers=lambda since: (1, [said]))
    result = forget(on, KEY, REASON)
    assert (result["left"], result["runs"]) == ([said], 1)


class Cut(Exception):
    """The process ends here."""


def test_an_order_that_is_cut_anywhere_is_finished_by_the_next(world, monkeypatch):
    """Before each write, delete and commit, in turn, the process ends; the same order then leads to the same end."""
    made = []

    def counted(function):
        def call(*args, **named):
            made.append(function.__name__)
            if len(made) == cut:
                raise Cut(function.__name__)
            return function(*args, **named)

        return call

    for module in ("components.snapshot.erase", "components.forget.evidence", "components.forget.rows"):
        for name in ("put_bytes", "remove"):
            monkeypatch.setattr(f"{module}.{name}", counted(getattr(storage, name)), raising=False)
    monkeypatch.setattr(order, "put_bytes", counted(storage.put_bytes))
    monkeypatch.setattr(forgettings, "put", counted(forgettings.put))
    monkeypatch.setattr(world.broker, "erase", counted(world.broker.erase))
    monkeypatch.setattr(order, "append_if", counted(order.append_if))
    monkeypatch.setattr(order, "failpoint", counted(lambda name: None))
    monkeypatch.setattr(order.erase, "online_without", lambda *_: [])  # Feast's own: it is shown above
    cut = -1
    result = forgotten(world)
    total, whole = len(made), everything(world)
    assert total > 30
    needles = world.needles()
    noted = [at for at, name in enumerate(made, start=1) if name == "put"]  # a step is done, and nobody knows
    for cut in sorted({*noted, *range(1, total, 4)}):
        world.restore(world.before)
        made.clear()
        with pytest.raises(Cut):
            forgotten(world)
        made.extend([""] * total)  # no further cut
        again = forgotten(world)
        assert everything(world) == whole, cut
        assert {t for t in world.traces(needles) if "feast/online.db" not in t} == set(), cut
        for name in ("windows", "students", "topics"):
            assert again[name] == result[name], (cut, name)
        assert again["files"].keys() == result["files"].keys()
        told = [e for e in entries(world.store, "files") if e.action == order.ACTION]
        assert len(told) == 1 and len(forgettings.orders(world.store, "files")) == 1, cut


def test_what_comes_while_it_is_erased_makes_it_begin_anew(world, monkeypatch):
    erase = world.broker.erase

    def late(places):
        erase(places)
        world.labelled(903, KEY, BASE + 903)

    monkeypatch.setattr(world.broker, "erase", late)
    with pytest.raises(RemainsError, match=r"files\.labels"):
        forgotten(world)
    monkeypatch.setattr(world.broker, "erase", erase)
    forgotten(world)
    assert world.traces([KEY]) == set()
    assert len(forgettings.orders(world.store, "files")) == 1


def test_of_later_inputs_those_that_happened_before_are_learnt_by_nobody(world):
    forgotten(world)
    until = world.now
    world.now = until + 100
    old, new = label_of(904, KEY, BASE + 904), label_of(905, KEY, until + 50)
    for label in (old, new):
        world.send("labels", KEY, label)
    window = world.freeze()
    assert read(window.uri, window.digest)["input_id"].to_pylist() == [new.input.id]
    assert window.manifest["forgotten"] == 1
    assert window.manifest["rejected"] == 0


def test_forgotten_again_after_it_came_again(world):
    forgotten(world)
    world.now += 100
    world.labelled(906, KEY, world.now)
    world.freeze()
    world.now += 100
    result = forgotten(world)
    assert [w["rows"] for w in result["windows"]] == [1]
    assert world.traces([KEY]) == set()
    assert len(forgettings.orders(world.store, "files")) == 2


def test_an_entity_that_nobody_knows_is_forgotten_at_once(world):
    before = [w.digest for w in world.store.windows("files")]
    result = forget(world.platform, "nobody-0815", REASON)
    assert result["windows"] == [] and result["students"] == [] and result["topics"] == {}
    assert [w.digest for w in world.store.windows("files")] == before
    assert len(STEPS) == 10


@pytest.mark.parametrize(
    ("key", "reason", "said"),
    [("", REASON, "KEY"), (KEY, " ", "must say why"), (KEY, f"{KEY} asked", "must not name the key")],
)
def test_orders_that_are_refused(world, key, reason, said):
    with pytest.raises(ConfigError, match=said):
        forget(world.platform, key, reason)
    assert forgettings.orders(world.store, "files") == []
