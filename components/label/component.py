"""The Kubeflow component that labels a history."""

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def label_history(spec: str, history_uri: str, run: str = "") -> int:
    """Put a history on the topics and wait until the teacher has labelled it; returns its size."""
    from components.label.step import label_history as label
    from components.runs.step import step

    with step(run, "label-history") as say:
        rows = label(spec, history_uri)
        say(rows)
    return rows
