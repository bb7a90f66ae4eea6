import threading
import time

import pytest

from components.contracts.errors import ConfigError
from components.teachers.rate import STEPS, Rate


def most_in_any_window(times, seconds):
    return max(sum(t <= other < t + seconds for other in times) for t in times)


def test_in_no_window_is_more_taken_than_allowed():
    rate, times, lock = Rate("r", 4, window_seconds=1), [], threading.Lock()

    def take():
        for _ in range(3):
            rate.take(1)
            with lock:
                times.append(time.time())

    threads = [threading.Thread(target=take) for _ in range(3)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 9 and most_in_any_window(times, 0.97) <= 4  # a taker's clock is read after the limit's
    assert time.monotonic() - started >= 2.0 and rate.waited_seconds > 1.0


def test_costs_weigh():
    rate = Rate("r", 100, window_seconds=1)
    rate.take(90)
    started = time.monotonic()
    rate.take(10)
    assert time.monotonic() - started < 0.5
    rate.take(10)
    assert time.monotonic() - started > 0.5


def test_large_amounts_are_counted_in_steps_rounded_up():
    rate = Rate("r", 1_000_000, window_seconds=1)
    assert rate.step == 1_000_000 // STEPS
    for _ in range(STEPS):
        rate.take(1)
    started = time.monotonic()
    rate.take(1)
    assert time.monotonic() - started > 0.2, "a thousandth was booked for each"


def test_what_was_used_beyond_the_estimate_is_owed():
    rate = Rate("r", 100, window_seconds=1)
    rate.take(10)
    rate.owe(70)
    rate.owe(-5)
    rate.owe(1_000)
    started = time.monotonic()
    rate.take(20)
    assert time.monotonic() - started > 0.5


def test_what_never_fits_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"tokens_per_minute is 100: one request takes up to 101"):
        Rate("tokens_per_minute", 100).take(101)


def test_no_limit_waits_for_nothing():
    rate = Rate("r", None)
    for _ in range(10_000):
        rate.take(10**9)
    rate.owe(10**9)
    assert rate.waited_seconds == 0.0
