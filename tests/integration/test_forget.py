"""An entity is forgotten on real parts, in short: the benchmark of the same name does it with 10,000 and 50 windows."""

import pytest

from tests.bench.forget import KEY, measured

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def home(monkeypatch, tmp_path):
    for name in ("COHOBATE_HOME", "COHOBATE_BROKER_PORT"):
        monkeypatch.setenv(name, "")  # is set to its own, and back afterwards
    return tmp_path


def test_no_trace_is_left_and_the_next_student_passes_the_gate(home):
    found = measured(home, 240, 3)
    assert {"letters.inputs", "letters.labels", "letters.predictions", "letters.truth"} <= found["before"]
    assert any(place.startswith("home/broker/") for place in found["before"])
    assert found["after"] == set(), KEY
    result = found["result"]
    assert [w["rows"] for w in result["windows"]] == [1] and result["left"] == []
    assert [s["version"] for s in result["students"]] == ["1"]
    assert found["parent"] is None and found["snapshots"] <= found["windows"]
    assert found["decision"] == "promote", found["verdict"]
