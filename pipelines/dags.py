"""The five pipelines. Their components are thin: what they do is in the ``step.py`` beside each.

They have no conditions: Kubeflow's local runner (2.16) puts a value between the quotes of the expression that it then
evaluates, cannot parse that, and takes every condition for false without failing. So a step that has nothing to do
passes that on to the next. Nothing is cached: all steps read and change what is outside of the pipeline.

Kubeflow's UI lists parameters by their names in alphabetical order, and shows no description of them: what a person
need not touch has a default and a name that comes last (``with_key``).

What they compile to is kept in :mod:`pipelines.compiled`, and a test says when to write it anew.
"""

from kfp import dsl

from components.distill.component import distill
from components.evaluate.component import choose, evaluate, report
from components.label.component import label_history
from components.registry.component import promote as promote_version
from components.registry.component import register
from components.registry.component import rollback as roll_back
from components.snapshot.component import snapshot
from components.synthetic.component import synthesise


@dsl.pipeline(
    name="bootstrap", description="Distil a first student from history: two variants, the better is registered."
)
def bootstrap(spec: str, history_uri: str, first_variant: str = "", second_variant: str = ""):
    """Label a history, freeze it, distil two variants and register the better if the gate would promote it.

    Args:
        spec: Path of the workload's spec file, as the components see it.
        history_uri: URI of the history: JSON lines, or a Parquet file, of inputs with the truth where it is known.
        first_variant: Name of a student variant of the spec. Empty is the spec's first.
        second_variant: Name of the variant to compare it with. Empty is the spec's first.
    """
    labelled = label_history(spec=spec, history_uri=history_uri).set_caching_options(False)
    window = snapshot(spec=spec, start="fresh").after(labelled).set_caching_options(False)
    judged = []
    for variant in (first_variant, second_variant):
        made = distill(spec=spec, variant=variant, start="fresh", digest=window.outputs["Output"]).set_caching_options(
            False
        )
        judged.append(evaluate(spec=spec, student=made.outputs["student"]).set_caching_options(False))
    best = choose(first=judged[0].outputs["judged"], second=judged[1].outputs["judged"]).set_caching_options(False)
    done = register(spec=spec, student=best.outputs["chosen"]).set_caching_options(False)
    report(spec=spec, student=best.outputs["chosen"]).after(done).set_caching_options(False)


@dsl.pipeline(
    name="continual", description="One update of the student: snapshot, distil, evaluate, register if it passes."
)
def continual(spec: str, force: bool = False):
    """Freeze what is new, train from the champion with replay, and register the student if the gate promotes it.

    Args:
        spec: Path of the workload's spec file, as the components see it.
        force: Register the student even if the gate holds or rejects it. It is marked as forced and does not start.
    """
    window = snapshot(spec=spec, start="champion").set_caching_options(False)
    made = distill(spec=spec, variant="", start="champion", digest=window.outputs["Output"]).set_caching_options(False)
    judged = evaluate(spec=spec, student=made.outputs["student"]).set_caching_options(False)
    done = register(spec=spec, student=judged.outputs["judged"], force=force).set_caching_options(False)
    # last: a rollout that the registration starts need not wait for it
    report(spec=spec, student=judged.outputs["judged"]).after(done).set_caching_options(False)


@dsl.pipeline(
    name="data-free",
    description="Distil a student from inputs that are made up, for a workload whose own may not be kept. It is held "
    "until real inputs judge it; the first student of those starts from it.",
)
def data_free(spec: str, method: str = "", rows: int = 0, steps: int = 0, seed: int = -1):
    """Make inputs up against the teacher, label and freeze them, distil a student and register it with its verdict.

    Args:
        spec: Path of the workload's spec file, as the components see it.
        method: How inputs are made up (noise, search, inversion, generator, chat, auto). Empty is the spec's.
        rows: How many. 0 is the spec's.
        steps: Of the optimiser, or rounds of the search. 0 is the spec's.
        seed: Of the random numbers. Negative is the spec's.
    """
    made_up = synthesise(spec=spec, method=method, rows=rows, steps=steps, seed=seed).set_caching_options(False)
    labelled = label_history(spec=spec, history_uri=made_up.output).set_caching_options(False)
    window = snapshot(spec=spec, start="fresh").after(labelled).set_caching_options(False)
    made = distill(spec=spec, variant="", start="fresh", digest=window.outputs["Output"]).set_caching_options(False)
    judged = evaluate(spec=spec, student=made.outputs["student"]).set_caching_options(False)
    # with its verdict, whatever that is: what was held starts no rollout, and is what real inputs go on from
    done = register(spec=spec, student=judged.outputs["judged"], force=True).set_caching_options(False)
    report(spec=spec, student=judged.outputs["judged"]).after(done).set_caching_options(False)


@dsl.pipeline(
    name="promote",
    description="Start the rollout of a registered version. The canary still decides. In a cluster the order is given "
    "once a pod has started, which takes tens of seconds.",
)
def promote(spec: str, version: str, reason: str, force: bool = False, with_key: str = ""):
    """Order the rollout of a version.

    Args:
        spec: Path of the workload's spec file, as the components see it.
        version: Version number in the registry.
        reason: Why; it goes into the ledger.
        force: Allow a version that the offline gate did not promote. The canary's guards still hold.
        with_key: Idempotency key. Empty is the run's id, so that a retried step orders nothing new.
    """
    promote_version(
        spec=spec, version=version, reason=reason, key=with_key, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, force=force
    ).set_caching_options(False)


@dsl.pipeline(
    name="rollback",
    description="Make the previous champion serve again: press Start. In a cluster the order is given once a pod has "
    "started, which takes tens of seconds; the console, 'cohobate rollback' and the admin API need a second.",
)
def rollback(
    spec: str,
    reason: str = "rolled back from the pipeline UI",
    to: str = "previous",
    with_key: str = "",
):
    """Make another version champion now.

    Args:
        spec: Path of the workload's spec file, as the components see it.
        reason: Why; it goes into the ledger.
        to: Alias or version number that becomes champion.
        with_key: Idempotency key. Empty is the run's id, so that a retried step orders nothing new.
    """
    roll_back(spec=spec, to=to, reason=reason, key=with_key, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER).set_caching_options(
        False
    )


PIPELINES = {
    "bootstrap": bootstrap,
    "continual": continual,
    "data-free": data_free,
    "promote": promote,
    "rollback": rollback,
}
"""The pipelines by name."""
