"""Which inputs are labelled, under what terms, at what cost, and the watch over the teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from components.contracts.spec.fields import Count, Positive, Section


class Admission(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which inputs are admitted to labelling; the gateway refuses the others, and on the stream they are dead letters.

    ``max_future_seconds``: how far an input's event time may lie ahead of the reader's clock; a day is more than
    clocks and time zones explain, and what lies beyond would corrupt every join by time.
    ``max_age_seconds``: how far it may lie behind; None admits any age, as replayed histories need.
    ``finite``: whether a decoded payload with a NaN or an infinity in it is refused; off for a teacher that takes NaN
    as a missing value.
    """

    max_future_seconds: Annotated[float, Meta(ge=0.0)] = 86_400.0
    max_age_seconds: Positive | None = None
    finite: bool = True


class Consent(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Under which terms inputs may be labelled and trained on.

    ``required``: an input that names no terms is refused. ``allowed``: the terms that are accepted, by name; empty
    accepts all. ``otherwise``: what the gateway does with an input whose terms do not allow it: ``refuse`` it, or
    ``answer`` it by the student alone, ask nobody else, and publish and keep nothing of it.
    """

    required: bool = False
    allowed: tuple[str, ...] = ()
    otherwise: Literal["refuse", "answer"] = "refuse"


class Policy(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which inputs the teacher labels, beside those of the audit slice and those whose callers wait.

    ``all``; ``random``: each with the chance ``share``; ``margin``, ``entropy``, ``committee``: the likelier the less
    sure the student (for ``committee``: champion, candidate and previous) is of an input, with the mean chance
    ``share``; ``novelty``: the likelier the less sure the champion is and the more unlike its own data the input is, so
    that a new kind of inputs is labelled first; ``coverage``: the likelier the farther the input is from all that is
    labelled. ``floor`` is the part of that chance that every input has however sure the student is of it: with less,
    fewer labels go to inputs that teach nothing, but estimates over labels get wider. While an alarm of the monitors is
    open, what goes beyond ``floor`` goes first to the inputs that it tells of; so does a budget that is not enough for
    all, whatever the policy.
    """

    kind: Literal["all", "random", "margin", "entropy", "committee", "novelty", "coverage"] = "all"
    share: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    floor: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.2


class Budget(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much the teacher may cost in an hour and in a day of UTC; None: no limit.

    A call is one input that the teacher labels. ``unit``: ``calls``, or ``money`` in the currency of ``cost``, the
    most that one call may cost. ``reserve``: the part of every limit that only audited inputs and those whose callers
    wait may use. ``audits``: the part, in [0, 1], that only audited inputs may use, those of ``label.audit_share`` and
    of ``serve.audit_share``: they are drawn alike from all traffic, and nothing else shows whether what is answered
    without the teacher is right, which ends a guard and a rollout. It lies within the reserve, or reaches beyond it.
    Without it a change after which most answers are deferred may leave them nothing. ``paced``: spread what the policy
    draws evenly over the time that is left.
    ``pace_deferred``: of the inputs whose callers wait ask about those that need it most, as many as what is left will
    pay for beside the audits if the traffic goes on as in the last hour (the last day, where there is no limit for an
    hour; :mod:`components.query.pace`); the others are answered by the student, degraded. After an alarm the labels
    that the next update lacks are asked for whatever that is. Without it the first of them get it all.

    ``token_cost``: what a million of the teacher's tokens costs, asked and answered alike. It limits nothing: the
    console's savings are reckoned with it, times the tokens that the labelers' teacher reports for a label.
    """

    per_hour: Positive | None = None
    per_day: Positive | None = None
    unit: Literal["calls", "money"] = "calls"
    cost: Positive | None = None
    token_cost: Positive | None = None
    reserve: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.1
    audits: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    paced: bool = True
    pace_deferred: bool = False

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.per_hour is not None or self.per_day is not None


class Probe(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The watch for a teacher that changes without saying so (:mod:`components.teacher_watch.guard`).

    ``size`` inputs are kept as probes; 0 turns the watch off. The default misses a change of 5 % of the answers with
    a chance of 1e-4 (:func:`components.teacher_watch.probes.size_for`).

    An *interval* ends after ``interval`` labels, or after ``interval_seconds`` where there are fewer (None: it has no
    end in time). In each, 66 probes are asked: one pass, which finds such a change with a chance of 0.966. They take
    the room that inputs leave in a batch, and calls: ``66 / interval`` a label, 4 % by default; an interval of 300 is
    ended sooner and costs 22 %. Where batches are full, because inputs wait for the teacher, they get ``share`` probes
    a label and no more, and an interval is ``66 / share`` labels: 1,650. For a teacher that is paid by the call an
    ``interval`` of 3,300 and a ``share`` of 0.02 cost 2 %.

    ``tolerance``: the largest distance (total variation, 0 to 1; for regression in scales of the answer) between two
    answers that rounding explains; batch size and threads move Magika and MiniLM by less than a tenth of the default.
    A teacher that moves more than that when it is asked ``repeats`` times is noisy, and is judged by a test that
    raises a false alarm with a chance of ``alpha`` for each start of a labeler.

    ``rotate``: probes replaced by newer inputs after each clean round; half of the set stays for good.
    ``retry_seconds``: how often a rejected teacher is asked whether it is back.
    """

    size: Annotated[int, Meta(ge=0, le=10_000)] = 180
    interval: Count = 1_650
    interval_seconds: Positive | None = None
    share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.04
    tolerance: Annotated[float, Meta(ge=0.0, lt=1.0)] = 2e-3
    repeats: Annotated[int, Meta(ge=2, le=100)] = 4
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 1e-4
    rotate: Annotated[int, Meta(ge=0)] = 5
    retry_seconds: Positive = 10.0


class Label(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The labeler. A batch for the teacher is full at ``batch`` inputs or ``batch_bytes`` of records.

    ``linger_seconds``: longest wait to fill one. ``remember``: how many keys of labels are kept for each share of the
    partitions, so that an input that is delivered again gets no second label; they are read back at a start, which
    takes the longer the more they are. ``reuse``: how many of the teacher's answers are kept by content, so that
    repeated content costs no second call (it still gets its own label); 0 asks the teacher every time.
    ``workers``: labelers that the local platform starts; they divide the partitions. ``on_lost_positions``: what to
    do where the broker no longer has the next inputs: read on from the ``earliest`` with an alarm, or ``stop``.
    ``audit_share``: share of the inputs that are labelled whatever the policy says (by a hash of the input id, so that
    it can be recomputed) and held out: estimates over them need no model of how the others were chosen.
    ``signed_by``: the labeler's public Ed25519 key in base64 (``cohobate teacher keygen``); a window then takes signed
    labels alone. None: whoever may write to the labels topic can forge a label of the declared teacher.
    """

    batch: Count = 32
    batch_bytes: Count = 2 * 1024 * 1024
    linger_seconds: Annotated[float, Meta(ge=0.0)] = 0.1
    remember: Count = 100_000
    reuse: Annotated[int, Meta(ge=0)] = 2_000
    workers: Count = 1
    on_lost_positions: Literal["earliest", "stop"] = "earliest"
    audit_share: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.05
    policy: Policy = Policy()
    budget: Budget = Budget()
    probe: Probe = Probe()
    signed_by: str | None = None
