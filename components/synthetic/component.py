"""The Kubeflow component that makes inputs up."""

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def synthesise(spec: str, method: str, rows: int, steps: int, seed: int, run: str = "") -> str:
    """Make inputs up against the teacher; returns the URI of a history of them."""
    from components.runs.step import step
    from components.synthetic.step import synthesise as make_up

    with step(run, "synthesise") as say:
        uri = make_up(spec, method, rows, steps, seed)
        say(uri)
    return uri
