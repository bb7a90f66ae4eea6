"""The remote order client against the real application: what the CLI and the pipelines see of the admin API."""

import json
import threading
import time

import httpx
import pytest
from typer.testing import CliRunner

from components.contracts.errors import AccessError, NotFoundError, OrderError
from components.contracts.settings import Settings
from components.control.database import StaleRevisionError
from components.control.order_client import Order
from components.registry import step
from infra.cli import app
from serving.admin.app import create_app
from serving.admin.server import served
from serving.cli import app as cli
from tests.serving.admin.conftest import Registry, W


def order(**changes):
    return Order(**{"workload": W, "verb": "abort", "reason": "why", **changes})


def test_both_order_clients_do_the_same(order_client, control, answering, ledger):
    done = order_client("operator").place(order(key="K"))
    assert (done.order, done.ok, done.outcome) == ("K", True, "done")
    answering.ok, answering.outcome = False, "cannot abort"
    refused = order_client("operator").place(order(verb="resume"))
    assert (refused.ok, refused.outcome) == (False, "cannot abort")
    assert [o["verb"] for o in order_client("viewer").orders(W)] == ["abort", "resume"]
    assert order_client("viewer").rollouts(W) == []
    with pytest.raises(StaleRevisionError, match="at revision 0, not 7"):
        order_client("operator").place(order(revision=7))
    with pytest.raises(AccessError, match="this needs operator"):
        order_client("viewer").place(order())
    with pytest.raises(NotFoundError):
        order_client("operator").place(order(workload="none"))
    with pytest.raises(OrderError):
        order_client("operator").place(order(verb="explode"))


@pytest.fixture
def platform(settings, control, answering, tokens, monkeypatch, tmp_path):
    """The API as its own server, and an environment that names it and its token."""
    free = settings.model_copy(update={"admin_port": 0})
    with served(create_app(free, store=control, registry=Registry()), free) as url:
        token = tmp_path / "token"
        token.write_text(tokens["operator"] + "\n")
        monkeypatch.setenv("COHOBATE_ADMIN_URL", url)
        monkeypatch.setenv("COHOBATE_ADMIN_TOKEN_FILE", str(token))
        monkeypatch.setenv("COHOBATE_ACTOR", "somebody-else")
        monkeypatch.setenv("COHOBATE_DATABASE_URL", "sqlite:////nowhere/at/all.db")
        yield json.loads((settings.home / "admin.json").read_bytes())
    assert not (settings.home / "admin.json").exists()


def test_the_command_line_goes_to_the_api_in_its_caller_s_name(platform, ledger):
    done = CliRunner().invoke(cli, ["abort", "--reason", "odd", "--workload", W, "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["outcome"] == "done"
    assert ledger()[-1][1:3] == ("operator-eve", "ordered abort")
    back = CliRunner().invoke(app, ["rollback", "--reason", "bad", "--spec", f"workload:{W}", "--json"])
    assert back.exit_code == 0 and ledger()[-1][1:3] == ("operator-eve", "ordered rollback")
    listed = CliRunner().invoke(cli, ["orders", "--workload", W, "--json"])
    assert [row["actor"] for row in json.loads(listed.stdout)] == ["operator-eve", "operator-eve"]


def test_a_pipeline_s_step_goes_to_the_api_in_its_caller_s_name(platform, answering, ledger):
    assert step.order.__wrapped__(f"workload:{W}", "rollback", "bad", "run-1", {"to": "previous"}) == "done"
    assert ledger()[-1][1:3] == ("operator-eve", "ordered rollback")
    answering.ok, answering.outcome = False, "champion already"
    with pytest.raises(OrderError, match="refused: champion already"):
        step.order.__wrapped__(f"workload:{W}", "rollback", "bad", "run-2", {"to": "previous"})


def test_many_who_wait_leave_room_for_others(settings, control, tokens):
    """Orders that nobody takes wait without holding a thread: 60 of them, and the API still answers."""
    free = Settings(home=settings.home, admin_port=0)
    with served(create_app(free, store=control, registry=Registry()), free) as url:
        headers = {"Authorization": f"Bearer {tokens['operator']}"}

        def wait():
            body = {"reason": "r", "wait_seconds": 25}
            httpx.post(f"{url}/v1/workloads/{W}/rollout/abort", json=body, headers=headers, timeout=90)

        waiting = [threading.Thread(target=wait) for _ in range(60)]
        for thread in waiting:
            thread.start()
        while len(control.open_orders(W)) < 60:
            time.sleep(0.02)
        assert httpx.get(f"{url}/v1/me", headers=headers, timeout=90).status_code == 200
        for order in control.open_orders(W):
            control.finish_order(order.id, True, "done")
        for thread in waiting:
            thread.join()
