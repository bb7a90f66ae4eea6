import inspect
import textwrap

import pytest
import yaml

from components.contracts.settings import IMAGE
from pipelines.local import PARAMETERS, REQUIRED

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    from pipelines.remote import compile_all

    return {p.stem: yaml.safe_load(p.read_text()) for p in compile_all(tmp_path_factory.mktemp("ir"))}


def test_the_pipelines_compile_with_the_parameters_that_the_runner_knows(compiled):
    for name, document in compiled.items():
        parameters = document["root"]["inputDefinitions"]["parameters"]
        assert set(parameters) == {"spec", *PARAMETERS[name]}
        assert all(p["description"] for p in parameters.values())
        needed = {n for n, p in parameters.items() if not p.get("isOptional")} - {"spec", "reason"}
        assert needed == ({REQUIRED[name]} if name in REQUIRED else set())
    assert set(compiled) == set(PARAMETERS)


def test_no_step_is_cached_and_none_has_a_condition(compiled):
    for document in compiled.values():
        for task in document["root"]["dag"]["tasks"].values():
            assert not task["cachingOptions"].get("enableCache", False)
            assert "triggerPolicy" not in task or "condition" not in task["triggerPolicy"]


def test_the_rollback_of_a_person_on_call_needs_the_spec_only(compiled):
    parameters = compiled["rollback"]["root"]["inputDefinitions"]["parameters"]
    assert parameters["to"]["defaultValue"] == "previous"
    assert parameters["reason"]["defaultValue"]
    run = compiled["rollback"]["root"]["dag"]["tasks"]["rollback"]["inputs"]["parameters"]["run"]
    assert run["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}"


def test_the_bootstrap_compares_two_variants_and_the_better_one_goes_on(compiled):
    tasks = compiled["bootstrap"]["root"]["dag"]["tasks"]
    variants = [t["inputs"]["parameters"]["variant"]["componentInputParameter"] for n, t in tasks.items() if "dis" in n]
    assert variants == ["first_variant", "second_variant"]
    assert tasks["snapshot"]["dependentTasks"] == ["label-history"]
    assert tasks["register"]["inputs"]["artifacts"]["student"]["taskOutputArtifact"]["producerTask"] == "choose"


def test_the_evaluation_shows_what_the_kubeflow_ui_can_draw(compiled):
    outputs = compiled["continual"]["components"]["comp-evaluate"]["outputDefinitions"]["artifacts"]
    kinds = {n: a["artifactType"]["schemaTitle"] for n, a in outputs.items()}
    assert kinds == {
        "judged": "system.Model",
        "metrics": "system.Metrics",
        "confusion": "system.ClassificationMetrics",
    }
    pages = compiled["continual"]["components"]["comp-report"]["outputDefinitions"]["artifacts"]
    assert {n: p["artifactType"]["schemaTitle"] for n, p in pages.items()} == {
        "html": "system.HTML", "quality": "system.HTML",
    }  # fmt: skip
    taken = compiled["continual"]["components"]["comp-snapshot"]["outputDefinitions"]["artifacts"]
    assert taken["dataset"]["artifactType"]["schemaTitle"] == "system.Dataset"


def test_a_candidate_is_registered_before_the_report_is_written(compiled):
    tasks = compiled["continual"]["root"]["dag"]["tasks"]
    assert "register" in tasks["report"]["dependentTasks"]
    assert tasks["register"]["dependentTasks"] == ["evaluate"]


def test_another_image_can_be_named(tmp_path, compiled):
    from pipelines.remote import compile_all

    images = set()
    for path in compile_all(tmp_path, image="registry.local/cohobate:2"):
        executors = yaml.safe_load(path.read_text())["deploymentSpec"]["executors"].values()
        images |= {e["container"]["image"] for e in executors}
    assert images == {"registry.local/cohobate:2"}
    first = compiled["continual"]["deploymentSpec"]["executors"]["exec-snapshot"]
    assert first["container"]["image"] == IMAGE


def test_components_are_thin():
    from components.distill import component as distill
    from components.evaluate import component as evaluate
    from components.label import component as label
    from components.registry import component as registry
    from components.snapshot import component as snapshot

    for module in (distill, evaluate, label, registry, snapshot):
        for name, value in vars(module).items():
            if not hasattr(value, "python_func"):
                continue
            source = textwrap.dedent(inspect.getsource(value.python_func))
            body = source.rsplit('"""', 1)[1].strip().splitlines()
            assert 1 < len(body) <= 15, name
