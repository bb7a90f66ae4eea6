"""The Kubeflow components that register a candidate and that order the rollout controller."""

from kfp import dsl

IMAGE = "cohobate:0.1.0"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(spec: str, student: dsl.Input[dsl.Model]) -> str:
    """Register a judged student as candidate, with its lineage; returns its version."""
    from components.kubeflow import read_candidate
    from components.steps import register as register_student

    return register_student(spec, read_candidate(student.path))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(spec: str, version: str, reason: str, key: str) -> str:
    """Order a rollout of a registered version; the canary still decides. Returns the controller's outcome."""
    from components.steps import order

    return order(spec, "start", reason, key, {"version": version})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def rollback(spec: str, to: str, reason: str, key: str) -> str:
    """Order that an alias or version becomes champion now; returns the controller's outcome."""
    from components.steps import order

    return order(spec, "rollback", reason, key, {"to": to})
