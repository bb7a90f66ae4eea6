"""The double of the Kubeflow server answers as the real one was seen to: a test for each row of what was seen."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml

from tests.kubeflow import FIELDS, Caller, fires, kubeflow, team

PIPELINE = {
    "pipelineInfo": {"name": "hello"},
    "root": {
        "dag": {"tasks": {}},
        "inputDefinitions": {
            "parameters": {
                "who": {"parameterType": "STRING"},
                "times": {"parameterType": "NUMBER_INTEGER", "isOptional": True, "defaultValue": 1},
            }
        },
    },
}
PLATFORM = {"platforms": {"kubernetes": {"deploymentSpec": {}}}}


class Asking:
    """A client that says what it sends."""

    def __init__(self, world, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.Client(base_url=f"{world.url}/apis/v2beta1", headers=headers)

    def post(self, path, body):
        return self.client.post(path, json=body)

    def get(self, path, **query):
        return self.client.get(path, params=query)

    def experiment(self, name="hello", **more):
        return self.post("/experiments", {"display_name": name, **more})

    def run(self, **more):
        body = {"display_name": "r", "pipeline_spec": PIPELINE, "runtime_config": {"parameters": {"who": "you"}}}
        return self.post("/runs", body | more)

    def schedule(self, cron="0 0 3 * * *", **more):
        body = {
            "display_name": "s", "pipeline_spec": PIPELINE, "runtime_config": {"parameters": {"who": "you"}},
            "max_concurrency": "1", "mode": "ENABLE", "trigger": {"cron_schedule": {"cron": cron}},
        }  # fmt: skip
        return self.post("/recurringruns", body | more)

    def upload(self, name="hello", *documents, **query):
        text = yaml.safe_dump_all(documents or [PIPELINE])
        return self.client.post("/pipelines/upload", params={"name": name, **query}, files={"uploadfile": text})

    def upload_version(self, name, pipeline, *documents):
        text = yaml.safe_dump_all(documents or [PIPELINE])
        query = {"name": name, "pipelineid": pipeline}
        return self.client.post("/pipelines/upload_version", params=query, files={"uploadfile": text})


@pytest.fixture
def single():
    with kubeflow() as world:
        asking = Asking(world)
        yield asking
        asking.client.close()


@pytest.fixture
def shared():
    """A server in multi-user mode."""
    with kubeflow(**team()) as world:
        yield world


@pytest.fixture
def ada(shared):
    asking = Asking(shared, "s3cret")
    yield asking
    asking.client.close()


def said(answer):
    return answer.status_code, answer.json()["details"][0]["message"]


def test_its_messages_are_those_of_the_published_api():
    folder = os.environ.get("COHOBATE_TEST_K8S", "")
    if not folder:
        pytest.skip("COHOBATE_TEST_K8S names no folder with kfp-v2beta1.swagger.json")
    definitions = json.loads((Path(folder) / "kfp-v2beta1.swagger.json").read_text())["definitions"]
    for message, names in FIELDS.items():
        assert set(names) == set(definitions[message]["properties"]), message


def test_the_health_needs_no_token_and_tells_the_mode_and_the_store(shared, single):
    anybody = Asking(shared)
    assert anybody.get("/healthz").json() == {"multi_user": True, "pipeline_store": "database"}
    assert single.get("/healthz").json() == {"multi_user": False, "pipeline_store": "database"}
    anybody.client.close()


def test_without_a_namespace_it_is_400_before_the_token_is_looked_at(shared):
    nobody = Asking(shared)
    status, why = said(nobody.experiment())
    assert status == 400 and "empty namespace" in why
    nobody.client.close()


@pytest.mark.parametrize("token", [None, "wrong", "elsewhere"])
def test_without_a_token_of_its_audience_it_is_401_at_the_first_call_that_needs_it(shared, token):
    stranger = Asking(shared, token)
    assert stranger.get("/healthz").status_code == 200
    assert stranger.experiment(namespace="team").status_code == 401
    stranger.client.close()


def test_another_namespace_is_403_and_names_user_verb_and_namespace(shared, ada):
    status, why = said(ada.experiment(namespace="other"))
    assert status == 403
    assert "'ada'" in why and "namespace:other" in why and "verb:create" in why and "pipelines.kubeflow.org" in why


def test_without_a_service_account_it_is_the_servers_own(single, shared, ada):
    assert single.run().json()["service_account"] == "pipeline-runner"
    which = ada.experiment(namespace="team").json()["experiment_id"]
    assert ada.run(experiment_id=which).json()["service_account"] == "default-editor"
    assert ada.run(experiment_id=which, service_account="mine").json()["service_account"] == "mine"


def test_without_an_experiment_it_is_the_default_one(single):
    first, second = single.run().json(), single.run().json()
    assert first["experiment_id"] == second["experiment_id"]
    (known,) = single.get("/experiments").json()["experiments"]
    assert known["display_name"] == "Default"


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"who": "you", "whom": "x"}, "whom"),
        ({}, "who is required"),
        ({"who": 3}, "who requires type STRING"),
        ({"who": "you", "times": "many"}, "times requires type NUMBER_INTEGER"),
        ({"who": "you", "times": True}, "times requires type NUMBER_INTEGER"),
    ],
)
def test_a_parameter_that_is_unknown_missing_or_of_another_type_is_400_and_named(single, parameters, named):
    status, why = said(single.run(runtime_config={"parameters": parameters}))
    assert status == 400 and named in why
    assert single.get("/runs").json()["total_size"] == 0


@pytest.mark.parametrize("more", [{"colour": "red"}, {"runtime_config": {"parameters": {"who": "a"}, "cache": True}}])
def test_an_unknown_field_is_400(single, more):
    status, why = said(single.run(**more))
    assert status == 400 and "unknown field" in why


def test_two_runs_and_two_schedules_of_one_name_are_both_made(single):
    assert single.run().json()["run_id"] != single.run().json()["run_id"]
    assert single.schedule().json()["recurring_run_id"] != single.schedule().json()["recurring_run_id"]
    assert single.get("/recurringruns").json()["total_size"] == 2


def test_a_pipeline_or_version_of_a_name_that_exists_is_409(single):
    which = single.upload().json()["pipeline_id"]
    again = single.upload()
    assert again.status_code == 409 and "already exists" in again.json()["error_message"]
    assert "error_details" in again.json()
    assert single.upload_version("v2", which).status_code == 200
    assert single.upload_version("v2", which).status_code == 409


def test_a_run_by_the_pipeline_alone_takes_its_newest_version(single):
    which = single.upload().json()["pipeline_id"]
    newer = {**PIPELINE, "root": {"dag": {"tasks": {}}}}
    single.upload_version("newer", which, newer)
    of_it = {"display_name": "r", "pipeline_version_reference": {"pipeline_id": which}}
    assert single.post("/runs", of_it).status_code == 200  # `who`, which the older one needs, is none of its inputs


def test_two_documents_are_taken_by_upload_and_by_run(single):
    assert single.upload("two", PIPELINE, PLATFORM).status_code == 200
    both = {"pipeline_spec": PIPELINE, "platform_spec": PLATFORM}
    assert single.run(pipeline_spec=both).status_code == 200


def test_an_error_says_its_short_sentence_in_the_first_detail(single):
    body = single.run(runtime_config={}).json()
    assert set(body) >= {"code", "message", "details"} and body["code"] == 3
    assert len(body["details"][0]["message"]) < len(body["message"])


NIGHT = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "next_two"),
    [
        ("0 0 3 * * *", ["2026-11-30T03:00:00", "2026-12-01T03:00:00"]),
        ("0 3 * * *", ["2026-11-29T12:03:00", "2026-11-29T13:03:00"]),  # second 0 of minute 3 of every hour
        ("@daily", ["2026-11-30T00:00:00", "2026-12-01T00:00:00"]),
        ("0 30 4 ? * MON-FRI", ["2026-11-30T04:30:00", "2026-12-01T04:30:00"]),
        ("*/90 * * * * *", ["2026-11-29T12:01:00", "2026-11-29T12:02:00"]),
    ],
)
def test_cron_has_seconds_and_five_fields_begin_with_them(single, cron, next_two):
    assert single.schedule(cron).status_code == 200
    assert [when.isoformat()[:19] for when in fires(cron, NIGHT, 2)] == next_two


@pytest.mark.parametrize("cron", ["@every 1h", "0 0 3 31 2 *"])
def test_an_interval_and_a_day_that_never_comes_are_taken(single, cron):
    assert single.schedule(cron).status_code == 200


@pytest.mark.parametrize(
    "cron", ["0 0 3 * * 7", "0 0 3 L * *", "0 0 3 * * * 2027", "TZ=UTC 0 0 3 * * *", "0 3 * *", "soon", "0 0 25 * * *"]
)
def test_other_cron_is_400(single, cron):
    assert single.schedule(cron).status_code == 400
    assert single.get("/recurringruns").json() == {"recurringRuns": [], "total_size": 0}


@pytest.mark.parametrize("most", ["0", "11", ""])
def test_the_concurrency_is_1_to_10(single, most):
    assert single.schedule(max_concurrency=most).status_code == 400
    assert single.schedule(max_concurrency="10").status_code == 200


def test_a_schedule_keeps_the_pipeline_that_it_was_made_with(single):
    which = single.upload().json()["pipeline_id"]
    first = single.upload_version("one", which).json()["pipeline_version_id"]
    reference = {"pipeline_id": which, "pipeline_version_id": first}
    made = single.schedule(pipeline_spec=None, pipeline_version_reference=reference).json()
    single.upload_version("two", which)
    kept = single.get(f"/recurringruns/{made['recurring_run_id']}").json()
    assert kept["pipeline_version_reference"] == reference


def test_a_pipeline_with_versions_is_deleted_only_with_them(single):
    which = single.upload().json()["pipeline_id"]
    assert single.client.delete(f"/pipelines/{which}").status_code == 400
    (version,) = single.get(f"/pipelines/{which}/versions").json()["pipeline_versions"]
    single.client.delete(f"/pipelines/{which}/versions/{version['pipeline_version_id']}")
    assert single.client.delete(f"/pipelines/{which}").status_code == 200


def test_objects_of_another_namespace_are_neither_listed_nor_given(shared, ada):
    shared.callers["theirs"] = Caller("bob", ("other",))
    bob = Asking(shared, "theirs")
    which = ada.experiment(namespace="team").json()["experiment_id"]
    ada.schedule(experiment_id=which)
    assert bob.get("/experiments", namespace="other").json()["total_size"] == 0
    assert bob.get("/recurringruns", experiment_id=which).status_code == 403
    bob.client.close()
