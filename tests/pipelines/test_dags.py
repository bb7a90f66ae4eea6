import inspect
import textwrap

import pytest
import yaml

from components.contracts.settings import IMAGE, Settings
from pipelines.compiled import FOLDER, read
from pipelines.parameters import PARAMETERS, REQUIRED

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    from pipelines.compiling import compile_all

    return {p.stem: yaml.load(p.read_text(), yaml.CSafeLoader) for p in compile_all(tmp_path_factory.mktemp("ir"))}


def tasks_of(document):
    """All tasks: those of the pipeline, and those that stand between an update's first step and its exit handler."""
    inner = document["components"].get("comp-exit-handler-1", {"dag": {"tasks": {}}})
    return document["root"]["dag"]["tasks"] | inner["dag"]["tasks"]


def test_the_pipelines_compile_with_the_parameters_that_the_runner_knows(compiled):
    for name, document in compiled.items():
        parameters = document["root"]["inputDefinitions"]["parameters"]
        assert set(parameters) == {"spec", *PARAMETERS[name]}
        assert all(p["description"] for p in parameters.values())
        needed = {n for n, p in parameters.items() if not p.get("isOptional")} - {"spec", "reason"}
        assert needed == ({REQUIRED[name]} if name in REQUIRED else set())
    assert set(compiled) == set(PARAMETERS)


def test_the_compiled_pipelines_that_are_kept_are_what_the_compiler_makes(compiled):
    def apart_from_its_maker(document):
        return {name: part for name, part in document.items() if name != "sdkVersion"}

    kept = {name: tuple(map(apart_from_its_maker, read(FOLDER / f"{name}.yaml").documents)) for name in PARAMETERS}
    assert kept == {name: (apart_from_its_maker(document),) for name, document in compiled.items()}, (
        "write them anew: cohobate pipeline compile --output pipelines/compiled"
    )


def test_a_workloads_own_pipeline_is_what_the_compiler_makes_of_its_name_and_parameters(tmp_path):
    from kfp import compiler

    from pipelines.dags import PIPELINES

    for name, pipeline in PIPELINES.items():
        path, given = tmp_path / f"{name}.yaml", {"spec": "/specs/files.yaml"}
        compiler.Compiler().compile(pipeline, str(path), pipeline_name=f"files-{name}", pipeline_parameters=given)
        made = read(path)
        # The compiler leaves a parameter mandatory that is given a default so; one of the function's own is not.
        made.documents[0]["root"]["inputDefinitions"]["parameters"]["spec"]["isOptional"] = True
        assert read(FOLDER / f"{name}.yaml").for_workload("files", given) == made


def test_in_the_ui_what_a_person_need_not_touch_comes_last_and_has_a_default(compiled):
    """It lists parameters by their names in alphabetical order."""
    shown = {name: sorted(one["root"]["inputDefinitions"]["parameters"]) for name, one in compiled.items()}
    assert shown["rollback"] == ["reason", "spec", "to", "with_key"]
    assert shown["promote"] == ["force", "reason", "spec", "version", "with_key"]
    for name in ("rollback", "promote"):
        assert compiled[name]["root"]["inputDefinitions"]["parameters"]["with_key"]["defaultValue"] == ""


def test_descriptions_promise_no_seconds_of_a_pod(compiled):
    for name in ("rollback", "promote"):
        assert "tens of seconds" in compiled[name]["pipelineInfo"]["description"]


def test_no_step_is_cached_and_none_has_a_condition(compiled):
    for document in compiled.values():
        for name, task in tasks_of(document).items():
            assert name == "exit-handler-1" or not task["cachingOptions"].get("enableCache", False)
            assert "triggerPolicy" not in task or "condition" not in task["triggerPolicy"]


def test_the_rollback_of_a_person_on_call_needs_the_spec_only(compiled):
    parameters = compiled["rollback"]["root"]["inputDefinitions"]["parameters"]
    assert parameters["to"]["defaultValue"] == "previous"
    assert parameters["reason"]["defaultValue"]
    run = compiled["rollback"]["root"]["dag"]["tasks"]["rollback"]["inputs"]["parameters"]["run"]
    assert run["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}"


def test_the_bootstrap_compares_two_variants_and_the_better_one_goes_on(compiled):
    tasks = tasks_of(compiled["bootstrap"])
    variants = [t["inputs"]["parameters"]["variant"]["componentInputParameter"] for n, t in tasks.items() if "dis" in n]
    assert variants == ["pipelinechannel--first_variant", "pipelinechannel--second_variant"]
    assert tasks["snapshot"]["dependentTasks"] == ["begin", "label-history"]
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
    tasks = tasks_of(compiled["continual"])
    assert "register" in tasks["report"]["dependentTasks"]
    assert tasks["register"]["dependentTasks"] == ["begin", "evaluate"]


@pytest.mark.parametrize("name", ["bootstrap", "continual", "data-free"])
def test_an_update_records_itself_before_anything_else_and_whatever_becomes_of_it(compiled, name):
    tasks, outer = tasks_of(compiled[name]), compiled[name]["root"]["dag"]["tasks"]
    assert set(outer) == {"exit-handler-1", "finish"}
    assert outer["finish"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    for task in ("begin", "finish"):
        key = tasks[task]["inputs"]["parameters"]["key"]["runtimeValue"]["constant"]
        assert key == "{{$.pipeline_job_uuid}}"
    assert tasks["begin"]["inputs"]["parameters"]["pipeline"]["runtimeValue"]["constant"] == name
    for task in set(tasks) - {"exit-handler-1", "finish", "begin"}:
        given = tasks[task]["inputs"]["parameters"]
        for what in ("run", "spec") if task != "choose" else ("run",):
            begun = given[what]["taskOutputParameter"]
            assert begun == {"outputParameterKey": what, "producerTask": "begin"}, task


def test_on_this_machine_nothing_records_itself():
    from pipelines.dags import PIPELINES, on_this_machine

    for name in PIPELINES:
        tasks = on_this_machine(name).pipeline_spec.root.dag.tasks
        assert {"begin", "finish", "exit-handler-1"}.isdisjoint(tasks)
        for task in tasks.values():
            given = task.inputs.parameters
            assert not given["record"].runtime_value.constant.bool_value if "record" in given else True
            assert "record" in given or given["run"].runtime_value.constant.string_value == ""
    order = PIPELINES["rollback"].pipeline_spec.root.dag.tasks["rollback"].inputs.parameters
    assert order["record"].runtime_value.constant.bool_value


def test_another_image_can_be_named(tmp_path, compiled):
    from pipelines.compiling import compile_all

    images = set()
    for path in compile_all(tmp_path, Settings(kfp_image="registry.local/cohobate:2")):
        executors = yaml.load(path.read_text(), yaml.CSafeLoader)["deploymentSpec"]["executors"].values()
        images |= {e["container"]["image"] for e in executors}
    assert images == {"registry.local/cohobate:2"}
    first = compiled["continual"]["deploymentSpec"]["executors"]["exec-snapshot"]
    assert first["container"]["image"] == IMAGE


def test_components_are_thin():
    from components.distill import component as distill
    from components.evaluate import component as evaluate
    from components.label import component as label
    from components.registry import component as registry
    from components.runs import component as runs
    from components.snapshot import component as snapshot
    from components.synthetic import component as synthetic

    for module in (distill, evaluate, label, registry, runs, snapshot, synthetic):
        for name, value in vars(module).items():
            if not hasattr(value, "python_func"):
                continue
            source = textwrap.dedent(inspect.getsource(value.python_func))
            body = source.rsplit('"""', 1)[1].strip().splitlines()
            assert 1 < len(body) <= 15, name
