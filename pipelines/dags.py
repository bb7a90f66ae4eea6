"""The five pipelines. Their components are thin: what they do is in the ``step.py`` beside each.

They have no conditions: Kubeflow's local runner (2.16) puts a value between the quotes of the expression that it then
evaluates, cannot parse that, and takes every condition for false without failing. So a step that has nothing to do
passes that on to the next. Nothing is cached: all steps read and change what is outside of the pipeline.

On Kubeflow an update stands between a first step and an exit handler (:mod:`components.runs.step`), so that whoever
starts it there, it is one at a time, and ``status`` and the ledger know it; an order records itself in its one step,
since each further pod would delay a rollback. On this machine :mod:`pipelines.local` does both, and the same pipelines
are without (:func:`on_this_machine`): the local runner runs no exit handler after a failure.

Kubeflow's UI lists parameters by their names in alphabetical order, and shows no description of them: what a person
need not touch has a default and a name that comes last (``with_key``, ``with_run``).

What they compile to is kept in :mod:`pipelines.compiled`, and a test says when to write it anew.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kfp import dsl

from components.distill.component import distill
from components.evaluate.component import choose, evaluate, report
from components.label.component import label_history
from components.registry.component import promote as promote_version
from components.registry.component import register
from components.registry.component import rollback as roll_back
from components.runs.component import begin, finish
from components.snapshot.component import snapshot
from components.synthetic.component import synthesise

FROM_THE_UI = "started in Kubeflow"
"""The reason of a run for which nobody gives one."""

_recording: ContextVar[bool] = ContextVar("recording", default=True)
"""Whether the pipelines that are made record their runs themselves."""


@contextmanager
def _recorded(pipeline: str, spec: Any, reason: Any, with_run: Any) -> Iterator[tuple[Any, Any]]:
    """An update's steps between its first one and its exit handler.

    Gives them the id of the recorded run, and the spec: one that is named by its workload is the version in force when
    the run begins, for all of them.
    """
    if not _recording.get():
        yield "", spec
        return
    end = finish(spec=spec, key=dsl.PIPELINE_JOB_ID_PLACEHOLDER).set_caching_options(False)
    with dsl.ExitHandler(end, name="update"):
        begun = begin(
            spec=spec, pipeline=pipeline, reason=reason, key=dsl.PIPELINE_JOB_ID_PLACEHOLDER, with_run=with_run
        )
        begun.set_caching_options(False)
        yield begun.outputs["run"], begun.outputs["spec"]


def bootstrap(
    spec: str,
    history_uri: str,
    first_variant: str = "",
    second_variant: str = "",
    reason: str = FROM_THE_UI,
    with_run: str = "",
) -> None:
    """Label a history, freeze it, distil two variants and register the better if the gate would promote it.

    Args:
        spec: Path of the workload's spec file, as the components see it, or workload:NAME.
        history_uri: URI of the history: JSON lines, or a Parquet file, of inputs with the truth where it is known.
        first_variant: Name of a student variant of the spec. Empty is the spec's first.
        second_variant: Name of the variant to compare it with. Empty is the spec's first.
        reason: Why; it is recorded with the run.
        with_run: Id of the run where it is recorded already. Empty records one.
    """
    with _recorded("bootstrap", spec, reason, with_run) as (run, spec):
        labelled = label_history(spec=spec, history_uri=history_uri, run=run).set_caching_options(False)
        window = snapshot(spec=spec, start="fresh", run=run).after(labelled).set_caching_options(False)
        judged = []
        for variant in (first_variant, second_variant):
            made = distill(
                spec=spec, variant=variant, start="fresh", digest=window.outputs["Output"], run=run
            ).set_caching_options(False)
            judged.append(evaluate(spec=spec, student=made.outputs["student"], run=run).set_caching_options(False))
        best = choose(
            first=judged[0].outputs["judged"], second=judged[1].outputs["judged"], run=run
        ).set_caching_options(False)
        _end(spec, best.outputs["chosen"], False, run)


def continual(spec: str, force: bool = False, reason: str = FROM_THE_UI, with_run: str = "") -> None:
    """Freeze what is new, train from the champion with replay, and register the student if the gate promotes it.

    Args:
        spec: Path of the workload's spec file, as the components see it, or workload:NAME.
        force: Register the student even if the gate holds or rejects it. It is marked as forced and does not start.
        reason: Why; it is recorded with the run.
        with_run: Id of the run where it is recorded already. Empty records one.
    """
    with _recorded("continual", spec, reason, with_run) as (run, spec):
        window = snapshot(spec=spec, start="champion", run=run).set_caching_options(False)
        made = distill(
            spec=spec, variant="", start="champion", digest=window.outputs["Output"], run=run
        ).set_caching_options(False)
        judged = evaluate(spec=spec, student=made.outputs["student"], run=run).set_caching_options(False)
        _end(spec, judged.outputs["judged"], force, run)


def data_free(
    spec: str,
    method: str = "",
    rows: int = 0,
    steps: int = 0,
    seed: int = -1,
    reason: str = FROM_THE_UI,
    with_run: str = "",
) -> None:
    """Make inputs up against the teacher, label and freeze them, distil a student and register it with its verdict.

    Args:
        spec: Path of the workload's spec file, as the components see it, or workload:NAME.
        method: How inputs are made up (noise, search, inversion, generator, chat, auto). Empty is the spec's.
        rows: How many. 0 is the spec's.
        steps: Of the optimiser, or rounds of the search. 0 is the spec's.
        seed: Of the random numbers. Negative is the spec's.
        reason: Why; it is recorded with the run.
        with_run: Id of the run where it is recorded already. Empty records one.
    """
    with _recorded("data-free", spec, reason, with_run) as (run, spec):
        made_up = synthesise(spec=spec, method=method, rows=rows, steps=steps, seed=seed, run=run).set_caching_options(
            False
        )
        labelled = label_history(spec=spec, history_uri=made_up.output, run=run).set_caching_options(False)
        window = snapshot(spec=spec, start="fresh", run=run).after(labelled).set_caching_options(False)
        made = distill(
            spec=spec, variant="", start="fresh", digest=window.outputs["Output"], run=run
        ).set_caching_options(False)
        judged = evaluate(spec=spec, student=made.outputs["student"], run=run).set_caching_options(False)
        # with its verdict, whatever that is: what was held starts no rollout, and is what real inputs go on from
        _end(spec, judged.outputs["judged"], True, run)


def _end(spec: Any, student: Any, force: Any, run: Any) -> None:
    """Register a judged student, and report last: a rollout that the registration starts need not wait for that."""
    done = register(spec=spec, student=student, force=force, run=run).set_caching_options(False)
    report(spec=spec, student=student, run=run).after(done).set_caching_options(False)


def promote(spec: str, version: str, reason: str, force: bool = False, with_key: str = "") -> None:
    """Order the rollout of a version.

    Args:
        spec: Path of the workload's spec file, as the components see it, or workload:NAME.
        version: Version number in the registry.
        reason: Why; it goes into the ledger.
        force: Allow a version that the offline gate did not promote. The canary's guards still hold.
        with_key: Idempotency key. Empty is the run's id, so that a retried step orders nothing new.
    """
    promote_version(
        spec=spec, version=version, reason=reason, key=with_key, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, force=force,
        record=_recording.get(),
    ).set_caching_options(False)  # fmt: skip


def rollback(
    spec: str,
    reason: str = "rolled back from the pipeline UI",
    to: str = "previous",
    with_key: str = "",
) -> None:
    """Make another version champion now.

    Args:
        spec: Path of the workload's spec file, as the components see it, or workload:NAME.
        reason: Why; it goes into the ledger.
        to: Alias or version number that becomes champion.
        with_key: Idempotency key. Empty is the run's id, so that a retried step orders nothing new.
    """
    roll_back(
        spec=spec, to=to, reason=reason, key=with_key, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, record=_recording.get()
    ).set_caching_options(False)


DESCRIBED: dict[str, tuple[Callable[..., None], str]] = {
    "bootstrap": (bootstrap, "Distil a first student from history: two variants, the better is registered."),
    "continual": (continual, "One update of the student: snapshot, distil, evaluate, register if it passes."),
    "data-free": (
        data_free,
        "Distil a student from inputs that are made up, for a workload whose own may not be kept. It is held "
        "until real inputs judge it; the first student of those starts from it.",
    ),
    "promote": (
        promote,
        "Start the rollout of a registered version. The canary still decides. In a cluster the order is given "
        "once a pod has started, which takes tens of seconds.",
    ),
    "rollback": (
        rollback,
        "Make the previous champion serve again: press Start. In a cluster the order is given once a pod has "
        "started, which takes tens of seconds; the console, 'cohobate rollback' and the admin API need a second.",
    ),
}
"""The pipelines' functions and descriptions, by name."""


def _pipeline(name: str) -> Callable[..., Any]:
    function, description = DESCRIBED[name]
    made: Callable[..., Any] = dsl.pipeline(name=name, description=description)(function)
    return made


def on_this_machine(name: str) -> Callable[..., Any]:
    """The pipeline of this name as the local runner runs it: whoever runs it records the run."""
    token = _recording.set(False)
    try:
        return _pipeline(name)
    finally:
        _recording.reset(token)


PIPELINES = {name: _pipeline(name) for name in DESCRIBED}
"""The pipelines by name, as Kubeflow runs them."""
