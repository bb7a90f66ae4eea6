import importlib

import msgspec
import pytest

from components.contracts.errors import ConfigError
from components.contracts.spec import Factory, Groups, Spec, build, load_spec, resolve, workload
from components.contracts.spec.objective import Bernoulli, Truth
from components.contracts.spec.privacy import Privacy
from components.contracts.spec.references import MOVED
from components.contracts.spec.serve import Asynchronous
from components.contracts.spec.student import Student

MINIMAL = {
    "name": "files",
    "teacher": {"factory": "teachers.py:Sure", "options": {"label": "a"}},
    "features": {"factory": "builtins:dict"},
}


def write(tmp_path, **changes):
    path = tmp_path / "files.yaml"
    path.write_bytes(msgspec.yaml.encode({**MINIMAL, **changes}))
    return path


FIRST = "ad2cdb57d32fec5bf4c0dd90df4bfadafd5c518bfd79ee1b99ff67db72192a9c"


def test_fields_that_came_later_leave_the_digest_that_students_lineage_names():
    bare = Spec(name="w", teacher=Factory(factory="t:T"), features=Factory(factory="builtins:dict"))
    assert msgspec.structs.replace(bare, files=("a.txt",)).digest != bare.digest
    own = [Student(pretrain="off"), Student(epochs=12), Student(epochs=30), Student(learning_rate=0.005), Student()]
    assert len({msgspec.structs.replace(bare, student=one).digest for one in own}) == len(own)
    was = Student(pretrain="off", epochs=12, learning_rate=0.005)  # what is left out now meant that
    assert msgspec.structs.replace(bare, student=was).digest == FIRST
    limits = msgspec.structs.replace(bare.limits, groups={"g": Groups(field="f", values=("a", "b"))})
    assert msgspec.structs.replace(bare, limits=limits).digest != bare.digest


def test_few_rows_are_passed_over_as_often_as_steps_are_needed():
    assert [Student().epochs_of(rows) for rows in (1, 64, 400, 1_600, 100_000)] == [300, 300, 43, 12, 12]
    assert Student(epochs=5).epochs_of(10) == 5 and Student(accumulate=4).epochs_of(1_600) == 43
    assert Student(privacy=Privacy(epsilon=1.0, delta=1e-5, unit="input")).epochs_of(10) == 12


def test_in_private_defaults_are_small():
    private = Student(privacy=Privacy(epsilon=1.0, delta=1e-5, unit="input"))
    assert (private.rate(0.01), Student().rate(0.01), Student().rate(None)) == (0.005, 0.01, 0.005)
    assert Student(learning_rate=0.02).rate(0.01) == 0.02
    widths = [s.network_of(s.variants[0]).options for s in (private, Student())]
    assert widths == [{"dim": 32, "hidden": 64}, {"dim": 128, "hidden": 256}]


def test_a_minimal_spec_has_defaults_and_knows_its_file(tmp_path):
    path = write(tmp_path)
    spec = load_spec(path)
    assert (spec.name, spec.task, spec.entity, spec.partitions) == ("files", "classification", "key", 1)
    assert spec.source == str(path.resolve())
    assert spec.student.variants[0].name == "base"


def test_topics_carry_the_workload(tmp_path):
    spec = load_spec(write(tmp_path))
    assert spec.topic("inputs.dlq") == "files.inputs.dlq"
    assert spec.topics == (
        "files.inputs", "files.inputs.urgent", "files.labels", "files.predictions", "files.truth", "files.inputs.dlq",
        "files.labels.quarantine", "files.labels.refused",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": "Files"}, r"\$\.name"),
        ({"name": ""}, r"\$\.name"),
        ({"colour": "red"}, "colour"),
        ({"task": "ranking"}, r"\$\.task"),
        ({"student": {"epochs": 0}}, r"\$\.student\.epochs"),
        ({"student": {"holdout_share": 0.5}}, r"\$\.student\.holdout_share"),
        ({"student": {"variants": []}}, r"\$\.student\.variants"),
        ({"student": {"variants": [{"name": "a"}, {"name": "b", "dim": -1}]}}, r"\$\.student\.variants\[1\]\.dim"),
        ({"student": {"export": {"serve": "int4"}}}, r"\$\.student\.export\.serve"),
        ({"student": {"export": {"also": ["float32"]}}}, r"\$\.student\.export\.also"),
        ({"student": {"export": {"pruning": {"epochs": 1}}}}, "share"),
        ({"student": {"export": {"pruning": {"share": 1.0}}}}, r"\$\.student\.export\.pruning\.share"),
        ({"limits": {"min_accuracy": 1.5}}, r"\$\.limits\.min_accuracy"),
        ({"limits": {"min_acuracy": 0.5}}, "min_acuracy"),
        ({"monitor": {"alpha": 0}}, r"\$\.monitor\.alpha"),
        ({"label": {"audit_share": 1.0}}, r"\$\.label\.audit_share"),
        ({"label": {"policy": {"kind": "oracle"}}}, r"\$\.label\.policy\.kind"),
        ({"label": {"policy": {"share": 0}}}, r"\$\.label\.policy\.share"),
        ({"label": {"policy": {"floor": 0}}}, r"\$\.label\.policy\.floor"),
        ({"label": {"budget": {"per_hour": 0}}}, r"\$\.label\.budget\.per_hour"),
        ({"label": {"budget": {"per_week": 1}}}, "per_week"),
        ({"label": {"budget": {"reserve": 1}}}, r"\$\.label\.budget\.reserve"),
        ({"label": {"budget": {"unit": "dollars"}}}, r"\$\.label\.budget\.unit"),
        ({"rollout": {"steps": [{"weight": 2.0}]}}, r"\$\.rollout\.steps\[0\]\.weight"),
        ({"teacher": {"factory": 3}}, r"\$\.teacher\.factory"),
        ({"partitions": "many"}, r"\$\.partitions"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(tmp_path, changes, path):
    with pytest.raises(ConfigError, match=path) as caught:
        load_spec(write(tmp_path, **changes))
    assert str(tmp_path) in str(caught.value)


CHAT = "components.teachers.openai_chat:ChatTeacher"


@pytest.mark.parametrize("classes", ["[yes, no]", "[0, 1]", "[ham, 1.0]", "[on, off]", "[ham, null]", "yes", "[a, '']"])
@pytest.mark.parametrize("depth", ["teacher", "primary", "expert"])
def test_class_names_that_yaml_does_not_read_as_text_are_refused_at_load(tmp_path, classes, depth):
    inner = f"{{factory: '{CHAT}', options: {{url: u, classes: {classes}}}}}"
    nested = f"{{factory: 'components.review.human:HumanTeacher', options: {{below: 0.5, primary: {inner}}}}}"
    teacher = {"teacher": inner, "primary": nested, "expert": "{factory: 't:T'}"}[depth]
    path = tmp_path / "files.yaml"
    path.write_text(f"name: files\nteacher: {teacher}\nfeatures: {{factory: 'f:F'}}\n")
    if depth == "expert":
        path.write_text(path.read_text() + f"serve: {{deferral: {{to: [expert], expert: {inner}}}}}\n")
    with pytest.raises(ConfigError, match=r"options\.classes is .*(quote class names|must be a list)"):
        load_spec(path)
    path.write_text(path.read_text().replace(f"classes: {classes}", 'classes: ["yes", "no", "0", "1"]'))
    assert load_spec(path).name == "files"


def test_what_a_teacher_of_the_users_own_calls_classes_is_its_own_affair(tmp_path):
    load_spec(write(tmp_path, teacher={"factory": "own.py:Teacher", "options": {"classes": 5}}))


def test_other_text_that_yaml_does_not_read_as_text_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match=r"\$\.truth_sources\[0\]`; quote it"):
        load_spec(write(tmp_path, truth_sources=[True]))


@pytest.mark.parametrize("weights", [[0.1, 0.05], [0.0, 0.0], [0.5, 1.0]])
def test_rollout_weights_rise_and_end_below_one(tmp_path, weights):
    with pytest.raises(ConfigError, match=r"rollout\.steps"):
        load_spec(write(tmp_path, rollout={"steps": [{"weight": w} for w in weights]}))


@pytest.mark.parametrize(
    ("export", "field"),
    [
        ({"serve": "pruned"}, "pruning"),
        ({"also": ["pruned_int8"]}, "pruning"),
        ({"serve": "int8", "pruning": {"share": 0.5}}, "pruning"),
        ({"serve": "int8", "also": ["int8"]}, "also"),
        ({"also": ["pruned", "pruned"], "pruning": {"share": 0.5}}, "also"),
    ],
)
def test_exports_that_contradict_each_other_are_refused(tmp_path, export, field):
    with pytest.raises(ConfigError, match=rf"student\.export\.{field}"):
        load_spec(write(tmp_path, student={"export": export}))


def test_a_missing_file_and_one_that_is_not_yaml(tmp_path):
    with pytest.raises(ConfigError, match="that exists"):
        load_spec(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: [unclosed")
    with pytest.raises(ConfigError, match="spec is"):
        load_spec(bad)


def test_a_missing_required_field_is_named(tmp_path):
    path = tmp_path / "files.yaml"
    path.write_text("name: files\n")
    with pytest.raises(ConfigError, match="teacher"):
        load_spec(path)


def test_the_digest_is_of_the_content_not_of_the_place(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = load_spec(write(tmp_path / "a")), load_spec(write(tmp_path / "b"))
    assert one.source != two.source
    assert one.digest == two.digest
    assert load_spec(write(tmp_path / "b", seed=1)).digest != one.digest


def test_specs_are_frozen(tmp_path):
    spec = load_spec(write(tmp_path))
    with pytest.raises(AttributeError):
        spec.name = "mail"
    assert isinstance(spec, Spec)


TEACHERS = """
class Sure:
    def __init__(self, label):
        self.label = label
"""


def test_a_factory_of_the_users_file_is_found_beside_the_spec(tmp_path):
    (tmp_path / "teachers.py").write_text(TEACHERS)
    spec = load_spec(write(tmp_path))
    teacher = build(spec.teacher, spec.source)
    assert teacher.label == "a"
    assert resolve("teachers.py:Sure", spec.source) is type(teacher)


def test_a_factory_of_a_module_is_imported():
    assert build(Factory(factory="fractions:Fraction", options={"numerator": 3, "denominator": 6})).denominator == 2


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("fractions", "must have the form"),
        ("no_such_module_at_all:thing", "cannot import"),
        ("fractions:NoSuchName", "has no 'NoSuchName'"),
        ("missing.py:Sure", "no such file"),
    ],
)
def test_a_reference_that_leads_nowhere(tmp_path, reference, says):
    with pytest.raises(ConfigError, match=says):
        resolve(reference, str(tmp_path / "files.yaml"))


def test_options_that_a_factory_does_not_take():
    with pytest.raises(ConfigError, match="does not take them"):
        build(Factory(factory="fractions:Fraction", options={"colour": "red"}))


@pytest.mark.parametrize("module", sorted(MOVED))
def test_a_module_that_has_moved_is_found_by_its_old_name_with_a_warning(module, caplog):
    new = importlib.import_module(MOVED[module])
    name = next(n for n in vars(new) if n.endswith("Teacher"))
    assert resolve(f"{module}:{name}") is getattr(new, name)
    assert f"write {MOVED[module]}:{name}" in caplog.text


@pytest.mark.parametrize("alpha", [0, 1, -0.1, "low"])
def test_a_level_of_novelty_is_between_0_and_1(tmp_path, alpha):
    with pytest.raises(ConfigError, match=r"\$\.serve\.novelty"):
        load_spec(write(tmp_path, serve={"novelty": alpha}))


def test_novelty_cannot_be_told_of_a_private_student(tmp_path):
    student = {"privacy": {"epsilon": 3.0, "delta": 1e-5}, "near_duplicate": None}
    with pytest.raises(ConfigError, match=r"serve\.novelty .*student\.privacy"):
        load_spec(write(tmp_path, student=student, serve={"novelty": 0.05}))


@pytest.mark.parametrize(
    "url", ["robots.example/hooks", "ftp://robots.example", "https://me@robots.example", "https://h/?a=1"]
)
def test_an_address_that_may_be_called_back_is_one(url):
    with pytest.raises(ConfigError, match=r"serve\.asynchronous\.callbacks is .*https://host"):
        Asynchronous(callbacks=(url,))
    assert Asynchronous(callbacks=("https://robots.example:8443/hooks",)).max_waiting == 10_000


@pytest.mark.parametrize(
    ("more", "why"),
    [
        *[
            ({"task": task}, f"does not know answers of {task}: leave")
            for task in ("regression", "tagging", "embedding")
        ],
        ({"student": {"privacy": {"epsilon": 3.0, "delta": 1e-5}, "near_duplicate": None}}, "which no account covers"),
        ({"serve": {"deferral": {"to": ["review"], "neighbours": 9}}}, "goes with 'teacher' in serve.deferral.to"),
    ],
)
def test_neighbours_are_where_the_teacher_is_asked_for_classes_and_nothing_is_kept_close(tmp_path, more, why):
    wanted, limited = {"serve": {"deferral": {"neighbours": 9}}}, {"label": {"budget": {"per_hour": 9}}}
    assert load_spec(write(tmp_path, **wanted)).neighbours == 9
    assert load_spec(write(tmp_path)).neighbours == 0, "without a budget nothing is left to others"
    assert load_spec(write(tmp_path, **limited)).neighbours == 2_000
    assert load_spec(write(tmp_path, label={"budget": {"per_day": 9}})).neighbours == 2_000
    assert load_spec(write(tmp_path, serve={"deferral": {"neighbours": 0}}, **limited)).neighbours == 0
    with pytest.raises(ConfigError, match=rf"serve\.deferral\.neighbours is 9: .*{why}"):
        load_spec(write(tmp_path, **{**wanted, **more}))
    off = {"serve": {"deferral": {**more.get("serve", {}).get("deferral", {}), "neighbours": 0}}}
    assert load_spec(write(tmp_path, **{**more, **off, **limited})).neighbours == 0
    left = {**off["serve"]["deferral"]}
    del left["neighbours"]
    plain = load_spec(write(tmp_path, **{**more, "serve": {"deferral": left}, **limited}))
    assert plain.neighbours == 0, "nobody asked for them"


@pytest.mark.parametrize("most", [-1, 20_001, 100_000_000])
def test_neighbours_are_as_many_as_memory_holds(tmp_path, most):
    assert load_spec(write(tmp_path, serve={"deferral": {"neighbours": 20_000}})).serve.deferral.neighbours == 20_000
    with pytest.raises(ConfigError, match=r"(>= 0|<= 20000) - at `\$\.serve\.deferral\.neighbours`"):
        load_spec(write(tmp_path, serve={"deferral": {"neighbours": most}}))


def test_what_a_task_is_without_is_refused_and_its_default_is_not(tmp_path, monkeypatch):
    monkeypatch.setitem(workload.WITHOUT, "regression", ("limits.groups", "serve.novelty"))
    plain = write(tmp_path, task="regression")
    assert load_spec(plain).serve.novelty is None
    with pytest.raises(ConfigError, match=r"serve.novelty.*does not know answers of regression"):
        load_spec(write(tmp_path, task="regression", serve={"novelty": 0.01}))


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"student": {"cohort": {}, "variants": [{"name": "a"}, {"name": "b"}]}}, "student.cohort"),
        ({"student": {"privacy": {"epsilon": 8.0, "clip": 1.0}}}, "student.privacy"),
        ({"student": {"data_free": {"method": "noise"}}}, "student.data_free"),
        ({"student": {"start": {"uri": "u", "digest": "0" * 64}}}, "student.start"),
        ({"student": {"objective": [{"term": "kl"}]}}, r"student.objective\[0\].term.*bernoulli or truth"),
        ({"student": {"objective": [{"term": "truth", "smoothing": 0.1}]}}, r"objective\[0\].smoothing"),
        ({"limits": {"max_rmse": 1.0}}, "limits.max_rmse"),
        ({"limits": {"max_extraction_fidelity": 0.5}}, "limits.max_extraction_fidelity"),
        ({"limits": {"max_micro_f1_loss": 0.1, "looks": "repeated"}}, "limits.max_micro_f1_loss"),
        ({"serve": {"deferral": {"to": ["review"]}}}, "serve.deferral.to"),
    ],
)
def test_what_sets_of_classes_are_without_is_refused(tmp_path, more, field):
    with pytest.raises(ConfigError, match=field):
        load_spec(write(tmp_path, task="multilabel", **more))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("name", ["min_micro_f1", "max_micro_f1_loss"])
def test_limits_of_sets_are_of_sets_alone(tmp_path, task, name):
    with pytest.raises(ConfigError, match=f"limits.{name}"):
        load_spec(write(tmp_path, task=task, limits={name: 0.1}))
    assert getattr(load_spec(write(tmp_path, task="multilabel", limits={name: 0.1})).limits, name) == 0.1


def test_sets_are_learnt_by_a_chance_for_each_class(tmp_path):
    spec = load_spec(write(tmp_path, task="multilabel", student={"truth_weight": 0.25, "temperature": 3.0}))
    terms = spec.student.objective_of(spec.student.variants[0], spec.task)
    assert terms == (Bernoulli(weight=0.75, temperature=3.0), Truth(weight=0.25))


@pytest.mark.parametrize(
    ("name", "of"),
    [
        *((name, "regression") for name in ("max_rmse", "max_mae_loss", "min_coverage")),
        *((n, "classification") for n in ("min_accuracy", "max_ece", "max_slice_loss", "min_teacher_accuracy")),
    ],
)
def test_limits_that_are_never_measured_of_a_task_are_refused(tmp_path, name, of):
    (other,) = {"classification", "regression"} - {of}
    with pytest.raises(ConfigError, match=rf"limits.{name}.*does not know answers of {other}: leave it out"):
        load_spec(write(tmp_path, task=other, limits={name: 0.5}))
    assert getattr(load_spec(write(tmp_path, task=of, limits={name: 0.5})).limits, name) == 0.5


PEOPLE = {"factory": "components.review.human:HumanTeacher"}


@pytest.mark.parametrize("task", ["regression", "multilabel", "tagging"])
def test_people_are_asked_for_one_class_alone(tmp_path, task):
    with pytest.raises(ConfigError, match=rf"teacher.factory.*give one class of an input: name a teacher of {task}"):
        load_spec(write(tmp_path, task=task, teacher=PEOPLE))
    assert load_spec(write(tmp_path, teacher=PEOPLE)).teacher.factory == PEOPLE["factory"]


TAGGING = {
    "task": "tagging",
    "features": {"factory": "components.student.tagging:TaggedWords"},
    "student": {"network": {"factory": "components.distill.networks.tagger:Tagger"}},
    "limits": {"min_span_f1": 0.8, "min_span_agreement": 0.8, "max_span_f1_loss": 0.1, "max_loss": 0.1},
}


def test_a_tagging_may_mask(tmp_path):
    spec = load_spec(write(tmp_path, **TAGGING, payload={"decoder": "text"}, masking={"entities": ["EMAIL"]}))
    assert spec.task == "tagging" and spec.masking is not None


def test_a_tagging_learns_tokens_and_truths(tmp_path):
    spec = load_spec(write(tmp_path, **TAGGING))
    soft, truth = spec.student.objective_of(spec.student.variants[0], spec.task)
    assert (soft.name, soft.temperature, soft.weight, truth.name) == ("token-kl", 2.0, 0.7, "truth")
    alone = {**TAGGING["student"], "truth_weight": 0.0}
    spec = load_spec(write(tmp_path, **{**TAGGING, "student": alone}))
    assert [t.name for t in spec.student.objective_of(spec.student.variants[0], spec.task)] == ["token-kl"]


@pytest.mark.parametrize(
    ("section", "given"),
    [
        ("student", {"cohort": {"weight": 0.5}}),
        ("student", {"privacy": {"epsilon": 3.0, "delta": 1e-5}, "near_duplicate": None}),
        ("student", {"export": {"also": ["pruned"], "pruning": {"share": 0.5}}}),
        ("limits", {"looks": "repeated"}),
        ("limits", {"max_noise_loss": 0.1}),
        ("limits", {"max_attack_loss": 0.1}),
        ("limits", {"max_rmse": 0.1}),
        ("limits", {"extraction": {"questions": 10}}),
    ],
)
def test_what_tagging_is_without_is_refused_by_name(tmp_path, section, given):
    path = write(tmp_path, **{**TAGGING, section: {**TAGGING.get(section, {}), **given}})
    with pytest.raises(ConfigError, match=rf"{section}.* does not know answers of tagging: leave it out"):
        load_spec(path)


def test_nobody_is_asked_for_spans(tmp_path):
    with pytest.raises(ConfigError, match=r"serve\.deferral\.to .*people are asked nothing of tagging"):
        load_spec(write(tmp_path, **TAGGING, serve={"deferral": {"to": ["review"]}}))


def test_tagging_knows_no_entities(tmp_path):
    entity = {"features": [{"name": "n", "of": "count", "seconds": 60, "type": "number", "default": 0}]}
    with pytest.raises(ConfigError, match=r"features\.entity .*does not know answers of tagging"):
        load_spec(write(tmp_path, **{**TAGGING, "features": {**TAGGING["features"], "entity": entity}}))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("limit", ["min_span_f1", "min_span_agreement", "max_span_f1_loss"])
def test_other_tasks_have_no_spans(tmp_path, task, limit):
    with pytest.raises(ConfigError, match=rf"limits\.{limit} .*does not know answers of {task}"):
        load_spec(write(tmp_path, task=task, limits={limit: 0.5}))


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"truth_sources": ["desk"]}, "truth_sources"),
        ({"limits": {"min_accuracy": 0.8}}, "limits.min_accuracy"),
        ({"limits": {"max_loss": 0.1}}, "limits.max_loss"),
        ({"limits": {"max_rmse": 1.0}}, "limits.max_rmse"),
        ({"limits": {"extraction": {}}}, "limits.extraction"),
        ({"student": {"truth_weight": 0.1}}, "student.truth_weight"),
        ({"student": {"cohort": {}}}, "student.cohort"),
        ({"student": {"privacy": {"epsilon": 8.0, "delta": 1e-5}}}, "student.privacy"),
        ({"student": {"start": {"uri": "file:///a", "digest": "0" * 64}}}, "student.start"),
        ({"rollout": {"max_churn": 0.1}}, "rollout.max_churn"),
        ({"serve": {"deferral": {"to": ["review"]}}}, "serve.deferral.to"),
        ({"teacher": {"factory": "components.review.human:HumanTeacher"}}, "teacher.factory"),
        ({"student": {"objective": [{"term": "kl"}]}}, r"student.objective\[0\].term.*take cosine or distance"),
        ({"student": {"objective": [{"term": "cosine"}, {"term": "truth"}]}}, r"student.objective\[1\].term"),
        (
            {"limits": {"groups": {"g": {"descriptor": "d", "values": ["a", "b"], "max_accuracy_gap": 0.1}}}},
            "embedding has no accuracy",
        ),
    ],
)
def test_what_knows_no_vectors_is_refused_in_an_embedding(tmp_path, more, field):
    with pytest.raises(ConfigError, match=field):
        load_spec(write(tmp_path, task="embedding", **more))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("name", ["min_cosine", "min_recall", "max_cosine_loss", "max_recall_loss"])
def test_limits_of_vectors_are_an_embedding_s_alone(tmp_path, task, name):
    with pytest.raises(ConfigError, match=rf"limits.{name}.*does not know answers of {task}"):
        load_spec(write(tmp_path, task=task, limits={name: 0.5}))
    assert getattr(load_spec(write(tmp_path, task="embedding", limits={name: 0.5})).limits, name) == 0.5


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        ({"min_recall": 0.5, "looks": "repeated"}, "limits.min_recall.*write looks: once"),
        ({"max_recall_loss": 0.5, "looks": "repeated"}, "limits.max_recall_loss.*write looks: once"),
        ({"neighbours": 30}, "limits.searched.*four times limits.neighbours or more: 120"),
    ],
)
def test_limits_of_recall_are_of_one_look_and_of_a_search_among_enough(tmp_path, limits, what):
    with pytest.raises(ConfigError, match=what):
        load_spec(write(tmp_path, task="embedding", limits=limits))
    kept = {"min_cosine": 0.5, "looks": "repeated"}
    assert load_spec(write(tmp_path, task="embedding", limits=kept)).limits.min_cosine == 0.5


def test_an_embedding_learns_the_vector_and_what_is_to_be_expected_of_it_and_relations_where_they_are_named(tmp_path):
    spec = load_spec(write(tmp_path, task="embedding"))
    assert [t.name for t in spec.student.objective_of(spec.student.variants[0], spec.task)] == ["cosine", "distance"]
    terms = [{"term": "cosine"}, {"term": "rkd", "student": "vector", "teacher": "vector"}]
    named = load_spec(write(tmp_path, task="embedding", student={"objective": terms}))
    assert [t.name for t in named.student.objective] == ["cosine", "rkd"]
