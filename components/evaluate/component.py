"""The Kubeflow components that judge students."""

from kfp import dsl

from components.contracts.settings import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    spec: str,
    student: dsl.Input[dsl.Model],
    judged: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    run: str = "",
) -> str:
    """Measure the exported artifact and ask the gate; returns ``promote``, ``hold``, ``reject`` or ``nothing``."""
    from components.evaluate.step import judge
    from components.kubeflow import NOTHING, read_candidate, show, write_candidate
    from components.runs.step import step

    candidate = read_candidate(student.path)
    with step(run, "evaluate") as say:
        done = judge(spec, candidate) if candidate else None
        say(done.decision if done else NOTHING)
    write_candidate(judged, done)
    show(done, metrics, confusion)
    return done.decision if done else NOTHING


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report(
    spec: str,
    student: dsl.Input[dsl.Model],
    html: dsl.Output[dsl.HTML],
    quality: dsl.Output[dsl.HTML],
    run: str = "",
):
    """Write Evidently's report of the window that the student was made from, and the page of its evaluation."""
    from components.evaluate.step import quality_page
    from components.evaluate.step import report as write_report
    from components.kubeflow import read_candidate
    from components.runs.step import step

    candidate = read_candidate(student.path)
    with step(run, "report"):
        with open(quality.path, "wb") as file:
            file.write(quality_page(spec, candidate) if candidate else b"<p>There were no new labels.</p>")
        page = write_report(spec, candidate) if candidate else b"<p>There were no new labels.</p>"
        with open(html.path, "wb") as file:
            file.write(page or b"<p>There is no older window to compare with yet.</p>")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def choose(
    first: dsl.Input[dsl.Model], second: dsl.Input[dsl.Model], chosen: dsl.Output[dsl.Model], run: str = ""
) -> str:
    """Of two judged students, the one to promote that agrees better with the teacher; returns the gate's decision."""
    from components.kubeflow import NOTHING, read_candidate, write_candidate
    from components.runs.step import step

    candidates = [c for c in (read_candidate(m.path) for m in (first, second)) if c]
    best = max(candidates, key=lambda c: c.score, default=None)
    with step(run, "choose") as say:
        write_candidate(chosen, best)
        say(best.decision if best else NOTHING)
    return best.decision if best else NOTHING
