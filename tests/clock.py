class Clock:
    """A clock that stands still, or goes on by ``step`` seconds before every look; ``now`` may be set."""

    def __init__(self, now, step=0.0):
        self.now, self.step = now, step

    def __call__(self):
        self.now += self.step
        return self.now


class Time:
    """In the place of a module's ``time``: what sleeps has slept at once, and ``slept`` says for how long in all."""

    def __init__(self, now=1_700_000_000.0):
        self.began = self.now = now

    @property
    def slept(self):
        return self.now - self.began

    def time(self):
        return self.now

    monotonic = perf_counter = time

    def sleep(self, seconds):
        self.now += seconds
