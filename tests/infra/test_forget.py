"""The command, on a workload that is registered, with a broker in memory."""

import json

import pytest
from typer.testing import CliRunner

from components.contracts.attestation import verifier, verify
from components.contracts.errors import ConfigError, NotFoundError, PipelineError, UnavailableError
from components.contracts.records import Input, encode
from components.contracts.settings import Settings
from components.contracts.storage import get_bytes
from components.control import runs
from components.control.tables import ReviewRow
from components.control.workloads import apply, opened
from components.forget import order
from components.forget.order import PREDICATE
from components.ledger.ledger import entries
from components.stream.memory import MemoryBroker
from infra import forget as forgetting
from infra.cli import app
from tests.keys import keys
from tests.stores import migrated

KEY = "person-7731"

SPEC = """
name: letters
teacher: {factory: "t.py:T"}
features: {factory: "components.student.bytes:ByteNgrams"}
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A home in which the workload is in force, and two of its inputs are on the stream."""
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    (tmp_path / "t.py").write_text("class T: pass\n")
    (tmp_path / "letters.yaml").write_text(SPEC)
    store, broker = migrated(Settings().control_url), MemoryBroker()
    spec, bundle = opened(str(tmp_path / "letters.yaml"), Settings())
    apply(store, bundle, spec, actor="ada", reason="first")
    broker.ensure_topics(spec.topics)
    for key in (KEY, "another"):
        given = Input(workload="letters", id=f"{key}/1", key=key, time=1.0, payload=b"said")
        broker.producer().send("letters.inputs", key, encode(given))
    monkeypatch.setattr(forgetting, "open_broker", lambda settings: broker)
    monkeypatch.setattr(forgetting, "_eraser", lambda *_: broker.erase)
    store.broker = broker
    yield store
    store.close()


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """No version is registered: MLflow itself takes seconds."""
    monkeypatch.setattr("components.registry.registry.Registry.versions", lambda self, workload: [])


def run(*options):
    done = CliRunner().invoke(app, ["forget", *options, "--workload", "letters"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def inputs(store):
    consumer = store.broker.consumer(["letters.inputs"])
    return [record.key.decode() for record in consumer.poll(timeout=0.0)]


def test_a_dry_run_erases_nothing(store):
    seen = json.loads(run(KEY, "--dry-run"))
    assert seen["topics"] == {"letters.inputs": 1} and inputs(store) == [KEY, "another"]
    assert json.loads(run("--list", "--json")) == []


def test_an_order_is_carried_out_recorded_and_proved(store, tmp_path):
    secret, public = keys(tmp_path)
    said = run(KEY, "--reason", "asked by letter", "--key", str(secret))
    assert "erased: 1 records, 0 rows of 0 windows, 0 questions, 0 requests" in said and "not signed" not in said
    assert inputs(store) == ["another"]
    (told,) = json.loads(run("--list", "--json"))
    assert (told["state"], told["reason"]) == ("done", "asked by letter") and KEY not in json.dumps(told)
    proof = verify(get_bytes(told["proof"]), verifier(public))
    assert proof.predicate_type == PREDICATE and proof.predicate["topics"] == {"letters.inputs": 1}
    assert KEY not in json.dumps(proof.predicate)
    assert [e.action for e in entries(store, "letters")][-2:] == ["forget", "pipeline forget"]
    (ran,) = store.runs("letters")
    assert (ran.pipeline, ran.status) == ("forget", "succeeded")


def test_without_a_key_the_proof_is_not_signed_and_says_so(store):
    assert "not signed: --key signs it" in run(KEY, "--reason", "asked")


def test_it_waits_for_no_update_that_is_under_way(store):
    runs.begin(store, "letters", "continual", "labels", "trigger")
    with pytest.raises(PipelineError, match="continual"):
        run(KEY, "--reason", "asked")
    assert inputs(store) == [KEY, "another"]


def test_a_run_s_folder_on_this_host_goes_with_the_windows_that_it_read(store):
    home = Settings().home.resolve()
    for name, ended in (("continual", True), ("continual", False)):
        made = runs.begin(store, "letters", name, "labels", "trigger")
        (home / "pipelines" / made / "report").mkdir(parents=True)
        if ended:
            store.finish_run(made, "succeeded", {})
    now = store.clock()
    assert forgetting._leftovers(Settings(), store, "letters", now + 2 * forgetting.RUN_SECONDS) == (0, [])
    assert forgetting._leftovers(Settings(), store, "letters", now) == (1, [])
    assert [path.name for path in (home / "pipelines").iterdir()] == ["letters-2"]


def test_artifacts_of_runs_on_kubeflow_are_named_and_not_deleted(store):
    for known in ("8f1a", "", "9c2b"):
        made = runs.begin(store, "letters", "continual", "labels", "trigger", {runs.KUBEFLOW: known})
        runs.end(store, made, "succeeded", {}, "trigger")
    now = store.clock()
    assert forgetting._leftovers(Settings(), store, "letters", now + 2 * forgetting.RUN_SECONDS) == (0, [])
    count, (left,) = forgetting._leftovers(Settings(), store, "letters", now)
    assert count == 0 and "Kubeflow's runs 8f1a, 9c2b: delete them" in left


def test_it_goes_no_further_once_it_was_given_up_and_an_update_began(store, monkeypatch):
    """A process that was stopped for a minute is recorded as abandoned, and finds another's run when it goes on."""
    evidence = order._Work._evidence

    def silent(work):
        evidence(work)
        runs.end(store, "letters-1", "abandoned", {}, "trigger")
        runs.begin(store, "letters", "continual", "labels", "trigger")

    monkeypatch.setattr(order._Work, "_evidence", silent)
    with pytest.raises(PipelineError, match=r"letters-2 \(continual\) is under way"):
        run(KEY, "--reason", "asked")
    assert [r.status for r in store.runs("letters")] == ["abandoned", "running"], "its end is not written over"
    assert inputs(store) == [KEY, "another"]
    runs.end(store, "letters-2", "succeeded", {}, "trigger")
    monkeypatch.setattr(order._Work, "_evidence", evidence)
    run(KEY, "--reason", "asked")
    assert inputs(store) == ["another"]


def test_why_it_failed_is_recorded(store, monkeypatch):
    def away(places):
        raise UnavailableError("broker", "b:1", "does not answer")

    monkeypatch.setattr(forgetting, "_eraser", lambda *_: away)
    with pytest.raises(UnavailableError):
        run(KEY, "--reason", "asked")
    (ran,) = store.runs("letters")
    assert ran.status == "failed" and "does not answer" in ran.detail["failure"]
    assert entries(store, "letters")[-1].detail["status"] == "failed"


def test_a_workload_that_nobody_registered_is_named(store):
    with pytest.raises(NotFoundError, match="nothing-here"):
        forgetting.look("nothing-here", KEY)


def expire(*options):
    done = CliRunner().invoke(app, ["retention", *options, "--workload", "letters"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_what_is_too_old_is_counted_and_deleted_by_the_spec_in_force(store, tmp_path):
    with pytest.raises(ConfigError, match="names no age"):
        expire()
    (tmp_path / "letters.yaml").write_text(f"{SPEC}retention: {{questions: 1}}\n")
    spec, bundle = opened(str(tmp_path / "letters.yaml"), Settings())
    apply(store, bundle, spec, actor="ada", reason="questions age")
    with store.transaction() as s:
        for name, published in (("settled", 2.0), ("waits", None)):
            s.add(
                ReviewRow(
                    workload="letters", key=name, teacher="t@1", space="s@1", classes=["a"], input=b"", draft=None,
                    why="", policy="all", probability=1.0, audit=False, asked_at=1.0, published_at=published,
                )
            )  # fmt: skip
    assert json.loads(expire("--dry-run", "--json")) == {
        "rows": {}, "kept": 0, "questions": 1, "reports": 0, "unfinished": 0, "topics": {}, "refused": "",
    }  # fmt: skip
    assert store.runs("letters") == []
    assert "deleted: 0 rows of 0 windows, 1 questions, reports of 0 students" in expire()
    with store.session() as s:
        assert [row.key for row in s.query(ReviewRow)] == ["waits"]
    assert [e.action for e in entries(store, "letters")][-2:] == ["retention", "pipeline retention"]
