"""A Kubeflow server that does not answer, does not let us in, refuses, or has it already: each a clear error."""

import ssl

import pytest
import trustme

from components.contracts.errors import AccessError, ConfigError, ExistsError, RefusedError, UnavailableError
from components.contracts.settings import Settings
from pipelines.kubeflow_api import connect
from tests.kubeflow import Caller, kubeflow, team


def settings_for(world, **more):
    given = {"kfp_host": world.url, "kfp_namespace": "team", "kfp_token": "s3cret", **more}
    return Settings(**{name: value for name, value in given.items() if value is not None})


def make_experiment(settings, name="files"):
    with connect(settings) as server:
        return server.ask("POST", "experiments", body={"display_name": name, **server.place})


@pytest.fixture
def shared():
    with kubeflow(**team()) as world:
        yield world


def test_the_mode_is_known_before_anything_is_sent(shared):
    with connect(settings_for(shared)) as server:
        assert (server.multi_user, server.namespace, server.pipeline_store) == (True, "team", "database")
    with kubeflow() as single, connect(settings_for(single)) as server:
        assert (server.multi_user, server.namespace) == (False, ""), "one for single users takes no namespace"


def test_without_a_namespace_the_setting_is_named_and_nothing_is_sent(shared):
    with pytest.raises(ConfigError, match=r"COHOBATE_KFP_NAMESPACE is '': .*multi-user"):
        make_experiment(settings_for(shared, kfp_namespace=""))
    assert shared.requests == [("GET", "/apis/v2beta1/healthz")]


@pytest.mark.parametrize("token", [None, "wrong", "elsewhere"])
def test_a_token_that_is_missing_wrong_or_for_another_audience_is_named(shared, token):
    with pytest.raises(AccessError, match=r"refuses us \(token\).*COHOBATE_KFP_TOKEN.*pipelines\.kubeflow\.org") as got:
        make_experiment(settings_for(shared, kfp_token=token))
    assert got.value.cause == "token" and shared.experiments == {}


def test_what_the_user_may_not_is_told_with_user_verb_and_namespace(shared):
    with pytest.raises(AccessError, match=r"\(permission\).*'ada'.*namespace:other, verb:create") as got:
        make_experiment(settings_for(shared, kfp_namespace="other"))
    assert got.value.cause == "permission" and "{" not in str(got.value)


def test_what_exists_already_is_an_error_of_its_own(shared):
    make_experiment(settings_for(shared))
    with pytest.raises(ExistsError, match="refused: Experiment files already exist"):
        make_experiment(settings_for(shared))


def test_a_refusal_is_the_servers_short_sentence(shared):
    with connect(settings_for(shared)) as server, pytest.raises(RefusedError) as got:
        server.ask("POST", "experiments", body={"display_name": "files", "colour": "red", **server.place})
    assert got.value.detail == 'proto: unknown field "colour"' and "{" not in str(got.value)


def test_an_uploads_refusal_is_without_the_stack_of_the_server(shared):
    with connect(settings_for(shared)) as server:
        made = server.ask("POST", "pipelines", body={"name": "p", **server.place})
        with pytest.raises(RefusedError) as got:
            query = {"name": "v", "pipelineid": made["pipeline_id"]}
            server.ask("POST", "pipelines/upload_version", query=query, upload=b"hello: world")
    assert got.value.detail == "Invalid input error: unknown pipeline spec format"


def test_a_tokens_file_is_read_again_when_it_was_renewed(shared, tmp_path):
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    settings = settings_for(shared, kfp_token=None, kfp_token_file=file)
    with connect(settings) as server:
        assert server.experiment("files") is None
        shared.callers = {"renewed": Caller("ada", ("team",))}
        file.write_text("renewed\n")
        assert server.experiment("files") is None


def test_a_token_that_is_renewed_while_a_request_is_under_way_is_tried_once_more(shared, tmp_path):
    file = tmp_path / "token"
    file.write_text("s3cret")

    def renew(handler):
        if handler.headers.get("Authorization") == "Bearer s3cret" and "experiments" in handler.path:
            shared.callers = {"renewed": Caller("ada", ("team",))}
            file.write_text("renewed")
        return False

    shared.before = renew
    make_experiment(settings_for(shared, kfp_token=None, kfp_token_file=file))
    assert len(shared.experiments) == 1


def test_a_token_and_a_tokens_file_are_one_too_many(shared, tmp_path):
    with pytest.raises(ConfigError, match="KFP_TOKEN is set too"):
        make_experiment(settings_for(shared, kfp_token_file=tmp_path / "token"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("localhost").configure_cert(context)
    return path, context


def test_a_certificate_is_trusted_by_the_bundle_that_is_named(authority):
    bundle, context = authority
    with kubeflow(context=context, **team()) as world:
        with pytest.raises(AccessError, match=r"\(authority\): its certificate is not trusted.*COHOBATE_KFP_CAFILE"):
            make_experiment(settings_for(world))
        make_experiment(settings_for(world, kfp_cafile=bundle))
        assert len(world.experiments) == 1


def test_a_bundle_that_is_not_there_is_named(tmp_path):
    settings = Settings(kfp_host="https://localhost:9", kfp_cafile=tmp_path / "none.pem")
    with pytest.raises(ConfigError, match=r"COHOBATE_KFP_CAFILE is '.*none\.pem'"):
        make_experiment(settings)


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_host_that_is_not_there_is_named(host):
    with pytest.raises(UnavailableError, match=f"{host} does not answer: is COHOBATE_KFP_HOST right"):
        make_experiment(Settings(kfp_host=host))


@pytest.mark.parametrize("host", ["", "kubeflow.example", "http://[::1", "http://host:port"])
def test_without_a_host_the_setting_is_named(host):
    with pytest.raises(ConfigError, match="set COHOBATE_KFP_HOST"):
        make_experiment(Settings(kfp_host=host))


def test_a_login_page_before_the_server_is_told(shared):
    def login(handler):
        handler.answer(200, "<html><form action=/dex/auth></form></html>", kind="text/html; charset=utf-8")
        return True

    shared.before = login
    with pytest.raises(AccessError, match=r"a web page answers \(status 200\), a login perhaps"):
        make_experiment(settings_for(shared))


def test_a_redirect_to_a_login_is_told(shared):
    def redirect(handler):
        handler.send_response(302)
        handler.send_header("Location", "/dex/auth")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    shared.before = redirect
    with pytest.raises(AccessError, match=r"a web page answers \(status 302\)"):
        make_experiment(settings_for(shared))


@pytest.mark.parametrize(
    ("status", "said", "kind", "told"),
    [
        (503, "no healthy upstream", "text/plain", "no healthy upstream"),
        (503, "<html>503</html>", "text/html", "Service Unavailable"),
        (404, "404 page not found", "text/plain", "404 page not found"),
        (200, "hello", "text/plain", "hello"),
    ],
)
def test_a_proxy_whose_server_is_away_or_another_server_is_told(shared, status, said, kind, told):
    def away(handler):
        handler.answer(status, said, kind=kind)
        return True

    shared.before = away
    with pytest.raises(UnavailableError, match=rf"does not answer: .*\(status {status}: {told}\)"):
        make_experiment(settings_for(shared))


def test_what_a_request_refers_to_and_is_not_there_is_named(shared):
    with connect(settings_for(shared)) as server:
        assert server.find("GET", "pipelines/names/nothing", server.place) is None
        with pytest.raises(RefusedError, match="refused: p1 not found"):
            server.ask("POST", "pipelines/upload_version", query={"name": "v", "pipelineid": "p1"}, upload=b"")


def test_lists_are_read_to_their_end(shared):
    for n in range(230):
        shared.keep(shared.experiments, "experiment_id", {"display_name": f"e{n}", "namespace": "team"})
    with connect(settings_for(shared)) as server:
        assert len(list(server.each("experiments", "experiments", server.place))) == 230
        assert server.experiment("e229")["display_name"] == "e229"
