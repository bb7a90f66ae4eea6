"""The workload spec: one YAML file that describes one teacher, one task, one label space, one student lineage.

Every section is a frozen struct; unknown fields and values out of range are refused with the field's path.
A reference ``module:name`` or ``file.py:name`` (relative to the spec file) names a Python object of the user's.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from drift.detectors import checked

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,40}$")]

Kind = Literal[
    "inputs",
    "inputs.urgent",
    "labels",
    "predictions",
    "truth",
    "inputs.dlq",
    "labels.quarantine",
    "labels.refused",
]
"""The topics of a workload. ``inputs.urgent``: inputs whose callers wait (deferred or audited); ``labels.quarantine``:
labels of a teacher that seems to have changed, until a person decides; ``labels.refused``: labels and truths that no
window takes, as dead letters with the reason."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the spec's sections: frozen, keyword-only, no unknown fields."""


class Factory(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Python object by reference and the options it is called with."""

    factory: str
    options: dict[str, Any] = {}


class Payload(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the bytes of an input become what the teacher and the featuriser take.

    ``decoder``: ``raw`` (bytes), ``text`` (UTF-8 str), ``json`` (any JSON value), or a reference to a function
    ``bytes -> object`` that raises :class:`~components.contracts.errors.RecordError` for poison.
    """

    decoder: str = "raw"
    max_bytes: Count = 65_536


class Variant(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shape of student. ``dim``: width of the embedding; ``hidden``: width of the one hidden layer."""

    name: Name
    dim: Count = 32
    hidden: Count = 64


Form = Literal["float32", "int8", "pruned", "pruned_int8"]
"""What a trained network is exported as: in full, with its embedding in 8 bits, with fewer units, or both."""


class Pruning(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the pruned exports lack.

    ``share``: of the embedding's dimensions, and of the hidden units, that are removed; their bytes fall by about as
    much. ``epochs``: passes over the update's rows in which the smaller network then learns the larger one's answers;
    0 leaves it as it was cut.
    """

    share: Annotated[float, Meta(gt=0.0, lt=1.0)]
    epochs: Annotated[int, Meta(ge=0)] = 6


class Export(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which exports of a student are made.

    ``serve``: the one that is judged, promoted and served; ``auto`` is ``int8`` where its labels keep
    ``limits.max_parity_gap``, else ``float32``. ``also``: exports that are written beside it, and whose parity the gate
    judges as it does that of the one to serve. ``pruning`` goes with the pruned ones. Training goes on from the full
    weights, whatever was served: a student does not shrink from update to update.
    """

    serve: Form | Literal["auto"] = "auto"
    also: tuple[Literal["int8", "pruned", "pruned_int8"], ...] = ()
    pruning: Pruning | None = None

    @property
    def declared(self) -> tuple[Form, ...]:
        """The exports that are named, the one to serve first."""
        return self.also if self.serve == "auto" else (self.serve, *self.also)


def check_export(export: Export) -> None:
    """Refuse exports that contradict each other.

    Raises:
        ConfigError: one is named twice, or ``pruning`` is given without a pruned one, or the other way round.

    """
    if len(set(export.declared)) < len(export.declared):
        raise ConfigError("student.export.also", export.also, "names every export once, and not the one to serve again")
    if any(form.startswith("pruned") for form in export.declared) != (export.pruning is not None):
        raise ConfigError("student.export.pruning", export.pruning, "goes with a pruned export, in serve or in also")


class Student(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The student and its update.

    ``temperature``: softens teacher and student in the distillation loss (Hinton et al. 2015, arXiv 1503.02531).
    ``truth_weight``: share of the loss that comes from truth, for rows that have it.
    ``replay_rows``: rows of older snapshots mixed into an update, drawn class-balanced; 0 turns replay off.
    ``holdout_share`` of the inputs is for the gate alone; ``calibration_share`` for the temperature of the export.
    ``near_duplicate``: similarity (Jaccard, of what is left of a payload's wording) from which on a row may not be
    learnt from beside one that is held out; None looks for equal content only.
    """

    variants: Annotated[tuple[Variant, ...], Meta(min_length=1)] = (Variant(name="base"),)
    epochs: Count = 12
    batch_size: Count = 64
    learning_rate: Positive = 0.005
    temperature: Positive = 2.0
    truth_weight: Share = 0.3
    replay_rows: Annotated[int, Meta(ge=0)] = 1_500
    holdout_share: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.2
    calibration_share: Annotated[float, Meta(ge=0.0, lt=0.5)] = 0.1
    near_duplicate: Annotated[float, Meta(gt=0.0, le=1.0)] | None = 0.8
    workers: Annotated[int, Meta(ge=0)] = 0
    """Ray Train workers; 0 trains in the pipeline's own process (Ray Train's local mode)."""
    export: Export = Export()


class Disturbance(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How robustness is measured, where a limit demands it.

    ``rows``: inputs of the holdout that are disturbed. ``strength``: share of characters, bytes or cells that are
    changed, or lost. ``queries``: answers of the student that the adversarial search may ask for on one input.
    """

    rows: Count = 100
    strength: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.05
    queries: Count = 40


class Limits(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gate demands of a candidate, measured on the exported artifact.

    ``None`` means not demanded; where nothing is, no candidate is promoted.

    ``confidence``: of the one-sided bounds that must keep the limits on shares, losses and errors; without it the
    estimates themselves are compared, and the verdict says so. ``looks``: ``repeated`` where the verdict is asked for
    again and again while labels arrive, so that bounds are confidence sequences. ``min_rows`` is the least holdout:
    below it the verdict is hold.

    Against truth: ``min_accuracy``; ``max_loss``, the largest loss of accuracy (regression: relative rise of the root
    mean squared error) against the champion on the new holdout, ``max_slice_loss`` the same for every true class,
    ``max_mae_loss`` for the mean absolute error; ``max_forgetting`` on the holdout of every older regime; ``max_rmse``
    (target unit); ``min_coverage`` of a regression's 90 % intervals; ``max_ece``, the root mean squared calibration
    error less its bias (an estimate, whatever the confidence); ``min_teacher_accuracy``. Against the teacher:
    ``min_agreement``.

    Robustness, as a loss of agreement with the teacher: ``max_noise_loss`` under each seeded disturbance,
    ``max_attack_loss`` under the adversarial search; ``disturbance`` says how. The export: ``max_parity_gap``, the
    share of holdout labels that differ between the float model and the artifact, and ``max_probability_gap``, the mean
    total variation between their probabilities, both for every export that ``student.export`` names; sizes in bytes,
    ``max_memory_bytes`` that a process grows by to load and run it, ``max_cold_start_ms`` until it first answers;
    latency in milliseconds per input, ``max_latency_ratio`` of the 99th percentile to the champion's in the same run;
    ``max_cost_per_1000`` inputs in the currency of ``core_hour_price``, which has no default.
    """

    min_rows: Count = 50
    confidence: Annotated[float, Meta(gt=0.5, lt=1.0)] | None = None
    looks: Literal["once", "repeated"] = "once"
    min_accuracy: Share | None = None
    min_agreement: Share | None = None
    max_loss: Share | None = None
    max_slice_loss: Share | None = None
    max_forgetting: Share | None = None
    max_ece: Share | None = None
    max_noise_loss: Share | None = None
    max_attack_loss: Share | None = None
    max_parity_gap: Share | None = None
    max_probability_gap: Share | None = None
    max_p99_ms: Positive | None = None
    max_latency_ratio: Positive | None = None
    max_cold_start_ms: Positive | None = None
    max_bytes: Count | None = None
    max_memory_bytes: Count | None = None
    max_cost_per_1000: Positive | None = None
    core_hour_price: Positive | None = None
    max_rmse: Positive | None = None
    max_mae_loss: Share | None = None
    min_coverage: Share | None = None
    min_teacher_accuracy: Share | None = None
    disturbance: Disturbance = Disturbance()


class Monitor(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Drift and entropy monitors.

    ``window`` inputs are compared with the newest ``reference`` rows that the champion was trained on (of its
    holdouts, where they are enough).

    ``alpha`` is the false-alarm rate of one look at one window over all columns together; ``min_effect`` is the
    smallest effect called drift, as a Kolmogorov-Smirnov distance (for categories, Jensen-Shannon): 0 to 1. Detectors
    of other units translate it. ``detectors`` names those of a column, or of a kind (``numeric``, ``categorical``,
    ``vectors``, or ``(together)`` for the numeric columns as one), instead of the defaults; ``block`` is how many
    neighbouring inputs depend on each other, learnt from the reference when ``auto``; ``joint`` looks at the numeric
    columns' correlations, too. ``evidently`` names metrics and presets of Evidently that the reports show in addition;
    they measure and do not decide.

    ``run_length`` turns on the detector of change points, which looks at every input instead of at windows: how many
    inputs pass between two of its false alarms, on the mean, at least; a change is found the later, by the logarithm.
    None: there is no such detector.
    """

    window: Count = 150
    reference: Count = 300
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.01
    min_effect: Share = 0.1
    resamples: Count = 400
    detectors: dict[str, tuple[str, ...]] = {}
    block: Count | Literal["auto"] = "auto"
    joint: bool = True
    run_length: Annotated[int, Meta(ge=100)] | None = None
    evidently: tuple[Annotated[str, Meta(pattern=r"^[A-Z][A-Za-z0-9]*$")], ...] = ()


class Trigger(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an update pays.

    ``min_labels`` new labels start one by themselves; an alarm starts one once ``alarm_labels`` labels came after
    it, so that there is something of the new traffic to learn from.

    ``cooldown_seconds`` is the least time between the end of one run and the start of the next.
    """

    min_labels: Count = 600
    alarm_labels: Count = 200
    cooldown_seconds: Annotated[float, Meta(ge=0.0)] = 300.0


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


DeferTo = Literal["expert", "teacher", "review"]


class Deferral(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is asked, in order, where the student is not sure and the request allows it, and what that may cost.

    ``to``: the mid-size ``expert`` (a teacher by its contract, of the same label space), the teacher, or the queue of
    questions to people, whose answer comes later. An expert's answer of a confidence below ``expert_below`` is given
    only when nobody after it answers. One that does not answer within ``timeout_seconds`` counts as failed; after
    ``breaker_failures`` of them in a row it is left alone for ``breaker_seconds``. ``per_minute``: questions to each,
    from each replica; None for no limit.
    """

    to: tuple[DeferTo, ...] = ("teacher",)
    expert: Factory | None = None
    expert_below: Share = 0.0
    timeout_seconds: Positive = 5.0
    per_minute: Count | None = None
    breaker_failures: Count = 5
    breaker_seconds: Positive = 30.0


class Serve(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway.

    ``defer_below``: confidence under which an answer says ``defer``; 0 sets none. With ``max_disagreement`` the limit
    of each version is the one that its evaluation certified: of the answers that are not deferred at most this share
    disagrees with the teacher, at a chance of 95 %; a version for which none could be certified defers everything.
    ``audit_share``: share of requests whose input is audited against the teacher (by a hash of the input id, so that
    it can be recomputed); ``buffer_records``: telemetry kept while the stream is slow, beyond which it is dropped and
    counted. ``max_under_way``: requests that one replica takes at once, beyond which it sheds the least urgent;
    ``request_seconds``: for a body to come, and for a batch to be answered.
    """

    replicas: Count = 2
    defer_below: Share = 0.0
    max_disagreement: Share | None = None
    deferral: Deferral = Deferral()
    audit_share: Share = 0.1
    max_batch: Count = 256
    buffer_records: Count = 10_000
    max_under_way: Count = 256
    request_seconds: Positive = 10.0

    @property
    def defers(self) -> bool:
        """Whether any answer may say ``defer``."""
        return self.defer_below > 0.0 or self.max_disagreement is not None


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
    ``share``. ``floor`` is the part of that chance that every input has however sure the student is of it: with less,
    fewer labels go to inputs that teach nothing, but estimates over labels get wider.
    """

    kind: Literal["all", "random", "margin", "entropy", "committee"] = "all"
    share: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    floor: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.2


class Budget(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much the teacher may cost in an hour and in a day of UTC; None: no limit.

    A call is one input that the teacher labels. ``unit``: ``calls``, or ``money`` in the currency of ``cost``, the
    most that one call may cost. ``reserve``: the part of every limit that only audited inputs and those whose callers
    wait may use. ``paced``: spread what is left evenly over the time that is left; without it the first inputs of an
    hour get it all.
    """

    per_hour: Positive | None = None
    per_day: Positive | None = None
    unit: Literal["calls", "money"] = "calls"
    cost: Positive | None = None
    reserve: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.1
    paced: bool = True


class Probe(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The watch for a teacher that changes without saying so (:mod:`components.label.guard`).

    ``size`` inputs are kept as probes; 0 turns the watch off. The default misses a change of 5 % of the answers with
    a chance of 1e-4 (:func:`components.label.probes.size_for`).

    An *interval* ends after ``interval`` labels, or after ``interval_seconds`` where there are fewer. In each, 66
    probes are asked: one pass, which finds such a change with a chance of 0.966. They take the room that inputs leave
    in a batch, so they cost time that the teacher would have stood idle, and calls: ``66 / interval`` a label, 22 % by
    default. Where batches are full, because inputs wait for the teacher, they get ``share`` probes a label and no more,
    and an interval is ``66 / share`` labels: 1,650. For a teacher that is paid by the call an ``interval`` of 3,300 and
    a ``share`` of 0.02 cost 2 %.

    ``tolerance``: the largest distance (total variation, 0 to 1; for regression in scales of the answer) between two
    answers that rounding explains; batch size and threads move Magika and MiniLM by less than a tenth of the default.
    A teacher that moves more than that when it is asked ``repeats`` times is noisy, and is judged by a test that
    raises a false alarm with a chance of ``alpha`` for each start of a labeler.

    ``rotate``: probes replaced by newer inputs after each clean round; half of the set stays for good.
    ``retry_seconds``: how often a rejected teacher is asked whether it is back.
    """

    size: Annotated[int, Meta(ge=0, le=10_000)] = 180
    interval: Count = 300
    interval_seconds: Positive = 3_600.0
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
    it can be recomputed) and never learnt from: estimates over them need no model of how the others were chosen.
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


class Spec(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One workload. ``name`` is in every topic, model, row and metric; ``unit`` is the target's for regression."""

    name: Name
    task: Task = "classification"
    description: str = ""
    entity: str = "key"
    teacher: Factory
    teacher_digest: str | None = None
    """``name@digest`` that labels must carry; None: what the teacher reports when it starts is the declared one."""
    teacher_space: str | None = None
    """Label space that labels must be in; None: the one that the teacher reported when it was last started."""
    truth_sources: tuple[str, ...] | None = None
    """Sources whose truths count; None: whoever may write to the truth topic is one."""
    payload: Payload = Payload()
    features: Factory
    student: Student = Student()
    label: Label = Label()
    admission: Admission = Admission()
    consent: Consent = Consent()
    limits: Limits = Limits()
    monitor: Monitor = Monitor()
    trigger: Trigger = Trigger()
    rollout: RolloutPolicy = RolloutPolicy()
    serve: Serve = Serve()
    partitions: Count = 1
    seed: int = 0
    source: str = ""
    """Path of the file that this spec was read from; filled in by :func:`load_spec`."""

    def topic(self, kind: Kind) -> str:
        """Name of this workload's topic of a kind; see :data:`Kind`."""
        return f"{self.name}.{kind}"

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics of this workload."""
        return tuple(f"{self.name}.{k}" for k in get_args(Kind))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the spec's content, wherever its file lies."""
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, source=""))).hexdigest()


def load_spec(path: str | Path) -> Spec:
    """Read and validate a spec file.

    Raises:
        ConfigError: the file is missing, is not YAML, or has a field that is unknown or out of range.

    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError("spec", str(path), "must be a YAML file that exists")
    try:
        spec = msgspec.yaml.decode(path.read_bytes(), type=Spec)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ConfigError("spec", str(path), str(error)) from error
    check_steps(spec.rollout)
    check_export(spec.student.export)
    try:
        checked(spec.monitor.detectors)
    except ValueError as error:
        raise ConfigError("monitor.detectors", spec.monitor.detectors, str(error)) from error
    if ("expert" in spec.serve.deferral.to) != (spec.serve.deferral.expert is not None):
        raise ConfigError(
            "serve.deferral.expert", spec.serve.deferral.expert, "goes with 'expert' in serve.deferral.to"
        )
    if spec.serve.defer_below > 0 and spec.serve.max_disagreement is not None:
        raise ConfigError("serve.max_disagreement", spec.serve.max_disagreement, "sets the limit: drop defer_below")
    return msgspec.structs.replace(spec, source=str(path.resolve()))


def resolve(reference: str, source: str = "") -> Any:
    """The Python object that ``module:name`` or ``file.py:name`` names; files are relative to the spec ``source``.

    Raises:
        ConfigError: the module, file or name does not exist.

    """
    module_name, _, name = reference.partition(":")
    if not name:
        raise ConfigError("reference", reference, "must have the form module:name or file.py:name")
    if module_name.endswith(".py"):
        module = _module_of(Path(source).parent / module_name, reference)
    else:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise ConfigError("reference", reference, f"cannot import: {error}") from error
    if not hasattr(module, name):
        raise ConfigError("reference", reference, f"module {module_name} has no {name!r}")
    return getattr(module, name)


def _module_of(path: Path, reference: str) -> Any:
    if not path.is_file():
        raise ConfigError("reference", reference, f"no such file: {path}")
    name = f"cohobate_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ConfigError("reference", reference, f"not a Python file: {path}")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def build(factory: Factory, source: str = "") -> Any:
    """Call a spec's factory with its options.

    Raises:
        ConfigError: the reference is wrong, or the object does not take these options.

    """
    made = resolve(factory.factory, source)
    try:
        return made(**factory.options)
    except TypeError as error:
        names = sorted(factory.options)  # not their values: one may be a key that does not belong here
        raise ConfigError("options", names, f"{factory.factory} does not take them: {error}") from error
