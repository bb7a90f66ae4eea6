"""The Kubeflow component that trains a student."""

from kfp import dsl

IMAGE = "cohobate:0.1.0"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def distill(
    spec: str, variant: str, start: str, digest: str, student: dsl.Output[dsl.Model], metrics: dsl.Output[dsl.Metrics]
):
    """Train on the window ``digest`` and those before it; ``start`` is ``champion`` or ``fresh``."""
    import msgspec

    from components.steps import distil

    made = distil(spec, variant, start == "fresh")
    with open(student.path, "wb") as file:
        file.write(msgspec.json.encode(made))
    student.metadata.update({"uri": made.uri, "digest": made.digest, "precision": made.card.precision})
    for name, value in made.metrics.items():
        metrics.log_metric(name, value)
