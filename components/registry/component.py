"""The Kubeflow components that register a candidate and that order the rollout controller."""

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(spec: str, student: dsl.Input[dsl.Model], force: bool = False) -> str:
    """Register a student that the gate promotes as candidate, with its lineage; returns its version or why not.

    ``force`` registers any other, too, marked as forced: it waits for a person's order to roll it out.
    """
    from components.kubeflow import NOTHING, read_candidate
    from components.registry.step import register as register_student

    candidate = read_candidate(student.path)
    if candidate is None:
        return NOTHING
    if candidate.decision != "promote" and not force:
        return candidate.decision
    return register_student(spec, candidate, force)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(spec: str, version: str, reason: str, key: str, run: str, force: bool = False) -> str:
    """Order a rollout of a registered version; the canary still decides. Returns the controller's outcome.

    ``force`` allows a version that the offline gate did not promote; an empty ``key`` is the id of the ``run``.
    """
    from components.registry.step import order

    return order(spec, "start", reason, key or run, {"version": version, "forced": force})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def rollback(spec: str, to: str, reason: str, key: str, run: str) -> str:
    """Order that an alias or version becomes champion now; returns the controller's outcome.

    An empty ``key`` is the id of the ``run``.
    """
    from components.registry.step import order

    return order(spec, "rollback", reason, key or run, {"to": to})
