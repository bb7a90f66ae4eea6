"""What one screen says, drawn from reports as ``cohobate status --json`` prints them."""

import io
import time

import pytest
from rich.console import Console

from components.contracts.settings import Settings
from components.control.intent import Intent
from components.control.store import ControlStore
from components.registry import runs
from infra.status import read, render


def screen(**intent):
    """The screen of a platform with one workload and this intent."""
    serving = {"revision": 3, "champion": None, "candidate": None, "previous": None, "weight": 0.0, "shadow": False}
    empty = {"models": [], "replicas": [], "rollout": None, "gauges": {}, "runs": [], "alarms": []}
    workload = empty | {"intent": serving | intent, "windows": {"count": 0, "labels": 0}}
    report = {"home": "h", "up": True, "gateway": "g", "kafka": "k", "processes": {}, "metrics": {}}
    console = Console(file=io.StringIO(), width=120)
    render(report | {"workloads": {"signs": workload}}, console)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("intent", "says"),
    [
        ({}, "no champion yet, 0 replicas"),
        ({"champion": "7"}, "champion v7, 0 replicas"),
        ({"champion": "7", "candidate": "8", "weight": 0.05}, "champion v7, candidate v8 at 5%, 0 replicas"),
        ({"champion": "7", "candidate": "8", "shadow": True}, "champion v7, candidate v8 at 0% (shadow)"),
    ],
)
def test_the_screen_says_who_serves(intent, says):
    shown = screen(**intent)
    assert says in shown and "None" not in shown


def test_a_model_made_by_hand_is_shown_as_not_ours_and_no_age_is_negative(tmp_path):
    settings = Settings(home=tmp_path)
    store = ControlStore(settings.control_url)
    store.migrate()
    store.put_intent("signs", 0, Intent())
    ahead = time.time() + 3600.0  # another machine's clock
    store.clock = lambda: ahead
    store.acknowledge("signs", "r1", 1, {})
    store.put_gauge("signs", "labeler", {"lag": 0})
    store.raise_alarm("signs", "drift", 7, {})
    store.close()
    client = runs.connect(settings)
    client.create_registered_model("cohobate-signs")
    client.create_model_version("cohobate-signs", source="file:///somewhere/model")
    client.set_registered_model_alias("cohobate-signs", "champion", "1")
    report = read(settings)
    workload = report["workloads"]["signs"]
    assert (workload["models"], [m["version"] for m in workload["not_ours"]]) == ([], ["1"])
    ages = [x["age_seconds"] for x in (*workload["replicas"], *workload["gauges"].values(), *workload["alarms"])]
    assert ages == [0.0, 0.0, 0.0]
    console = Console(file=io.StringIO(), width=120)
    render(report, console)
    assert "v1 champion (not ours)" in console.file.getvalue()
