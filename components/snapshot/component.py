"""The Kubeflow component that freezes a window."""

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def snapshot(spec: str, dataset: dsl.Output[dsl.Dataset]) -> str:
    """Freeze the new labels to a snapshot; returns its digest, or ``nothing`` where there are no new labels."""
    from components.snapshot.step import take_snapshot

    rows, digest = take_snapshot(spec)
    dataset.metadata.update({"rows": rows, "digest": digest})
    with open(dataset.path, "w") as file:
        file.write(digest)
    return digest
