"""A look at the versions says what the registry says, from a database and from a tracking server."""

import pytest
from werkzeug.serving import make_server

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Spec
from components.contracts.storage import digest_of, put_bytes
from components.registry import Registry, glance
from components.registry.names import model_name
from tests.components.registry.test_registry import VERDICT, card
from tests.servers import serving
from tests.stores import registering

THRESHOLD = 0.62


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A registry with three versions of ``files``, of which the last was deleted, and one of another workload."""
    settings = registering(Settings(home=tmp_path_factory.mktemp("home")))
    registry = Registry(settings)
    for number, workload in enumerate(("files", "files", "files", "mail")):
        data = f"student {number}".encode()
        uri = f"{settings.artifacts}/{number}.onnx"
        put_bytes(uri, data)
        spec = Spec(name=workload, teacher=Factory(factory="t:T"), features=Factory(factory="f:F"))
        metrics = {"defer_below": THRESHOLD} if number == 1 else {}
        registry.register(spec, uri, digest_of(data), card(workload), verdict=VERDICT, metrics=metrics, params={})
    registry.set_alias("files", "champion", "1")
    registry.set_alias("files", "candidate", "2")
    registry._client.delete_model_version(model_name("files"), "3")
    return settings


@pytest.fixture(scope="module")
def server(settings):
    """The URL of MLflow's own server over that registry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow.server
        from mlflow.server import handlers

        for name in (mlflow.server.BACKEND_STORE_URI_ENV_VAR, mlflow.server.REGISTRY_STORE_URI_ENV_VAR):
            patch.setenv(name, settings.mlflow_uri)
        for name in ("_tracking_store", "_model_registry_store"):
            patch.setattr(handlers, name, None)
        made = make_server("127.0.0.1", 0, mlflow.server.app, threaded=True)
        with serving(made):
            yield f"http://127.0.0.1:{made.server_port}"


def expected(settings, workload):
    return [
        glance.Glimpse(
            version=v.version, aliases=v.aliases, teacher=v.ref.teacher, defer_below=v.ref.defer_below, ours=True
        )
        for v in Registry(settings).versions(workload)
    ]


def test_a_database_says_what_the_registry_says(settings):
    shown = glance.versions(settings, "files")
    assert shown == expected(settings, "files")
    assert [(v.version, v.aliases, v.defer_below) for v in shown] == [
        ("1", ("champion",), None),
        ("2", ("candidate",), THRESHOLD),
    ]
    assert glance.versions(settings, "mail") == expected(settings, "mail") != []
    assert glance.versions(settings, "nobody") == []


@pytest.mark.parametrize("page", [1, 200])
def test_a_server_says_what_the_registry_says(settings, server, page, monkeypatch):
    monkeypatch.setattr(glance, "PAGE", page)
    remote = settings.model_copy(update={"tracking_uri": server})
    assert glance.versions(remote, "files") == expected(settings, "files")
    assert glance.versions(remote, "nobody") == []


def test_no_table_is_no_version(tmp_path):
    assert glance.versions(Settings(home=tmp_path), "files") == []


def test_a_server_that_is_away_is_named():
    with pytest.raises(UnavailableError, match=r"MLflow.*127\.0\.0\.1:9"):
        glance.versions(Settings(tracking_uri="http://127.0.0.1:9"), "files")


def test_a_version_made_by_hand_has_no_teacher(settings):
    made = Registry(settings)._client
    made.create_registered_model(model_name("hand"))
    made.create_model_version(model_name("hand"), source="file:///nothing")
    assert [(v.version, v.teacher, v.ours) for v in glance.versions(settings, "hand")] == [("1", "", False)]


@pytest.mark.parametrize("page", [1, 200])
@pytest.mark.parametrize("remote", [False, True], ids=["database", "server"])
def test_several_workloads_are_looked_at_together(settings, server, page, remote, monkeypatch):
    monkeypatch.setattr(glance, "PAGE", page)
    asked = settings.model_copy(update={"tracking_uri": server}) if remote else settings
    names = ("files", "mail", "nobody")
    assert glance.versions_of(asked, names) == {name: glance.versions(asked, name) for name in names}
    assert glance.versions_of(asked, ()) == {}
