"""What one screen says, drawn from reports as ``cohobate status --json`` prints them."""

import io

import pytest
from rich.console import Console

from infra.status import render


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
