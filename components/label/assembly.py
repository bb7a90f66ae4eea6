"""A labeler with all that belongs to it on a platform: guard, label budget, policy, signature, metrics."""

from __future__ import annotations

from components.contracts.settings import Settings
from components.contracts.signing import Signer
from components.contracts.spec import Spec, build
from components.control.store import ControlStore
from components.label.asking import Company
from components.label.kept import mask_kept
from components.label.labeler import Labeler, Leases
from components.query.budget import Budget
from components.query.lacking import Lacking
from components.query.scores import StudentScores
from components.query.selector import Selector
from components.stream.contract import Broker
from components.teacher_watch.guard import Guard
from components.teachers.common import Common
from components.teachers.contract import Teacher, metered, shared
from components.teachers.replaced import check_replaced
from components.telemetry.metrics import LabelerMetrics


def assemble(
    spec: Spec,
    settings: Settings,
    store: ControlStore,
    broker: Broker,
    *,
    leases: Leases | None = None,
    metrics: LabelerMetrics | None = None,
) -> Labeler:
    """The labeler of a workload on the platform of these settings; its topics are made where they do not exist.

    Raises:
        ConfigError: the teacher is not the one that the spec declares, or no window would take its labels, or an
            option is wrong.
        UnavailableError: the teacher, the broker or the control database does not answer, or the search for personal
            data in what is kept of inputs failed.

    """
    broker.ensure_topics(spec.topics, spec.partitions)
    mask_kept(spec, store, settings.artifacts)
    teacher: Teacher = build(spec.teacher, spec.source)
    check_replaced(spec, store, teacher)
    limits = spec.label.budget
    budget = Budget(limits, spec.name, store, cost=limits.cost or 0.0, clock=store.clock)
    if budget.limited:
        metered(teacher, budget.again)
    shared(teacher, Common(store, spec.name, store.clock))
    watched = spec.label.probe.size > 0
    name = settings.worker or "labeler"
    company = Company(
        guard=Guard(spec, teacher, store, broker, settings.artifacts, member=name, budget=budget) if watched else None,
        selector=Selector(spec, budget, lacking=Lacking(spec, store)),
        scores=StudentScores(spec, store),
        metrics=metrics or LabelerMetrics(spec.name),
    )
    key = settings.secret("label_signing_key")
    return Labeler(spec, teacher, broker, leases=leases, company=company, signer=Signer(key) if key else None)
