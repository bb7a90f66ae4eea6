import threading

import pytest

from components.contracts.errors import ConfigError
from components.teachers.rate import SHORTEST_WAIT_SECONDS, STEPS, Rate


def most_in_any_window(times, seconds):
    return max(sum(t <= other < t + seconds for other in times) for t in times)


def test_in_no_window_is_more_taken_than_allowed(time, monkeypatch):
    rate, times = Rate("r", 4, window_seconds=1), []
    hit = rate._limiter.hit

    def noted(item, cost):
        taken = hit(item, cost=cost)
        times.extend([time.now] * taken)
        return taken

    monkeypatch.setattr(rate._limiter, "hit", noted)

    def take():
        for _ in range(3):
            rate.take(1)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 9 and most_in_any_window(times, 1.0) == 4
    assert 2.0 <= time.slept < 2.0 + 3 * SHORTEST_WAIT_SECONDS and rate.waited_seconds == time.slept


def test_costs_weigh(time):
    rate = Rate("r", 100, window_seconds=1)
    rate.take(90)
    rate.take(10)
    assert time.slept == 0.0
    rate.take(10)
    assert time.slept >= 1.0


def test_large_amounts_are_counted_in_steps_rounded_up(time):
    rate = Rate("r", 1_000_000, window_seconds=1)
    assert rate.step == 1_000_000 // STEPS
    for _ in range(STEPS):
        rate.take(1)
    assert time.slept == 0.0
    rate.take(1)
    assert time.slept >= 1.0, "a thousandth was booked for each"


def test_what_was_used_beyond_the_estimate_is_owed(time):
    rate = Rate("r", 100, window_seconds=1)
    rate.take(10)
    rate.owe(70)
    rate.owe(-5)
    rate.owe(1_000)
    assert time.slept == 0.0
    rate.take(20)
    assert time.slept >= 1.0


def test_what_never_fits_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"tokens_per_minute is 100: one request takes up to 101"):
        Rate("tokens_per_minute", 100).take(101)


def test_no_limit_waits_for_nothing():
    rate = Rate("r", None)
    for _ in range(10_000):
        rate.take(10**9)
    rate.owe(10**9)
    assert rate.waited_seconds == 0.0
