"""How a candidate takes over."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from components.contracts.errors import ConfigError
from components.contracts.spec.fields import Count, Positive, Section, Share


class Step(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of a rollout: the candidate's share of requests, and the evidence that the step needs.

    ``min_requests`` counts requests answered in this step by either arm; ``min_candidate`` counts the candidate's
    own answers (in shadow: its unserved ones).
    """

    weight: Share
    min_requests: Annotated[int, Meta(ge=0)] = 0
    min_candidate: Count = 1


class RolloutPolicy(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a candidate takes over. Weight 0 as the first step is the shadow.

    ``alpha``: chance, over the whole rollout and all guards together, that a candidate no worse than allowed is
    rolled back, however often it is looked at. What is allowed to a candidate:

    - ``max_error_rate`` of its answers may fail, or as many as the champion's at the same time and
      ``max_extra_errors`` more (each a share): an outage that hits both is not its fault.
    - ``max_slow_share`` of its answers may be slower than ``slow_ms``, or as many as the champion's.
    - ``max_slowdown``: its latencies, divided by this, may be distributed as the champion's; None: not compared.
    - ``max_extra_disagreement``: how much more often than the champion it may disagree with the teacher on the audited
      sample, and with the truth where that is known; ``max_slice_disagreement``: the same within one slice of the
      inputs (one class of the teacher's, where the evidence names no other).
    - ``min_agreement``: least share of audits in which it agrees with the teacher, whatever the champion does; None: a
      candidate that is as bad as its champion may take over.
    - ``max_churn``: share of inputs on which it may differ from the champion (classification); None: not limited.
    - ``max_confidence_shift``, ``max_entropy_shift``: how far the mean of its confidence, or of ``exp(-entropy)``,
      may be from the champion's, to either side; None: not compared.

    ``pairs``: share of the inputs in a canary that both students answer, one of them unserved and after the answer was
    given. A pair says as much as a request to each of them and does not depend on which input came to whom, so that a
    bad candidate is known from a fraction of the requests; it costs a second answer's processor time. In shadow every
    input is a pair.

    ``advance``: what ends a step: ``evidence`` (its counts are reached and no guard objects), ``early`` (or sooner,
    once errors, latency and disagreement are shown to be within their limits), ``proven`` (both).

    ``patience_seconds``: longest time in one step without that; then ``on_inconclusive``: ``wait``, ``pause`` (and ask
    a person) or ``abort``. ``srm_alpha``: chance of a false alarm that the split is not the configured one.
    """

    steps: Annotated[tuple[Step, ...], Meta(min_length=1)] = (
        Step(weight=0.0, min_requests=200, min_candidate=100),
        Step(weight=0.01, min_requests=500, min_candidate=5),
        Step(weight=0.05, min_requests=500, min_candidate=20),
        Step(weight=0.25, min_requests=500, min_candidate=100),
    )
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.05
    max_error_rate: Share = 0.01
    max_extra_errors: Share = 0.0
    max_extra_disagreement: Share = 0.10
    max_slice_disagreement: Share = 0.25
    min_agreement: Share | None = None
    pairs: Share = 1.0
    slow_ms: Positive = 50.0
    max_slow_share: Share = 0.05
    max_slowdown: Annotated[float, Meta(ge=1.0)] | None = None
    max_churn: Share | None = None
    max_confidence_shift: Share | None = None
    max_entropy_shift: Share | None = None
    advance: Literal["evidence", "early", "proven"] = "evidence"
    on_inconclusive: Literal["wait", "pause", "abort"] = "pause"
    srm_alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.001
    patience_seconds: Positive = 3_600.0
    lease_seconds: Positive = 15.0


def check_steps(policy: RolloutPolicy) -> None:
    """Refuse steps that are none.

    Raises:
        ConfigError: the weights do not rise, or reach 1.

    """
    weights = [step.weight for step in policy.steps]
    if weights != sorted(set(weights)) or weights[-1] >= 1.0:
        raise ConfigError("rollout.steps", weights, "weights must rise and end below 1 (1 is the promotion itself)")
