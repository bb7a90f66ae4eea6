"""The Kubeflow components between which an update stands: its first step, and its exit handler."""

from typing import NamedTuple

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def begin(spec: str, pipeline: str, reason: str, key: str, with_run: str = "") -> NamedTuple(
    "Begun", [("run", str), ("spec", str)]
):
    """Record that an update starts, unless another is under way; returns the run's id, and the spec that is in force.

    ``key`` is Kubeflow's id of the run; ``with_run`` names a run that was recorded before it was submitted.
    """
    from components.runs.step import begin as begin_run

    return begin_run(spec, pipeline, reason, key, with_run)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish(spec: str, key: str) -> str:
    """Record how the update ended that Kubeflow knows by ``key``; returns that."""
    from components.runs.step import finish as finish_run

    return finish_run(spec, key)
