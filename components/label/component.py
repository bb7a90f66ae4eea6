"""The Kubeflow component that labels a history."""

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def label_history(spec: str, history_uri: str) -> int:
    """Put a history on the topics and wait until the teacher has labelled it; returns its size."""
    from components.label.step import label_history as label

    return label(spec, history_uri)
