import pytest

from components.contracts.errors import ConfigError
from pipelines.parameters import arguments


@pytest.fixture
def path(spec):
    return spec.source


def test_arguments_take_the_variants_from_the_spec(path):
    made = arguments("bootstrap", path, {"history_uri": "file:///h.jsonl"}, "why")
    assert made == {
        "spec": path, "history_uri": "file:///h.jsonl", "first_variant": "small", "second_variant": "wide",
        "reason": "why",
    }  # fmt: skip
    assert arguments("bootstrap", path, {"history_uri": "u", "second_variant": "x"}, "")["second_variant"] == "x"


def test_a_history_s_path_becomes_a_uri_that_every_component_finds(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = arguments("bootstrap", path, {"history_uri": "data/h.jsonl"}, "")
    assert made["history_uri"] == (tmp_path / "data" / "h.jsonl").as_uri()
    assert arguments("bootstrap", path, {"history_uri": "s3://b/h"}, "")["history_uri"] == "s3://b/h"


def test_arguments_take_the_reason_where_there_is_one_and_the_path_in_the_image(path):
    assert arguments("rollback", path, {"to": "3"}, "it is bad") == {"spec": path, "to": "3", "reason": "it is bad"}
    assert arguments("rollback", path, {"reason": "mine"}, "other")["reason"] == "mine"
    assert arguments("continual", path, {"spec": "/app/tickets.yaml"}, "why")["spec"] == "/app/tickets.yaml"


@pytest.mark.parametrize(("given", "meant"), [("true", True), ("False", False)])
def test_force_is_a_boolean(path, given, meant):
    assert arguments("continual", path, {"force": given}, "why")["force"] is meant


def test_a_parameter_may_be_given_by_its_former_name(path):
    for name, given in (("rollback", {}), ("promote", {"version": "3"})):
        made = arguments(name, path, {**given, "key": "once"}, "why")
        assert made["with_key"] == "once" and "key" not in made
        assert arguments(name, path, {**given, "with_key": "once"}, "why") == made


def test_numbers_of_a_data_free_run_are_whole(path):
    made = arguments("data-free", path, {"method": "noise", "rows": "50", "seed": "-1"}, "why")
    assert made == {"spec": path, "method": "noise", "rows": 50, "seed": -1, "reason": "why"}
    with pytest.raises(ConfigError, match="param rows is 'many': must be a whole number"):
        arguments("data-free", path, {"rows": "many"}, "why")
