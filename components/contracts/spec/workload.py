"""The whole spec of one workload, and how it is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.records import Task
from components.contracts.reference import parse
from components.contracts.settings import Settings
from components.contracts.spec import bundles, declared
from components.contracts.spec.data_free import check_data_free
from components.contracts.spec.declared import About, Data, TeacherFactory
from components.contracts.spec.features import Features, check_entity
from components.contracts.spec.fields import Count, Name, Payload, Section, class_names
from components.contracts.spec.label import Admission, Consent, Label
from components.contracts.spec.limits import Limits, check_groups, check_looks, check_searched
from components.contracts.spec.masking import Masking, check_masking
from components.contracts.spec.monitor import Monitor, Trigger
from components.contracts.spec.privacy_check import check_privacy
from components.contracts.spec.retention import Retention
from components.contracts.spec.rollout import RolloutPolicy, check_steps
from components.contracts.spec.serve import Serve
from components.contracts.spec.student import Student, check_export, check_learning, check_network
from drift.detectors import checked

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


class Spec(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One workload. ``name`` is in every topic, model, row and metric; ``unit`` is the target's for regression."""

    name: Name
    task: Task = "classification"
    description: str = ""
    entity: str = "key"
    about: About = About()
    teacher: TeacherFactory
    teacher_digest: str | None = None
    """``name@digest`` that labels must carry; None: that of the windows so far, of the first what the teacher reports.

    It is needed where the teacher is replaced.
    """
    teacher_space: str | None = None
    """Label space that labels must be in; None: the one that the teacher reported when it was last started."""
    truth_sources: tuple[str, ...] | None = None
    """Sources whose truths count; None: whoever may write to the truth topic is one."""
    data: Data = Data()
    payload: Payload = Payload()
    masking: Masking | None = None
    features: Features
    student: Student = Student()
    label: Label = Label()
    admission: Admission = Admission()
    consent: Consent = Consent()
    retention: Retention = Retention()
    limits: Limits = Limits()
    monitor: Monitor = Monitor()
    trigger: Trigger = Trigger()
    rollout: RolloutPolicy = RolloutPolicy()
    serve: Serve = Serve()
    partitions: Count = 1
    seed: int = 0
    files: tuple[str, ...] = ()
    """Files and folders beside the spec that its code reads, so that they are on every host (relative paths)."""
    source: str = ""
    """Path of the file that this spec was read from, or the bundle's reference; filled in by :func:`load_spec`."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "features", Features.of(self.features))
        msgspec.structs.force_setattr(self, "teacher", TeacherFactory.of(self.teacher))

    def topic(self, kind: Kind) -> str:
        """Name of this workload's topic of a kind; see :data:`Kind`."""
        return f"{self.name}.{kind}"

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics of this workload."""
        return tuple(self.kinds)

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each topic of this workload."""
        return {self.topic(kind): kind for kind in get_args(Kind)}

    @property
    def neighbours(self) -> int:
        """How many of the teacher's newest answers are kept for inputs that the budget leaves to the student; 0: none.

        Where the spec leaves it open, :data:`NEIGHBOURS` if the teacher is asked, of classes, within a budget, and what
        it said of one input may be told of another.
        """
        if (wanted := self.serve.deferral.neighbours) is not None:
            return wanted
        fit = "teacher" in self.serve.deferral.to and self.task in NEIGHBOUR_TASKS
        return NEIGHBOURS if fit and self.label.budget.limited and self.student.privacy is None else 0

    @property
    def bundle(self) -> str | None:
        """Digest of the bundle that this spec was read from, with its code; None: it was read from a file."""
        reference = parse(self.source)
        return reference.digest if reference is not None else None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the spec's content, wherever its file lies; its code is not in it."""
        content = msgspec.to_builtins(msgspec.structs.replace(self, source=""))
        own = self.features
        content["features"] = {"factory": own.factory, "options": own.options, **content["features"]}
        for path, default in SINCE.items():
            *sections, name = path.split(".")
            inside = content
            for section in sections:
                inside = inside.get(section) or {}  # a section that is not there has none of its fields
            if name in inside and inside[name] == default:
                del inside[name]
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


NEIGHBOURS = 2_000
"""Answers of the teacher that are kept where ``serve.deferral.neighbours`` is left out: eight megabytes of memory."""

NEIGHBOUR_TASKS: tuple[Task, ...] = ("classification", "multilabel")
"""Tasks of which the answer to one input may be right of another."""

SINCE: dict[str, Any] = {
    "files": (),
    "limits.extraction": None,
    "limits.groups": {},
    "limits.max_extraction_fidelity": None,
    "limits.max_membership_advantage": None,
    "limits.max_micro_f1_loss": None,
    "limits.min_micro_f1": None,
    "limits.max_span_f1_loss": None,
    "limits.min_span_agreement": None,
    "limits.min_span_f1": None,
    "limits.max_cosine_loss": None,
    "limits.max_recall_loss": None,
    "limits.min_cosine": None,
    "limits.min_recall": None,
    "limits.neighbours": Limits().neighbours,
    "limits.searched": Limits().searched,
    "label.budget.audits": 0.0,
    "label.budget.pace_deferred": False,
    "masking": None,
    "masking.finder_seconds": Masking(entities=()).finder_seconds,
    "retention": msgspec.to_builtins(Retention()),
    "serve.asynchronous": None,
    "serve.deferral.neighbours": None,  # there were none; what leaves it out is the same spec still
    "serve.file_bytes": Serve().file_bytes,
    "student.data_free": msgspec.to_builtins(Student().data_free),
    "student.pretrain": "off",
    "student.start": None,
    "trigger.least_labels": None,
    "trigger.payoff": False,
    **declared.SINCE,
}
"""Fields that came after students whose lineage names the digest of their spec, with what their absence meant."""

OF_CLASSES = ("limits.min_accuracy", "limits.max_ece", "limits.max_slice_loss", "limits.min_teacher_accuracy")
OF_SETS = ("limits.min_micro_f1", "limits.max_micro_f1_loss")
OF_SPANS = ("limits.min_span_f1", "limits.min_span_agreement", "limits.max_span_f1_loss")
OF_VALUES = ("limits.max_mae_loss", "limits.max_rmse", "limits.min_coverage")
OF_VECTORS = ("limits.min_cosine", "limits.min_recall", "limits.max_cosine_loss", "limits.max_recall_loss")

MADE_FOR_CLASSES = (
    "limits.extraction", "limits.max_extraction_fidelity",
    "student.cohort", "student.data_free", "student.privacy", "student.start",
)  # fmt: skip
"""What knows one class or one number alone."""

WITHOUT: dict[Task, tuple[str, ...]] = {
    "classification": (*OF_SETS, *OF_SPANS, *OF_VALUES, *OF_VECTORS),
    "regression": (*OF_CLASSES, *OF_SETS, *OF_SPANS, *OF_VECTORS),
    "multilabel": (*OF_SPANS, *OF_VALUES, *OF_VECTORS, *MADE_FOR_CLASSES),
    "tagging": (
        *OF_SETS, *OF_VALUES, *OF_VECTORS, *MADE_FOR_CLASSES,
        "student.export.pruning", "limits.looks", "limits.max_slice_loss", "limits.max_noise_loss",
        "limits.max_attack_loss",
    ),
    "embedding": (
        *OF_CLASSES, *OF_SETS, *OF_SPANS, *OF_VALUES, *MADE_FOR_CLASSES,
        # there is no truth of an embedding
        "truth_sources", "student.truth_weight", "limits.max_loss",
        "student.temperature", "rollout.max_churn",
    ),
}  # fmt: skip
"""By task, the fields of a spec that do not know its answers: they must be left as they are by default."""

PEOPLE = "components.review.human:"
"""Factories of teachers that ask people, who give one class."""

OWN = "components."
"""Factories of the platform's own: what their ``classes`` are is known before anything is built."""


def _check_classes(field: str, options: Mapping[str, Any]) -> None:
    """Refuse class names that are no text in the options of a teacher, and of the one that it asks itself."""
    if "classes" in options:
        class_names(options["classes"], f"{field}.classes")
    primary = options.get("primary")
    if isinstance(primary, Mapping) and isinstance(primary.get("options"), Mapping):
        _check_classes(f"{field}.primary.options", primary["options"])


def _check_without(spec: Spec) -> None:
    """Refuse what the task of a spec is without; see :data:`WITHOUT`."""
    for path in WITHOUT.get(spec.task, ()):
        section, *names = path.split(".")
        default = next(f.default for f in msgspec.structs.fields(Spec) if f.name == section)
        given = getattr(spec, section)
        for name in names:
            given, default = getattr(given, name), getattr(default, name)
        if given != default:
            raise ConfigError(path, given, f"does not know answers of {spec.task}: leave it out")


def _check_people(spec: Spec) -> None:
    """Refuse to ask people for what they cannot write down."""
    if spec.teacher.factory.startswith(PEOPLE) and spec.task != "classification":
        allowed = f"asks people, who give one class of an input: name a teacher of {spec.task}"
        raise ConfigError("teacher.factory", spec.teacher.factory, allowed)
    if "review" in spec.serve.deferral.to and spec.task not in ("classification", "regression"):
        raise ConfigError("serve.deferral.to", spec.serve.deferral.to, f"people are asked nothing of {spec.task} yet")


def _check_neighbours(spec: Spec) -> None:
    """Refuse answers of neighbours of another task, where the teacher is not asked, or where nothing may be told."""
    field, found = "serve.deferral.neighbours", spec.serve.deferral.neighbours
    if spec.task not in NEIGHBOUR_TASKS:
        raise ConfigError(field, found, f"does not know answers of {spec.task}: leave it out")
    if "teacher" not in spec.serve.deferral.to:
        raise ConfigError(field, found, "goes with 'teacher' in serve.deferral.to")
    if spec.student.privacy is not None:
        remedy = "tells what was said of another input, which no account covers: leave it out beside student.privacy"
        raise ConfigError(field, found, remedy)


def load_spec(source: str | Path, settings: Settings | None = None) -> Spec:
    """Read and validate a spec file, or the spec of the bundle that ``workload:NAME@DIGEST`` names.

    A bundle is fetched from the artifact root of ``settings`` (those of the environment) unless this home has it.

    Raises:
        ConfigError: the file is missing, is not YAML, or has a field that is unknown or out of range.
        ArtifactError, UnavailableError: see :func:`components.contracts.spec.bundles.folder_of`.

    """
    reference = parse(str(source))
    if reference is None:
        path = Path(source)
        return msgspec.structs.replace(_read(path), source=str(path.resolve()))
    spec = _read(bundles.spec_file(str(source), settings))
    if spec.name != reference.workload:
        raise ArtifactError(str(source), f"is a bundle of {spec.name}")
    return msgspec.structs.replace(spec, source=str(source))


def _read(path: Path) -> Spec:
    if not path.is_file():
        raise ConfigError("spec", str(path), "must be a YAML file that exists, or workload:NAME of the registry")
    try:
        spec = msgspec.yaml.decode(path.read_bytes(), type=Spec)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        plain = re.search(r"Expected `str.*got `(bool|int|float)`", str(error))
        number = re.search(r"Expected `(float|int).*got `str`", str(error))
        remedy = "; quote it" if plain else "; YAML reads a number without its point as text: 1.0e-5" if number else ""
        raise ConfigError("spec", str(path), f"{error}{remedy}") from error
    for field, factory in (("teacher", spec.teacher), ("serve.deferral.expert", spec.serve.deferral.expert)):
        if factory is not None and factory.factory.startswith(OWN):
            _check_classes(f"{field}.options", factory.options)
    _check_without(spec)
    _check_people(spec)
    if spec.features.entity is not None:
        check_entity(spec.features.entity, spec.task, spec.student.privacy)
    if spec.masking is not None:
        check_masking(spec.masking, spec.payload)
    check_looks(spec.limits)
    check_searched(spec.limits)
    check_groups(spec.limits, spec.task, spec.payload.decoder, spec.features.entity)
    check_steps(spec.rollout)
    check_export(spec.student.export)
    check_network(spec.student)
    check_learning(spec.student, spec.task)
    check_privacy(spec.student, spec.task)
    check_data_free(spec.student.data_free, spec.task)
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
    if spec.limits.max_membership_advantage is not None and spec.student.privacy is not None:
        remedy = "is measured on rows that were learnt from, which no account covers: leave it out"
        found = spec.limits.max_membership_advantage
        raise ConfigError("limits.max_membership_advantage", found, f"{remedy} beside student.privacy")
    if spec.serve.deferral.neighbours:
        _check_neighbours(spec)
    if spec.serve.novelty is not None and spec.student.privacy is not None:
        remedy = "is told by means of the rows that were learnt from, which no account covers: leave it out"
        raise ConfigError("serve.novelty", spec.serve.novelty, f"{remedy} beside student.privacy")
    return spec
