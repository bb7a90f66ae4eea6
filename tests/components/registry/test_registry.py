import json
import logging
from pathlib import Path
from types import MappingProxyType

import pytest

from components.contracts.errors import ArtifactError, ForeignVersionError, NotFoundError, UnavailableError
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Payload, Spec
from components.contracts.storage import digest_of, put_bytes
from components.registry import Registry, runs
from components.registry.names import TAGS, model_name
from components.student.card import StudentCard
from tests.students import bag


def spec(name="files"):
    return Spec(name=name, teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), description="uploads")


def card(workload="files", snapshots=("a" * 64, "b" * 64), parent=None):
    return StudentCard(
        workload=workload, task="classification", space="s@1", classes=("x", "y"), features=Factory(factory="f:F"),
        payload=Payload(), **bag(16, 4, 8), variant="base", snapshots=snapshots, teacher="t@1",
        parent=parent, code="0.1.0", precision="int8",
    )  # fmt: skip


VERDICT = {"decision": "promote", "findings": [{"measure": "accuracy", "value": 0.9, "outcome": "pass"}]}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def registry(settings):
    return Registry(settings)


class Desk:
    """Registers students of one workload of its own in the shared registry."""

    def __init__(self, registry, settings, workload):
        self.registry, self.settings, self.spec = registry, settings, spec(workload)
        self.workload = workload

    def register(
        self, data=b"onnx bytes", verdict=VERDICT, registry=None, metrics=MappingProxyType({"accuracy": 0.9}), **of_card
    ):
        digest = digest_of(data)
        uri = f"{self.settings.artifacts}/{self.workload}/students/{digest}/model.onnx"
        put_bytes(uri, data)
        return (registry or self.registry).register(
            self.spec, uri, digest, card(self.workload, **of_card), verdict=verdict, metrics=metrics,
            params={"epochs": 12},
        )  # fmt: skip


@pytest.fixture
def desk(registry, settings, request):
    workload = request.node.name.replace("_", "-").replace("test-", "")[:40].rstrip("-")
    return Desk(registry, settings, workload)


def test_a_registered_student_is_found_by_version_and_alias(desk):
    ref = desk.register()
    assert (ref.version, ref.digest, ref.snapshot, ref.teacher) == ("1", digest_of(b"onnx bytes"), "a" * 64, "t@1")
    assert desk.registry.get(desk.workload, "1") == ref
    assert desk.registry.get(desk.workload, "champion") is None
    desk.registry.set_alias(desk.workload, "champion", "1")
    assert desk.registry.get(desk.workload, "champion") == ref


def test_a_database_is_asked_when_the_registry_is_opened_and_a_server_is_not(settings, monkeypatch):
    asked = []
    monkeypatch.setattr(Registry, "named", lambda self, workload, alias: asked.append((workload, alias)))
    for uri in (settings.mlflow_uri, "http://127.0.0.1:9"):
        Registry(settings.model_copy(update={"tracking_uri": uri})).open("signs")
    assert settings.mlflow_uri.startswith("sqlite") and asked == [("signs", "champion")]


def test_a_version_carries_the_limit_that_its_evaluation_certified(desk):
    assert desk.register().defer_below is None
    ref = desk.register(b"second", metrics={"accuracy": 0.9, "defer_below": 0.62})
    assert ref.defer_below == 0.62 and desk.registry.get(desk.workload, ref.version) == ref


def test_a_version_carries_its_lineage(desk):
    desk.register()
    desk.register(b"second", parent="1")
    desk.registry.set_alias(desk.workload, "champion", "1")
    desk.registry.set_alias(desk.workload, "previous", "1")
    desk.registry.set_alias(desk.workload, "candidate", "2")
    first, second = desk.registry.versions(desk.workload)
    assert (first.version, first.aliases, first.parent) == ("1", ("champion", "previous"), None)
    assert (second.version, second.aliases, second.parent) == ("2", ("candidate",), "1")
    assert second.snapshots == ("a" * 64, "b" * 64)
    assert (second.code, second.variant, second.verdict, second.metrics) == (
        "0.1.0",
        "base",
        VERDICT,
        {"accuracy": 0.9},
    )
    assert second.created_at > 1_700_000_000
    assert desk.registry.info(desk.workload, "candidate") == second


def test_the_run_shows_the_artifact_the_values_and_the_snapshots(desk):
    desk.register()
    client = runs.connect(desk.settings)
    run = client.get_run(desk.registry.info(desk.workload, "1").run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"accuracy": 0.9}
    assert run.data.params == {"epochs": "12"}
    datasets = [(d.dataset.digest, d.tags[0].value) for d in run.inputs.dataset_inputs]
    assert sorted(datasets) == [("a" * 36, "training"), ("b" * 36, "replay")]
    assert run.info.artifact_uri.startswith(f"{desk.settings.artifacts}/{desk.workload}/mlflow/")
    files = sorted(
        f.path for f in client.list_artifacts(run.info.run_id) + client.list_artifacts(run.info.run_id, "student")
    )
    assert files == ["card.json", "student", "student/model.onnx", "verdict.json"]


def test_the_same_digest_again_is_the_same_version_with_the_new_verdict(desk):
    first = desk.register()
    again = desk.register(verdict={"decision": "hold"})
    assert again == first
    assert [v.verdict for v in desk.registry.versions(desk.workload)] == [{"decision": "hold"}]
    assert desk.register(b"other").version == "2"


class Crash(Exception):
    pass


def test_a_crash_between_run_and_version_leaves_nothing_double(desk, settings):
    class Dies(Registry):
        def _ensure_model(self, spec):
            raise Crash

    with pytest.raises(Crash):
        desk.register(registry=Dies(settings))
    assert desk.registry.versions(desk.workload) == []
    assert desk.register().version == "1"
    client = runs.connect(settings)
    experiment = client.get_experiment_by_name(f"cohobate-{desk.workload}").experiment_id
    assert len(client.search_runs([experiment])) == 1


def test_a_run_that_a_crash_left_unfinished_is_not_taken_for_a_whole_one(desk, settings, monkeypatch):
    def dies(*_):
        raise Crash

    monkeypatch.setattr(runs, "_log_snapshots", dies)
    with pytest.raises(Crash):
        desk.register()
    monkeypatch.undo()
    desk.register()
    client = runs.connect(settings)
    run = client.get_run(desk.registry.info(desk.workload, "1").run_id)
    assert (run.info.status, len(run.inputs.dataset_inputs)) == ("FINISHED", 2)


def test_an_artifact_with_another_digest_is_not_registered(desk):
    uri = f"{desk.settings.artifacts}/x.onnx"
    put_bytes(uri, b"changed")
    with pytest.raises(ArtifactError, match="expected"):
        desk.registry.register(
            desk.spec, uri, digest_of(b"original"), card(), verdict=VERDICT, metrics={}, params={}
        )  # fmt: skip
    assert desk.registry.versions(desk.workload) == []


def test_aliases_move_and_go(desk):
    desk.register()
    desk.register(b"second")
    registry, workload = desk.registry, desk.workload
    registry.set_alias(workload, "champion", "1")
    registry.set_alias(workload, "champion", "2")
    registry.set_alias(workload, "champion", "2")
    assert registry.get(workload, "champion").version == "2"
    registry.drop_alias(workload, "champion")
    registry.drop_alias(workload, "champion")
    assert registry.get(workload, "champion") is None


def test_what_does_not_exist(desk):
    registry = desk.registry
    assert registry.get("nobody", "champion") is None
    assert registry.get("nobody", "3") is None
    assert registry.versions("nobody") == []
    registry.drop_alias("nobody", "champion")
    desk.register()
    with pytest.raises(NotFoundError, match=":9"):
        registry.set_alias(desk.workload, "champion", "9")
    with pytest.raises(NotFoundError, match=":candidate"):
        registry.info(desk.workload, "candidate")


def test_workloads_do_not_see_each_other(registry, settings):
    one, two = Desk(registry, settings, "sep-one"), Desk(registry, settings, "sep-two")
    assert one.register().version == two.register().version == "1"
    registry.set_alias("sep-one", "champion", "1")
    assert registry.get("sep-two", "champion") is None
    assert registry.get("sep-one", "1").uri != registry.get("sep-two", "1").uri


def test_a_new_database_is_made_quietly(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert Registry(Settings(home=tmp_path / "new")).versions("files") == []
    assert [r for r in caplog.records if r.levelno < logging.WARNING and r.name.startswith(runs.CHATTY)] == []
    assert (tmp_path / "new" / "mlflow.db").is_file()


def test_a_change_is_told_once_to_each_who_asks(desk, settings):
    other = Registry(settings)
    desk.register()
    assert other.changed() and not other.changed()
    desk.registry.set_alias(desk.workload, "champion", "1")
    assert other.changed() and not other.changed()
    other.set_alias(desk.workload, "candidate", "1")  # its own writes too, by another connection
    assert other.changed() and not other.changed()
    other.close()
    assert other.changed()
    other.close()


def test_where_a_change_cannot_be_told_it_is_always_supposed(tmp_path):
    server, nothing = Registry(Settings(tracking_uri="http://127.0.0.1:9")), Registry(Settings(home=tmp_path))
    assert [r.changed() for r in (server, server, nothing, nothing)] == [True] * 4


def by_hand(desk, tags=None, alias=None):
    """A version as somebody makes one in MLflow's UI; its number."""
    client = runs.connect(desk.settings)
    name = model_name(desk.workload)
    runs.unless_there(lambda: client.create_registered_model(name))
    made = client.create_model_version(name, source="file:///somewhere/model", tags=tags)
    if alias:
        client.set_registered_model_alias(name, alias, made.version)
    return str(made.version)


def test_a_version_made_by_hand_is_not_ours(desk):
    ours = desk.register()
    number = by_hand(desk, alias="champion")
    for name in (number, "champion"):
        with pytest.raises(ForeignVersionError, match=rf"version {number} is not ours \(it has no tag 'uri'\): name a"):
            desk.registry.get(desk.workload, name)
        with pytest.raises(ForeignVersionError):
            desk.registry.info(desk.workload, name)
    assert desk.registry.named(desk.workload, "champion") == number
    found, foreign = desk.registry.sorted_out(desk.workload)
    assert [v.ref for v in found] == [ours] == [v.ref for v in desk.registry.versions(desk.workload)]
    assert [(f.version, f.aliases, f.why) for f in foreign] == [(number, ("champion",), "it has no tag 'uri'")]
    desk.registry.open(desk.workload)


@pytest.mark.parametrize(
    ("tag", "value", "why"),
    [("verdict", "yes", "no JSON object"), ("metrics", "[]", "no JSON object"), ("teacher", None, "no tag 'teacher'")],
)
def test_a_version_whose_tags_were_changed_is_not_ours(desk, tag, value, why):
    number, client = desk.register(tag.encode()).version, runs.connect(desk.settings)
    if value is None:
        client.delete_model_version_tag(model_name(desk.workload), number, tag)
    else:
        client.set_model_version_tag(model_name(desk.workload), number, tag, value)
    with pytest.raises(ForeignVersionError, match=why):
        desk.registry.info(desk.workload, number)


@pytest.mark.parametrize("name", ["0", "-1", "\u0663", "99999999999999999999", "latest", "a b", "", "\0"])
def test_what_is_no_version_is_not_there(desk, name):
    desk.register()
    assert desk.registry.get(desk.workload, name) is None


def test_a_server_that_is_away_does_not_answer(settings, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Registry(settings.model_copy(update={"tracking_uri": "http://user:secret@127.0.0.1:9"}))
    for ask in (away.versions, lambda w: away.get(w, "champion"), lambda w: away.set_alias(w, "champion", "1")):
        with pytest.raises(UnavailableError, match=r"MLflow at http://user:\*\*\*@127.0.0.1:9 does not answer"):
            ask("signs")


def test_what_mlflow_says_of_its_state():
    from mlflow.exceptions import MlflowException, RestException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST, TEMPORARILY_UNAVAILABLE

    away = [
        MlflowException("API request to endpoint /x failed with error code 502 != 200"),
        MlflowException("locked", TEMPORARILY_UNAVAILABLE),
        RestException({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slowly"}),
        ConnectionResetError(),
    ]
    there = [
        RestException({"error_code": "INTERNAL_ERROR", "message": "API request to the store failed"}),
        MlflowException("a fault of its own"),
        MlflowException("no", BAD_REQUEST),
        KeyError("uri"),
    ]
    assert [runs.is_away(e) for e in away + there] == [True] * len(away) + [False] * len(there)


def long_verdict(classes, decision="promote"):
    """A verdict as one of many classes is: a finding and a reason for each."""
    findings = [
        {"measure": f"slice_loss[class number {i}]", "value": 0.01, "limit": "<= 0.05", "outcome": "pass",
         "reason": f"slice_loss[class number {i}] is 0.01, at most 0.04 with 95 % confidence from 200 labels",
         "bound": 0.04, "confidence": 0.95, "n": 200, "more": None}
        for i in range(classes)
    ]  # fmt: skip
    return {"decision": decision, "findings": findings, "reasons": [f["reason"] for f in findings], "forced": False}


@pytest.mark.parametrize("classes", [1, 30, 300, 3_000])
def test_a_verdict_on_any_number_of_classes_is_registered_and_read_whole(desk, classes):
    ref = desk.register(b"%d" % classes, verdict=long_verdict(classes))
    tag = runs.connect(desk.settings).get_model_version(model_name(desk.workload), ref.version).tags["verdict"]
    assert len(tag) <= 5_000, "what the oldest of MLflow's databases hold"
    info = desk.registry.info(desk.workload, ref.version)
    assert info.verdict["decision"] == "promote" and info.verdict["reasons"]
    assert desk.registry.verdict(desk.workload, ref.version) == long_verdict(classes)
    desk.register(b"%d" % classes, verdict=long_verdict(classes, "reject"))
    assert desk.registry.verdict(desk.workload, ref.version)["decision"] == "reject"


def test_an_old_version_with_a_long_verdict_in_its_tag_is_read(desk):
    ref = desk.register()
    client, whole = runs.connect(desk.settings), long_verdict(200)
    client.set_model_version_tag(model_name(desk.workload), ref.version, "verdict", json.dumps(whole))
    assert desk.registry.info(desk.workload, ref.version).verdict == whole
    assert desk.registry.verdict(desk.workload, ref.version) == whole


def test_a_verdict_whose_file_is_gone_is_an_error(desk):
    ref = desk.register(verdict=long_verdict(300))
    client = runs.connect(desk.settings)
    run = client.get_run(desk.registry.info(desk.workload, ref.version).run_id)
    Path(run.info.artifact_uri.removeprefix("file://"), "verdict.json").unlink()
    with pytest.raises(ArtifactError, match=r"verdict\.json: cannot be read"):
        desk.registry.verdict(desk.workload, ref.version)


def test_no_tag_is_longer_than_a_database_holds(desk):
    snapshots = tuple(f"{i:064d}" for i in range(100))
    metrics = {f"a measure with a rather long name {i}": i / 7 for i in range(300)} | {"defer_below": 0.25}
    ref = desk.register(snapshots=snapshots, metrics=metrics)
    tags = runs.connect(desk.settings).get_model_version(model_name(desk.workload), ref.version).tags
    assert max(map(len, tags.values())) <= 5_000
    info = desk.registry.info(desk.workload, ref.version)
    assert info.snapshots == snapshots[:76] and ref.snapshot == snapshots[0] and ref.defer_below == 0.25


def test_every_version_of_ours_has_the_tags_that_tell_it_from_others(desk):
    desk.register()
    tags = runs.connect(desk.settings).get_model_version(model_name(desk.workload), "1").tags
    assert set(TAGS) <= set(tags)


def test_a_snapshot_that_another_run_wrote_at_the_same_moment_is_written_down_again(desk, monkeypatch):
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    log_inputs, lost = MlflowClient.log_inputs, [2]

    def races(self, *args, **named):
        if lost[0]:
            lost[0] -= 1
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.digest", 1000)
        return log_inputs(self, *args, **named)

    monkeypatch.setattr(MlflowClient, "log_inputs", races)
    run = runs.connect(desk.settings).get_run(desk.registry.info(desk.workload, desk.register().version).run_id)
    assert lost == [0] and len(run.inputs.dataset_inputs) == 2
