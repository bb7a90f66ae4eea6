"""What people declare: terms decide whether anything is trained, and are on the card of what was."""

import msgspec
import pytest

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Spec, TeacherFactory, load_spec
from components.contracts.spec.declared import attributions, check_training, terms
from components.control.store import ControlStore
from components.distill.step import distil
from components.ledger.ledger import entries

BASE = "name: w\nfeatures: {factory: 'builtins:dict'}\n"

DECLARED = """
teacher:
  factory: "code.py:Teacher"
  licence:
    outputs: {name: Acme terms of use, training: %s, attribution: Built with Acme.}
    weights: {name: Apache-2.0}
data: {licence: {name: CC-BY-4.0, training: %s, attribution: Built with Acme.}, personal: "no"}
about: {intended_use: routing of mail, risks: [a wrong queue]}
"""


@pytest.fixture
def write(tmp_path):
    def write(outputs="allowed", data="allowed"):
        path = tmp_path / "w.yaml"
        path.write_text(BASE + DECLARED % (outputs, data))
        (tmp_path / "code.py").write_text("class Teacher: pass\n")
        return path

    return write


def test_what_is_declared_is_read_and_changes_the_digest_only_where_it_is_there(write):
    spec = load_spec(write())
    assert spec.about.risks == ("a wrong queue",) and spec.data.personal == "no"
    assert {field: t.name for field, t in terms(spec)} == {
        "teacher.licence.outputs": "Acme terms of use", "teacher.licence.weights": "Apache-2.0",
        "data.licence": "CC-BY-4.0",
    }  # fmt: skip
    assert attributions(spec) == ("Built with Acme.",), "each once"
    bare = Spec(name="w", teacher=Factory(factory="t:T"), features=Factory(factory="builtins:dict"))
    assert bare.teacher == TeacherFactory(factory="t:T") and attributions(bare) == ()
    assert msgspec.structs.replace(bare, about=spec.about).digest != bare.digest


@pytest.mark.parametrize(
    ("outputs", "data", "policy", "field"),
    [
        ("forbidden", "allowed", "forbidden", "teacher.licence.outputs.training"),
        ("allowed", "forbidden", "forbidden", "data.licence.training"),
        ("allowed", "unknown", "undeclared", "data.licence.training"),
        ("unknown", "unknown", "forbidden", None),
        ("allowed", "allowed", "undeclared", None),
    ],
)
def test_terms_that_forbid_it_or_say_nothing_are_refused_by_the_policy(write, outputs, data, policy, field):
    spec = load_spec(write(outputs, data))
    if field is None:
        check_training(spec, policy)
        return
    with pytest.raises(ConfigError) as raised:
        check_training(spec, policy)
    assert raised.value.field == field


def test_a_word_that_is_none_is_refused(write):
    with pytest.raises(ConfigError, match="training"):
        load_spec(write("perhaps"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    store = ControlStore(Settings().control_url)
    store.migrate()
    yield store
    store.close()


def test_nothing_is_trained_on_outputs_whose_terms_forbid_it_and_the_ledger_says_so(write, home):
    path = str(write("forbidden"))
    with pytest.raises(ConfigError, match=r"the terms \(Acme terms of use\) forbid training"):
        distil(path, "", True, "nothing")
    (entry,) = entries(home, "w")
    assert (entry.action, entry.detail["field"]) == ("refused training", "teacher.licence.outputs.training")
    with pytest.raises(ConfigError, match="windows"):  # where they allow it, there is nothing to learn from yet
        distil(str(write()), "", True, "nothing")
