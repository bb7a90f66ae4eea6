"""The Kubeflow components that register a candidate and that order the rollout controller."""

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(spec: str, student: dsl.Input[dsl.Model], force: bool = False, run: str = "") -> str:
    """Register a student that the gate promotes as candidate, with its lineage; returns its version or why not.

    ``force`` registers any other, too, marked as forced: it waits for a person's order to roll it out.
    """
    from components.kubeflow import NOTHING, read_candidate
    from components.registry.step import register as register_student
    from components.runs.step import step

    candidate = read_candidate(student.path)
    with step(run, "register") as say:
        done = NOTHING if candidate is None else candidate.decision
        if candidate is not None and (candidate.decision == "promote" or force):
            done = register_student(spec, candidate, force)
        say(done)
    return done


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(spec: str, version: str, reason: str, key: str, run: str, force: bool = False, record: bool = False) -> str:
    """Order a rollout of a registered version; the canary still decides. Returns the controller's outcome.

    ``force`` allows a version that the offline gate did not promote; an empty ``key`` is the id of the ``run``,
    which is recorded where nobody else does (``record``).
    """
    from components.registry.step import order
    from components.runs.step import recorded

    with recorded(spec, "promote", reason, run if record else "") as say:
        done = order(spec, "start", reason, key or run, {"version": version, "forced": force})
        say(done)
    return done


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def rollback(spec: str, to: str, reason: str, key: str, run: str, record: bool = False) -> str:
    """Order that an alias or version becomes champion now; returns the controller's outcome.

    An empty ``key`` is the id of the ``run``, which is recorded where nobody else does (``record``).
    """
    from components.registry.step import order
    from components.runs.step import recorded

    with recorded(spec, "rollback", reason, run if record else "") as say:
        done = order(spec, "rollback", reason, key or run, {"to": to})
        say(done)
    return done
