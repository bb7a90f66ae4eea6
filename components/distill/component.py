"""The Kubeflow component that trains a student."""

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def distill(
    spec: str,
    variant: str,
    start: str,
    digest: str,
    student: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    run: str = "",
):
    """Train on the window ``digest`` and those before it; ``start`` is ``champion`` or ``fresh``."""
    from components.distill.step import distil
    from components.kubeflow import write_candidate
    from components.runs.step import step

    with step(run, "distill"):
        made = distil(spec, variant, start == "fresh", digest)
    write_candidate(student, made)
    for name, value in made.metrics.items() if made else ():
        metrics.log_metric(name, value)
