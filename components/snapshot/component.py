"""The Kubeflow component that freezes a window."""

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def snapshot(spec: str, start: str, dataset: dsl.Output[dsl.Dataset], run: str = "") -> str:
    """Freeze the new labels, or take the window that no student was made of; returns its digest or ``nothing``.

    ``start``: of the student that is to be made, ``champion`` or ``fresh``.
    """
    from components.runs.step import step
    from components.snapshot.step import take_snapshot

    with step(run, "snapshot") as say:
        rows, digest = take_snapshot(spec, start == "fresh")
        say(digest)
    dataset.metadata.update({"rows": rows, "digest": digest})
    with open(dataset.path, "w") as file:
        file.write(digest)
    return digest
