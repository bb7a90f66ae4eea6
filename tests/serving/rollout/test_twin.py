"""The benchmarks' numpy twin of the guards decides at the same request as the rollout itself."""

import msgspec
import numpy as np
import pytest

from serving.rollout.evidence import Answered, Audited, Reply
from serving.rollout.replay import _begun
from serving.rollout.step import step
from tests.bench._rollouts import POLICY, Case, Twin, make

WEIGHTS = np.array([0.0] * 120 + [0.1] * 600 + [0.3] * 600)


def observations(traffic, r, t, pairs):
    """One request of one rollout, as the reader would tell of it; ``pairs``: both answer in the canary too."""
    weight, theirs = float(traffic.weights[t]), bool(traffic.theirs[r, t])
    replies, wrong = [], []
    for arm in (0, 1):
        asked = weight == 0.0 or pairs or theirs == bool(arm)
        ok = not traffic.errors[arm][r, t]
        replies.append(Reply(ok=ok, latency_ms=float(traffic.latencies[arm][r, t])) if asked else None)
        wrong.append(bool(traffic.wrong[arm][r, t]) if asked and ok else None)
    answered = Answered(
        id="i", arm="candidate" if theirs else "champion", weight=weight, champion=replies[0], candidate=replies[1],
        repeat=True, turn="candidate" if theirs else "champion",
    )  # fmt: skip
    if wrong == [None, None] or (weight and pairs and None in wrong):
        return [answered]
    place = str(traffic.slices[r, t])
    return [answered, Audited(id="i", champion=wrong[0], candidate=wrong[1], weight=weight, slice=place)]


def rolled_back_at(traffic, r, pairs):
    policy = msgspec.structs.replace(POLICY, patience_seconds=1e9)
    state, _ = _begun(0.0, policy, 1.0).state()
    for t in range(traffic.theirs.shape[1]):
        state, actions = step(state, observations(traffic, r, t, pairs), float(t))
        if actions:
            return actions[0].request
    return 0


@pytest.mark.parametrize(
    "case",
    [
        Case(name="none"),
        Case(name="errors", more_errors=0.08),
        Case(name="slow", slowdown=1.4),
        Case(name="wrong", more_wrong=0.08, errors=0.05),
        Case(name="slice", more_wrong=0.6, only=3),
        Case(name="late", more_wrong=0.2, onset=150),
    ],
    ids=lambda case: case.name,
)
@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "one each"])
def test_both_decide_at_the_same_request(case, pairs):
    traffic = make(case, np.random.default_rng(5), 4, WEIGHTS)
    assert Twin(4, pairs).run(traffic).tolist() == [rolled_back_at(traffic, r, pairs) for r in range(4)]
