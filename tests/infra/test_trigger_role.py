"""The trigger's process, where its updates run on Kubeflow."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from infra.worker import trigger
from tests.ports import free_port
from tests.stores import migrated

TICKETS = Path(__file__).parents[1] / "workloads" / "tickets" / "tickets.yaml"


@pytest.fixture
def play(tmp_path):
    """The role of a trigger that is to stop when it has started; says whether it got ready."""

    def run(**given):
        settings = Settings(home=tmp_path, broker_port=free_port(), updates="kfp", **given)
        migrated(settings.control_url).close()
        stop, ready = threading.Event(), threading.Event()
        stop.set()
        trigger(load_spec(TICKETS), settings, stop, SimpleNamespace(health=SimpleNamespace(ready=ready.set)))
        return ready.is_set()

    return run


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"kfp_spec": "/specs/{workload}.yaml"}, "COHOBATE_KFP_HOST is '': COHOBATE_UPDATES=kfp runs updates there"),
        ({"kfp_host": "http://kfp"}, "COHOBATE_KFP_SPEC"),
        ({"kfp_host": "http://kfp", "kfp_installation": Path("/none.yaml")}, "COHOBATE_KFP_INSTALLATION"),
    ],
)
def test_what_kubeflow_needs_is_checked_when_the_trigger_starts(play, given, named):
    with pytest.raises(ConfigError, match=named):
        play(**given)


def test_it_gets_ready_with_what_kubeflow_needs_and_starts_no_fork_server(play, tmp_path):
    assert play(kfp_host="http://kfp", kfp_spec="/specs/{workload}.yaml")
    assert not (tmp_path / "fork-server.json").exists()
