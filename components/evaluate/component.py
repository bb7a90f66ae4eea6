"""The Kubeflow components that judge students."""

from typing import NamedTuple

from kfp import dsl

IMAGE = "cohobate:0.1.0"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    spec: str,
    student: dsl.Input[dsl.Model],
    judged: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
) -> str:
    """Measure the exported artifact and ask the gate; returns ``promote``, ``hold`` or ``reject``."""
    from components.kubeflow import read_candidate, show, write_candidate
    from components.steps import judge

    done = judge(spec, read_candidate(student.path))
    write_candidate(judged, done)
    show(done, metrics, confusion, report.path)
    return done.decision


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def choose(first: dsl.Input[dsl.Model], second: dsl.Input[dsl.Model], chosen: dsl.Output[dsl.Model]) -> NamedTuple(
    "Outputs", decision=str, variant=str
):
    """Of two judged students, the one that the gate would promote and that agrees better with the teacher."""
    from typing import NamedTuple

    from components.kubeflow import read_candidate, write_candidate

    best = max((read_candidate(m.path) for m in (first, second)), key=lambda c: c.score)
    write_candidate(chosen, best)
    return NamedTuple("Outputs", decision=str, variant=str)(best.decision, best.card.variant)
