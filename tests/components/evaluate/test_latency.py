import time

from components.evaluate.latency import CALLS, WARM_UP, latency


class Sleeper:
    """A student that takes two milliseconds, and twenty for every 25th call."""

    def __init__(self, slow=0.02):
        self.calls, self.slow = 0, slow

    def predict(self, payloads):
        assert len(payloads) == 1
        self.calls += 1
        time.sleep(self.slow if self.calls % 25 == 0 else 0.002)
        return payloads


def test_finds_the_usual_and_the_slow_call():
    sleeper = Sleeper()
    found = latency(sleeper, [b"a", b"b"])
    assert sleeper.calls == WARM_UP + CALLS
    assert 2.0 <= found.p50 < 15.0 and found.p50 <= found.p95 <= found.p99 and found.p99 >= 20.0
    assert found.mean > 2.0 and found.ratio is None


def test_the_champion_is_timed_in_the_same_run():
    candidate, champion = Sleeper(slow=0.1), Sleeper()
    found = latency(candidate, [b"a"], champion)
    assert champion.calls == candidate.calls == WARM_UP + CALLS
    assert found.ratio > 1.5


def test_without_inputs_there_is_no_latency():
    assert latency(Sleeper(), []) is None
