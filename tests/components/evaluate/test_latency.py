import pytest

from components.evaluate.latency import CALLS, WARM_UP, latency
from tests.clock import Time


@pytest.fixture
def time(monkeypatch):
    made = Time(0.0)
    monkeypatch.setattr("components.evaluate.latency.time", made)
    return made


class Sleeper:
    """A student that takes two milliseconds, and twenty for every 25th call."""

    def __init__(self, time, slow=0.02):
        self.calls, self.time, self.slow = 0, time, slow

    def predict(self, payloads):
        assert len(payloads) == 1
        self.calls += 1
        self.time.sleep(self.slow if self.calls % 25 == 0 else 0.002)
        return payloads


def test_finds_the_usual_and_the_slow_call(time):
    sleeper = Sleeper(time)
    found = latency(sleeper, [b"a", b"b"])
    assert sleeper.calls == WARM_UP + CALLS
    assert (found.p50, found.p95, found.p99) == pytest.approx((2.0, 2.0, 20.0))
    assert found.mean == pytest.approx(2.0 + 18.0 / 25) and found.ratio is None


def test_the_champion_is_timed_in_the_same_run(time):
    candidate, champion = Sleeper(time, slow=0.1), Sleeper(time)
    found = latency(candidate, [b"a"], champion)
    assert champion.calls == candidate.calls == WARM_UP + CALLS
    assert found.ratio == pytest.approx(5.0)


def test_without_inputs_there_is_no_latency():
    assert latency(Sleeper(None), []) is None
