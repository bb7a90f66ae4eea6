"""The Kubeflow component that makes inputs up."""

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def synthesise(spec: str, method: str, rows: int, steps: int, seed: int) -> str:
    """Make inputs up against the teacher; returns the URI of a history of them."""
    from components.synthetic.step import synthesise as make_up

    return make_up(spec, method, rows, steps, seed)
