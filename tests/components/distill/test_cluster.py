"""The Ray cluster on which workers train: who is a client of it, what it is told, and what it is asked for."""

import contextlib
import os
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings
from components.distill.cluster import STARTS, elsewhere, joined
from components.distill.fit import fit
from tests.integration.work import work

ADDRESS, JOBS = "ray://head:10001", "https://head:8265"


@pytest.mark.parametrize(
    ("workers", "address", "there"),
    [
        (2, ADDRESS, True),
        (0, ADDRESS, False),
        (2, "", False),
        (2, "head:6379", False),
        (2, JOBS, True),
        (0, JOBS, False),
    ],
)
def test_workers_are_a_clients_where_the_address_is_a_client_servers(workers, address, there):
    assert elsewhere(workers, Settings(ray_address=address)) is there


@pytest.fixture
def asked(monkeypatch):
    """What Ray is asked for, instead of which nothing happens."""
    import ray

    calls = []
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # so that it is put back as it was when the test is over
    monkeypatch.setattr(ray, "init", lambda **given: calls.append(given))
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("over"))
    return calls


def test_workers_are_told_where_artifacts_lie_and_no_secret(asked):
    settings = Settings(
        ray_address=ADDRESS, ray_token="t0ken", artifact_root="s3://bucket/root",  # noqa: S106
        database_url="postgresql+psycopg://me:s3cret@host/db", home="/elsewhere",
    )  # fmt: skip
    with joined(settings):
        (call,) = asked
    assert call["address"] == ADDRESS
    assert call["runtime_env"] == {"env_vars": {"COHOBATE_ARTIFACT_ROOT": "s3://bucket/root"}}
    assert asked[-1] == "over"


def test_a_cluster_is_left_where_training_fails_too(asked):
    with pytest.raises(ZeroDivisionError), joined(Settings(ray_address=ADDRESS)):
        _ = 1 / 0
    assert asked[-1] == "over"


def test_a_cluster_that_takes_nobody_in_is_named_with_the_remedy(asked, monkeypatch):
    import ray

    def refuse(**_):
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "init", refuse)
    said = rf"Ray at {ADDRESS} does not answer: .*timeout.*COHOBATE_RAY_ADDRESS"
    with pytest.raises(UnavailableError, match=said), joined(Settings(ray_address=ADDRESS)):
        pytest.fail("nobody is in")


@pytest.mark.parametrize(("set_to", "used"), [(None, "eth7"), ("eth0", "eth0")])
def test_a_worker_is_reached_by_the_address_of_its_node(monkeypatch, set_to, used):
    import psutil
    import ray

    from components.distill.process_group import own_interface

    nodes = [{"NodeID": "a", "NodeManagerAddress": "10.1.2.9"}, {"NodeID": "b", "NodeManagerAddress": "10.1.2.3"}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "b"))
    known = {"lo": ["127.0.0.1", "::1"], "eth6": ["10.1.2.9"], "eth7": ["fe80::1", "10.1.2.3"]}
    found = {name: [SimpleNamespace(address=one) for one in of] for name, of in known.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", set_to or "")  # so that it is put back as it was when the test is over
    if set_to is None:
        monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    own_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == used


@pytest.mark.parametrize(("failures", "taken_in"), [(STARTS - 1, True), (STARTS, False)])
def test_a_client_asks_again_where_the_server_could_not_start_a_process_for_it(asked, monkeypatch, failures, taken_in):
    import ray
    import stamina

    def refuse(**given):
        asked.append(given)
        if len(asked) <= failures:
            raise ConnectionAbortedError("Initialization failure from server")

    monkeypatch.setattr(ray, "init", refuse)
    with stamina.set_testing(True, attempts=STARTS, cap=True):
        if taken_in:
            with joined(Settings(ray_address=ADDRESS)):
                assert len(asked) == STARTS
        else:
            with pytest.raises(UnavailableError, match="Initialization failure"), joined(Settings(ray_address=ADDRESS)):
                pytest.fail("nobody is in")


class Wanted(Exception):
    """In place of training: what would be asked of the cluster."""


@pytest.mark.parametrize(("device", "gpu"), [("cuda", True), ("auto", False), ("cpu", False)])
def test_the_spec_says_how_many_workers_and_whether_each_has_a_gpu(tmp_path, monkeypatch, device, gpu):
    def trainer(loop, *, torch_config, scaling_config, run_config):
        raise Wanted(scaling_config.num_workers, scaling_config.use_gpu)

    monkeypatch.setenv("COHOBATE_RAY_ADDRESS", ADDRESS)
    monkeypatch.setattr("components.distill.fit.joined", lambda settings: contextlib.nullcontext())
    monkeypatch.setattr("ray.train.torch.TorchTrainer", trainer)
    given = work(tmp_path)
    student = msgspec.structs.replace(given.spec.student, device=device)
    given = replace(given, spec=msgspec.structs.replace(given.spec, student=student))
    with pytest.raises(Wanted) as wanted:
        fit(given, "two", f"file://{tmp_path}/ray")
    assert wanted.value.args == (2, gpu)
