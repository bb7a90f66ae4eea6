"""The Kubeflow component that freezes a window."""

from typing import NamedTuple

from kfp import dsl

IMAGE = "cohobate:0.1.0"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def snapshot(spec: str, dataset: dsl.Output[dsl.Dataset]) -> NamedTuple("Outputs", state=str, rows=int, digest=str):
    """Freeze the new labels to a snapshot; ``state`` is ``new`` or ``nothing``."""
    from typing import NamedTuple

    from components.steps import take_snapshot

    rows, digest = take_snapshot(spec)
    dataset.metadata.update({"rows": rows, "digest": digest})
    with open(dataset.path, "w") as file:
        file.write(digest)
    outputs = NamedTuple("Outputs", state=str, rows=int, digest=str)  # type: ignore[misc]
    return outputs("new" if rows else "nothing", rows, digest)  # type: ignore[call-arg]
