import time

from components.evaluate.latency import CALLS, WARM_UP, latency_ms


class Sleeper:
    """A student that takes two milliseconds, and twenty for every 25th call."""

    def __init__(self):
        self.calls = 0

    def predict(self, payloads):
        assert len(payloads) == 1
        self.calls += 1
        time.sleep(0.02 if self.calls % 25 == 0 else 0.002)
        return payloads


def test_finds_the_usual_and_the_slow_call():
    sleeper = Sleeper()
    p50, p99 = latency_ms(sleeper, [b"a", b"b"])
    assert sleeper.calls == WARM_UP + CALLS
    assert 2.0 <= p50 < 15.0 and p99 >= 20.0


def test_without_inputs_there_is_no_latency():
    assert latency_ms(Sleeper(), []) is None
