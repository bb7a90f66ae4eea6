import pytest

from components.contracts.errors import ConfigError
from components.contracts.spec import load_spec

HEAD = """
name: payments
task: {task}
teacher: {{factory: "t.py:T"}}
features:
  factory: components.student.columns:MixedColumns
  options: {{numbers: [{{name: x}}]}}
  entity: {{{entity}}}
"""
COUNT = "{name: seen, of: count, seconds: 60, default: 0}"
VIEW = "{name: age, view: v, default: 0}"


def spec(tmp_path, entity, task="classification"):
    path = tmp_path / "payments.yaml"
    path.write_text(HEAD.format(entity=entity, task=task))
    return load_spec(path)


def test_features_of_the_entity_are_read(tmp_path):
    found = spec(tmp_path, f"objects: f.py:FEAST, max_skew: 0.1, features: [{COUNT}, {VIEW}]").features
    assert [f.name for f in found.entity.features] == ["seen", "age"] and found.entity.timeout_ms == 50.0
    assert [f.source for f in found.entity.features] == ["recent:recent", "v:age"]
    assert spec(tmp_path, "features: [{name: last, of: last_label, default: 0}]", "regression")


def one(feature):
    return f"features: [{feature}]"


@pytest.mark.parametrize(
    ("entity", "says"),
    [
        ("features: []", r"entity.features is \(\): must name at least one"),
        (f"features: [{COUNT}, {COUNT}]", "must name every feature once"),
        (one("{name: Seen, of: count, seconds: 1, default: 0}"), "Expected `str` matching regex"),
        (one("{name: seen, of: count, seconds: 1}"), "missing required field `default`"),
        (one("{name: seen, of: sum, seconds: 1, default: 0}"), "Invalid enum value 'sum'"),
        (one("{name: seen, of: count, default: 0}"), "entity.seen.seconds is None: is needed with of: count"),
        (one("{name: seen, of: count, seconds: 0, default: 0}"), "> 0"),
        (one("{name: seen, of: since_last, seconds: 5, default: 0}"), "has no meaning with of: since_last"),
        (one("{name: seen, of: count, seconds: 5, feature: x, default: 0}"), "seen.feature is 'x': has no meaning"),
        (one("{name: p, of: label_share, default: 0}"), "entity.p.label is None: is needed"),
        (one("{name: seen, of: count, seconds: 5, type: category, values: [a], default: a}"), "must be number with of"),
        (one("{name: last, of: last_label, default: 0}"), "entity.last.type is 'number'"),
        (one("{name: seen, of: count, seconds: 5, default: none}"), "default is 'none': must be a finite number"),
        (one("{name: seen, of: count, seconds: 5, default: .nan}"), "must be a finite number"),
        (one("{name: last, of: last_label, type: category, values: [a], default: 1}"), r"must be text \(quote it\)"),
        (one("{name: last, of: last_label, type: category, default: a}"), "must name its values, each once"),
        (one("{name: seen, of: count, seconds: 5, values: [a], default: 0}"), "values is .*: go with type: category"),
        (one("{name: last, of: last_label, type: category, values: [a], log: true, default: a}"), "go with type"),
        (one(VIEW), "entity.objects is None: or a repository goes with features of a view"),
        (f"objects: f.py:F, {one(COUNT)}", "entity.objects is 'f.py:F': or a repository goes with"),
        (f"objects: f.py:F, repository: /r, {one(VIEW)}", "goes without objects"),
        (f"repository: here, {one(VIEW)}", "must be an absolute path"),
        (f"timeout_ms: 0, {one(COUNT)}", "> 0"),
        (f"timeout_ms: 10001, {one(COUNT)}", "<= 10000"),
        (f"cache_seconds: -1, {one(COUNT)}", ">= 0"),
        (f"max_skew: 2, {one(COUNT)}", "<= 1"),
        (f"max_skews: 0.1, {one(COUNT)}", "unknown field `max_skews`"),
    ],
)  # fmt: skip
def test_a_bad_feature_of_the_entity_is_refused_with_its_field(tmp_path, entity, says):
    with pytest.raises(ConfigError, match=says) as caught:
        spec(tmp_path, entity)
    assert "\n" not in str(caught.value)


def test_in_private_one_input_is_not_told_of_in_the_rows_of_others(tmp_path):
    private = "student: {privacy: {epsilon: 8, delta: 1.0e-5, noise: 1.0, unit: UNIT}, near_duplicate: null}"
    path = tmp_path / "payments.yaml"
    path.write_text(HEAD.format(entity=one(COUNT), task="classification") + private.replace("UNIT", "input"))
    with pytest.raises(ConfigError, match=r"student\.privacy\.unit is 'input': must be key"):
        load_spec(path)
    path.write_text(path.read_text().replace("unit: input", "unit: key"))
    assert load_spec(path).features.entity is not None


def test_a_regression_has_no_share_of_a_label(tmp_path):
    with pytest.raises(ConfigError, match="needs classes: a regression has none"):
        spec(tmp_path, one("{name: p, of: label_share, label: a, default: 0}"), "regression")
