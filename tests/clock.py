class Clock:
    """A clock that stands still, or goes on by ``step`` seconds before every look; ``now`` may be set."""

    def __init__(self, now, step=0.0):
        self.now, self.step = now, step

    def __call__(self):
        self.now += self.step
        return self.now
