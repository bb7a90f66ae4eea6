"""A workload's pipelines on a Kubeflow server: installed once, taken away whole, and rolled back by one click."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from components.contracts.errors import AccessError, ConfigError, NotFoundError, PipelineError, RefusedError
from components.contracts.spec import load_spec
from components.control.links import rollback_link
from pipelines.cron import timing
from pipelines.install import install, link, newest_version, packages_of, uninstall
from pipelines.kubeflow_api import connect
from pipelines.parameters import PARAMETERS, place_in_image
from pipelines.schedules import put_schedule, unschedule
from tests.kubeflow import Caller, kubeflow


def put_all(settings, spec):
    with connect(settings) as server:
        return install(server, spec, settings)


def take_all(settings, spec):
    with connect(settings) as server:
        return uninstall(server, spec, settings)


def open_parameters(document):
    inputs = document["root"]["inputDefinitions"]["parameters"]
    return {name for name, one in inputs.items() if "defaultValue" not in one}


def test_all_pipelines_are_on_the_server_with_defaults_for_all_that_can_have_one(shared, remote, spec):
    done = put_all(remote, spec)
    assert {p["name"] for p in shared.pipelines.values()} == {f"tickets-{name}" for name in PARAMETERS}
    assert {p["namespace"] for p in shared.pipelines.values()} == {"team"}
    (experiment,) = shared.experiments.values()
    assert experiment["display_name"] == "tickets" and experiment["experiment_id"] == done.experiment_id
    documents = {v["pipeline_spec"]["pipelineInfo"]["name"]: v["pipeline_spec"] for v in shared.versions.values()}
    assert {name: open_parameters(one) for name, one in documents.items()} == {
        "tickets-bootstrap": {"history_uri"}, "tickets-continual": set(), "tickets-data-free": set(),
        "tickets-promote": {"version"}, "tickets-rollback": set(),
    }  # fmt: skip
    inputs = documents["tickets-bootstrap"]["root"]["inputDefinitions"]["parameters"]
    assert inputs["spec"]["defaultValue"] == "/specs/tickets.yaml"
    assert (inputs["first_variant"]["defaultValue"], inputs["second_variant"]["defaultValue"]) == ("small", "wide")
    assert all(one.new for one in done.pipelines)


def test_what_a_version_runs_needs_nothing_but_start(shared, remote, spec):
    """A run by the version alone, as the UI starts it."""
    done = {one.name: one for one in put_all(remote, spec).pipelines}
    which = done["tickets-rollback"]
    reference = {"pipeline_id": which.pipeline_id, "pipeline_version_id": which.version_id}
    (experiment,) = shared.experiments
    with connect(remote) as server:
        body = {"display_name": "r", "experiment_id": experiment, "pipeline_version_reference": reference}
        server.ask("POST", "runs", body=body)
    assert len(shared.runs) == 1


def test_installed_again_nothing_is_asked_for_that_changes_anything(shared, remote, spec):
    first = put_all(remote, spec)
    before = len(shared.changes)
    again = put_all(remote, spec)
    assert len(shared.changes) == before > 0
    assert [p.version_id for p in again.pipelines] == [p.version_id for p in first.pipelines]
    assert not any(p.new for p in again.pipelines)


@pytest.mark.parametrize(
    "changed", [{"kfp_image": "here/cohobate:2"}, {"kfp_spec": "/other/{workload}.yaml"}, {"kfp_env": '{"A": "b"}'}]
)
def test_with_another_image_spec_or_environment_each_has_one_new_version_and_keeps_the_old(
    shared, remote, spec, changed
):
    first = put_all(remote, spec)
    second = put_all(remote.model_copy(update=changed), spec)
    assert len(shared.versions) == 2 * len(PARAMETERS) and len(shared.pipelines) == len(PARAMETERS)
    assert {p.version for p in first.pipelines}.isdisjoint(p.version for p in second.pipelines)
    back = put_all(remote, spec)
    assert [p.version_id for p in back.pipelines] == [p.version_id for p in first.pipelines]
    assert len(shared.versions) == 2 * len(PARAMETERS)


def test_a_version_is_named_by_the_package_and_its_content(remote, spec):
    packages = packages_of(spec, remote)
    names = {package.version for package in packages.values()}
    assert len(names) == len(PARAMETERS) and all(name.startswith("0.1.0-") and len(name) == 18 for name in names)
    assert {p.version for p in packages_of(spec, remote).values()} == names


def test_promote_offers_the_newest_registered_version_that_is_ours(remote, spec, monkeypatch):
    seen = [SimpleNamespace(version=v, ours=ours) for v, ours in (("1", True), ("2", True), ("3", False))]
    monkeypatch.setattr("components.registry.glance.versions", lambda *_: seen)
    asked = remote.model_copy(update={"tracking_uri": "http://mlflow"})
    assert newest_version(asked, "tickets") == "2"
    assert newest_version(remote, "tickets") == "", "no registry is made by asking for one"
    document = packages_of(spec, remote, offered="2")["promote"].documents[0]
    assert document["root"]["inputDefinitions"]["parameters"]["version"]["defaultValue"] == "2"


def test_without_a_place_of_the_spec_in_the_image_nothing_is_sent(shared, remote, spec):
    with pytest.raises(ConfigError, match=r"COHOBATE_KFP_SPEC is '': .*/specs/\{workload\}\.yaml"):
        put_all(remote.model_copy(update={"kfp_spec": ""}), spec)
    assert shared.changes == []
    assert place_in_image(spec, remote, "/given.yaml") == "/given.yaml"


def test_an_environment_that_is_no_object_of_texts_is_named(remote, spec):
    with pytest.raises(ConfigError, match=r"COHOBATE_KFP_ENV is .*JSON object of texts"):
        put_all(remote.model_copy(update={"kfp_env": "A=b"}), spec)


def test_an_older_server_is_told_before_anything_is_sent(shared, remote, spec):
    shared.pipeline_store = None
    with pytest.raises(RefusedError, match=r"an older server: upgrade it to 2\.17"):
        put_all(remote, spec)
    assert shared.changes == []


def test_what_was_made_is_taken_away_again_where_the_rest_is_refused(shared, remote, spec):
    def full(handler):
        if "upload_version" in handler.path and len(shared.versions) == 2:
            handler.answer(500, {"error_message": "no space left on device"})
            return True
        return False

    shared.before = full
    with pytest.raises(RefusedError, match="no space left on device"):
        put_all(remote, spec)
    assert (shared.pipelines, shared.versions, shared.experiments) == ({}, {}, {})


def test_what_was_there_before_stays_where_the_rest_is_refused(shared, remote, spec):
    first = put_all(remote, spec)

    def full(handler):
        if "upload_version" in handler.path and len(shared.versions) == len(PARAMETERS) + 1:
            handler.answer(500, {"error_message": "no space left on device"})
            return True
        return False

    shared.before = full
    with pytest.raises(RefusedError):
        put_all(remote.model_copy(update={"kfp_image": "here/cohobate:2"}), spec)
    assert set(shared.versions) == {p.version_id for p in first.pipelines} and len(shared.experiments) == 1


def test_a_token_that_ends_midway_is_named_with_what_is_left(shared, remote, spec):
    def end(handler):
        if "upload_version" in handler.path and len(shared.versions) == 2:
            shared.callers = {"renewed": Caller("ada", ("team",))}
        return False

    shared.before = end
    with pytest.raises(PipelineError, match=r"install of tickets: .*\(token\).*pipeline tickets-data-free.* could not"):
        put_all(remote, spec)
    shared.before = None
    renewed = remote.model_copy(update={"kfp_token": type(remote.kfp_token)("renewed")})
    done = put_all(renewed, spec)
    assert len(shared.versions) == len(PARAMETERS) == len(done.pipelines)
    assert sum(p.new for p in done.pipelines) == 3


def test_many_callers_at_once_install_one_of_each(shared, remote, spec):
    threads = [threading.Thread(target=put_all, args=(remote, spec)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(shared.pipelines), len(shared.versions), len(shared.experiments)) == (5, 5, 1)


def test_uninstall_leaves_nothing_of_it(shared, remote, spec):
    put_all(remote, spec)
    put_all(remote.model_copy(update={"kfp_image": "here/cohobate:2"}), spec)
    gone = take_all(remote, spec)
    assert (shared.pipelines, shared.versions, shared.experiments) == ({}, {}, {})
    assert (len(gone.pipelines), gone.versions, gone.experiment) == (5, 10, True)
    assert take_all(remote, spec).pipelines == ()


def test_uninstall_leaves_what_others_made(shared, remote, spec):
    theirs = {"name": "tickets-rollback", "display_name": "tickets-rollback", "namespace": "team"}
    kept = shared.keep(shared.pipelines, "pipeline_id", theirs)["pipeline_id"]
    put_all(remote, spec)
    (promote,) = [p["pipeline_id"] for p in shared.pipelines.values() if p["name"] == "tickets-promote"]
    by_hand = {"name": "mine", "display_name": "mine", "pipeline_id": promote, "pipeline_spec": {}}
    version = shared.keep(shared.versions, "pipeline_version_id", by_hand)["pipeline_version_id"]
    (experiment,) = shared.experiments
    shared.keep(shared.runs, "run_id", {"experiment_id": experiment, "display_name": "r"})
    gone = take_all(remote, spec)
    assert set(shared.pipelines) == {kept, promote} and set(shared.versions) == {version}
    assert (
        set(gone.pipelines) == {"tickets-bootstrap", "tickets-continual", "tickets-data-free"} and not gone.experiment
    )
    assert set(shared.experiments) == {experiment}, "its runs are what happened"


def test_a_schedule_keeps_what_it_runs_from_being_taken_away(shared, remote, spec):
    done = {p.name: p for p in put_all(remote, spec).pipelines}
    when = timing("@daily", datetime.now(UTC))
    with connect(remote) as server:
        put_schedule(
            server, done["tickets-continual"], when, {}, workload="tickets", reason="r", settings=remote
        )  # fmt: skip
    (job,) = shared.jobs.values()
    by_hand = shared.keep(shared.jobs, "recurring_run_id", {**job, "display_name": "by hand", "experiment_id": "other"})
    with pytest.raises(PipelineError, match="schedules by hand, tickets-continual would lose what they run"):
        take_all(remote, spec)
    assert len(shared.pipelines) == 5
    with connect(remote) as server:
        unschedule(server, "tickets", "continual")
    del shared.jobs[by_hand["recurring_run_id"]]
    assert len(take_all(remote, spec).pipelines) == 5


def test_install_says_which_schedules_run_another_version(shared, remote, spec):
    done = {p.name: p for p in put_all(remote, spec).pipelines}
    when = timing("@daily", datetime.now(UTC))
    with connect(remote) as server:
        for name in ("continual", "rollback"):
            put_schedule(
                server, done[f"tickets-{name}"], when, {}, workload="tickets", reason="r", settings=remote
            )  # fmt: skip
    assert put_all(remote, spec).outdated == ()
    newer = put_all(remote.model_copy(update={"kfp_image": "here/cohobate:2"}), spec)
    assert newer.outdated == ("continual", "rollback")
    assert "the schedule of continual runs another version" in newer.text


def test_the_link_opens_a_new_run_with_pipeline_version_and_experiment(shared, remote, spec, store):
    ui = remote.model_copy(update={"kfp_ui": "https://kubeflow.example/pipeline"})
    done = put_all(ui, spec)
    (which,) = [p for p in done.pipelines if p.name == "tickets-rollback"]
    split = urlsplit(done.link)
    assert (split.scheme, split.netloc, split.path) == ("https", "kubeflow.example", "/pipeline")
    page, _, query = split.fragment.partition("?")
    assert page == "/runs/new"
    assert parse_qs(query) == {
        "pipelineId": [which.pipeline_id], "pipelineVersionId": [which.version_id],
        "experimentId": [done.experiment_id],
    }  # fmt: skip
    assert done.noted and rollback_link(store, "tickets") == done.link


def test_behind_the_dashboard_the_link_names_the_namespace(shared, remote, spec):
    ui = remote.model_copy(update={"kfp_ui": "https://kubeflow.example/_/pipeline/"})
    assert put_all(ui, spec).link.startswith("https://kubeflow.example/_/pipeline/?ns=team#/runs/new?pipelineId=")
    named = remote.model_copy(update={"kfp_ui": "https://kubeflow.example/_/pipeline/?ns=mine"})
    assert put_all(named, spec).link.startswith("https://kubeflow.example/_/pipeline/?ns=mine#/runs/new?")
    with kubeflow() as single:
        alone = remote.model_copy(update={"kfp_host": single.url, "kfp_ui": "https://kubeflow.example/_/pipeline/"})
        assert "?ns=" not in put_all(alone, spec).link


def test_the_link_is_to_the_newest_version_that_was_installed(shared, remote, spec, store):
    with connect(remote) as server, pytest.raises(NotFoundError, match=r"no pipeline 'tickets-rollback': .* install"):
        link(server, "rollback", spec, remote)
    now = iter(range(1_800_000_000, 1_800_001_000))
    shared.clock = lambda: next(now)
    put_all(remote, spec)
    newer = put_all(remote.model_copy(update={"kfp_image": "here/cohobate:2"}), spec)
    with connect(remote) as server:
        assert link(server, "rollback", spec, remote) == newer.link == rollback_link(store, "tickets")
        assert "pipelineId" in link(server, "promote", spec, remote)
    assert rollback_link(store, "tickets") == newer.link, "promote's is another"
    take_all(remote, spec)
    assert rollback_link(store, "tickets") == "" and store.gauges("tickets") == {}


def test_the_link_is_also_to_what_was_applied_as_kubernetes_objects(shared, remote, spec):
    """No tags, a name as objects have, and no experiment."""
    package = packages_of(spec, remote)["rollback"]
    row = {"name": package.name, "display_name": package.name, "namespace": "team"}
    which = shared.keep(shared.pipelines, "pipeline_id", row)["pipeline_id"]
    by_hand = {"name": "x", "display_name": "by hand", "pipeline_id": which, "pipeline_spec": {}}
    named = {**by_hand, "name": f"{package.name}-{package.version}", "display_name": package.version}
    version = shared.keep(shared.versions, "pipeline_version_id", named)["pipeline_version_id"]
    shared.keep(shared.versions, "pipeline_version_id", by_hand)
    with connect(remote) as server:
        found = parse_qs(link(server, "rollback", spec, remote).partition("?")[2])
    (experiment,) = shared.experiments
    assert found == {"pipelineId": [which], "pipelineVersionId": [version], "experimentId": [experiment]}


def test_no_control_database_is_made_to_note_a_link(shared, remote, spec):
    assert not put_all(remote, spec).noted
    assert not (remote.home / "control.db").exists()


def test_another_namespace_than_the_users_is_not_half_installed(shared, remote, spec):
    with pytest.raises(AccessError, match="permission"):
        put_all(remote.model_copy(update={"kfp_namespace": "other"}), spec)
    assert (shared.pipelines, shared.versions, shared.experiments) == ({}, {}, {})


def test_where_steps_reach_the_registry_an_installed_pipeline_names_the_workload_alone(shared, remote, spec):
    from components.contracts.spec.bundles import keep

    version = load_spec(keep(Path(spec.source), "tickets", remote).reference, remote)
    reached = remote.model_copy(update={"artifact_root": "s3://bucket/root", "kfp_spec": ""})
    for name, package in packages_of(version, reached).items():
        declared = package.documents[0]["root"]["inputDefinitions"]["parameters"]["spec"]
        assert (declared["defaultValue"], declared["isOptional"]) == ("workload:tickets", True), name
    with pytest.raises(ConfigError, match="COHOBATE_KFP_SPEC"):
        packages_of(version, remote.model_copy(update={"kfp_spec": ""}))
