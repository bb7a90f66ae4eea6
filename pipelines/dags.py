"""The four pipelines. Their components are thin: what they do is in :mod:`components.steps`.

Branches test plain strings: the local runner takes a condition on a boolean of several outputs for false.
"""

from kfp import dsl

from components.distill.component import distill
from components.evaluate.component import choose, evaluate
from components.label.component import label_history
from components.registry.component import promote as promote_version
from components.registry.component import register
from components.registry.component import rollback as roll_back
from components.snapshot.component import snapshot


@dsl.pipeline(
    name="bootstrap", description="Distil a first student from history: two variants, the better is registered."
)
def bootstrap(spec: str, history_uri: str, first_variant: str = "", second_variant: str = ""):
    """Label a history, freeze it, distil two variants and register the better if the gate would promote it."""
    labelled = label_history(spec=spec, history_uri=history_uri)
    window = snapshot(spec=spec).after(labelled)
    digest = window.outputs["digest"]
    judged = []
    for variant in (first_variant, second_variant):
        made = distill(spec=spec, variant=variant, start="fresh", digest=digest)
        judged.append(evaluate(spec=spec, student=made.outputs["student"]))
    best = choose(first=judged[0].outputs["judged"], second=judged[1].outputs["judged"])
    with dsl.If(best.outputs["decision"] == "promote"):
        register(spec=spec, student=best.outputs["chosen"])


@dsl.pipeline(
    name="continual", description="One update of the student: snapshot, distil, evaluate, register if it passes."
)
def continual(spec: str):
    """Freeze what is new, train from the champion with replay, and register the student if the gate promotes it."""
    window = snapshot(spec=spec)
    with dsl.If(window.outputs["state"] == "new"):
        made = distill(spec=spec, variant="", start="champion", digest=window.outputs["digest"])
        judged = evaluate(spec=spec, student=made.outputs["student"])
        with dsl.If(judged.outputs["Output"] == "promote"):
            register(spec=spec, student=judged.outputs["judged"])


@dsl.pipeline(name="promote", description="Start the rollout of a registered version. The canary still decides.")
def promote(spec: str, version: str, reason: str, key: str = dsl.PIPELINE_JOB_ID_PLACEHOLDER):
    """Order a rollout; ``key`` makes a repeated run the same order."""
    promote_version(spec=spec, version=version, reason=reason, key=key)


@dsl.pipeline(
    name="rollback", description="Make the previous champion serve again, in seconds. Give a reason and press Start."
)
def rollback(
    spec: str,
    reason: str = "rolled back from the pipeline UI",
    to: str = "previous",
    key: str = dsl.PIPELINE_JOB_ID_PLACEHOLDER,
):
    """Order that ``to`` (an alias or a version) becomes champion now."""
    roll_back(spec=spec, to=to, reason=reason, key=key)


PIPELINES = {"bootstrap": bootstrap, "continual": continual, "promote": promote, "rollback": rollback}
"""The pipelines by name."""
