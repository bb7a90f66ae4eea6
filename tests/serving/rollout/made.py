"""Observations as tests need them."""

from serving.rollout.evidence import Answered, Reply


def pair(ok=True, champion_ok=True, ms=1.0, champion_ms=1.0, id="i", **candidate):
    """A request in shadow: the champion served, the candidate answered beside it."""
    return Answered(
        id=id, arm="champion", weight=0.0, champion=Reply(ok=champion_ok, latency_ms=champion_ms, label="a"),
        candidate=Reply(ok=ok, latency_ms=ms, **{"label": "a", **candidate}),
    )  # fmt: skip


def alone(arm, weight=0.2, ok=True, ms=1.0, id="i", repeat=False, **reply):
    """A request in the canary, given to one arm."""
    own = Reply(ok=ok, latency_ms=ms, **reply)
    return Answered(id=id, arm=arm, weight=weight, repeat=repeat, **{arm: own})
