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
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from components.contracts.errors import ConfigError
from components.contracts.records import Task

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,40}$")]


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


class Student(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The student and its update.

    ``temperature``: softens teacher and student in the distillation loss (Hinton et al. 2015, arXiv 1503.02531).
    ``truth_weight``: share of the loss that comes from truth, for rows that have it.
    ``replay_rows``: rows of older snapshots mixed into an update, drawn class-balanced; 0 turns replay off.
    """

    variants: Annotated[tuple[Variant, ...], Meta(min_length=1)] = (Variant(name="base"),)
    epochs: Count = 12
    batch_size: Count = 64
    learning_rate: Positive = 0.005
    temperature: Positive = 2.0
    truth_weight: Share = 0.3
    replay_rows: Annotated[int, Meta(ge=0)] = 1_500
    holdout_share: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.2
    workers: Annotated[int, Meta(ge=0)] = 0
    """Ray Train workers; 0 trains in the pipeline's own process (Ray Train's local mode)."""


class Limits(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gate demands of a candidate, measured on the exported artifact. ``None`` means not demanded.

    ``min_accuracy`` and ``min_agreement`` (with the teacher) are shares on the new window's holdout; ``max_loss``
    is the largest loss of accuracy against the champion on the new holdout; ``max_forgetting`` the same on the
    holdouts of older windows; ``max_ece`` the expected calibration error; ``max_parity_gap`` the share of holdout
    labels that differ between the float model and the artifact; sizes in bytes, latency in milliseconds per input.
    ``min_rows`` is the least holdout: below it the verdict is hold. Regression uses ``max_rmse`` (target unit).
    """

    min_rows: Count = 50
    min_accuracy: Share | None = None
    min_agreement: Share | None = None
    max_loss: Share | None = None
    max_forgetting: Share | None = None
    max_ece: Share | None = None
    max_parity_gap: Share | None = 0.02
    max_p99_ms: Positive | None = None
    max_bytes: Count | None = None
    max_rmse: Positive | None = None
    min_teacher_accuracy: Share | None = None


class Monitor(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Drift and entropy monitors.

    ``window`` inputs are compared with the newest ``reference`` rows that the champion was trained on (of its
    holdouts, where they are enough).

    ``alpha`` is the false-alarm rate of one look at one window over all columns together; ``min_effect`` is the
    smallest effect called drift, in each detector's own unit (Kolmogorov-Smirnov and Jensen-Shannon distance: 0 to 1).
    """

    window: Count = 150
    reference: Count = 300
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.01
    min_effect: Share = 0.1
    resamples: Count = 400


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
    rolled back, however often it is looked at. ``max_error_rate``: errors allowed to a candidate.
    ``max_extra_disagreement``: how much more often than the champion a candidate may disagree with the teacher on
    the audited sample. ``max_slow_share`` of answers may be slower than ``slow_ms``. ``patience_seconds``: longest
    time in one step without the evidence it needs, then the rollout pauses and asks.
    """

    steps: Annotated[tuple[Step, ...], Meta(min_length=1)] = (
        Step(weight=0.0, min_requests=200, min_candidate=100),
        Step(weight=0.01, min_requests=500, min_candidate=5),
        Step(weight=0.05, min_requests=500, min_candidate=20),
        Step(weight=0.25, min_requests=500, min_candidate=100),
    )
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.05
    max_error_rate: Share = 0.01
    max_extra_disagreement: Share = 0.10
    slow_ms: Positive = 50.0
    max_slow_share: Share = 0.05
    patience_seconds: Positive = 3_600.0
    lease_seconds: Positive = 15.0


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
    """Which inputs are admitted to labelling; the others become dead letters.

    ``max_future_seconds``: how far an input's event time may lie ahead of the labeler's clock; a day is more than
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
    accepts all.
    """

    required: bool = False
    allowed: tuple[str, ...] = ()


class Label(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The labeler. ``batch``: inputs per call of the teacher; ``linger_seconds``: longest wait to fill one.

    ``remember``: how many labelling keys are kept so that repeated content is not labelled again.
    """

    batch: Count = 32
    linger_seconds: Annotated[float, Meta(ge=0.0)] = 0.1
    remember: Count = 200_000


class Spec(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One workload. ``name`` is in every topic, model, row and metric; ``unit`` is the target's for regression."""

    name: Name
    task: Task = "classification"
    description: str = ""
    entity: str = "key"
    teacher: Factory
    teacher_digest: str | None = None
    """``name@digest`` that labels must carry; None: what the teacher reports when it starts is the declared one."""
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

    def topic(self, kind: Literal["inputs", "labels", "predictions", "truth", "inputs.dlq"]) -> str:
        """Name of this workload's topic of a kind."""
        return f"{self.name}.{kind}"

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics of this workload."""
        return tuple(f"{self.name}.{k}" for k in ("inputs", "labels", "predictions", "truth", "inputs.dlq"))

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
    weights = [step.weight for step in spec.rollout.steps]
    if weights != sorted(set(weights)) or weights[-1] >= 1.0:
        raise ConfigError("rollout.steps", weights, "weights must rise and end below 1 (1 is the promotion itself)")
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
