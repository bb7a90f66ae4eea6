"""A fresh student that begins from the artifact that the spec names, by the pipeline's own step."""

import msgspec
import pytest
import yaml

from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.settings import Settings
from components.contracts.spec import Begin, Variant, load_spec
from components.contracts.spec.declared import Data, Terms
from components.contracts.storage import get_bytes
from components.control import forgettings
from components.control.intent import Intent, ModelRef
from components.control.tables import WindowRow
from components.distill.step import distil
from components.distill.train import distill
from components.student.runtime import Student
from tests.stores import migrated


@pytest.fixture(scope="module")
def given(letter_spec, letters, freeze_rows, tmp_path_factory):
    """A student of another platform, which knows four classes."""
    folder = f"file://{tmp_path_factory.mktemp('other')}"
    window = freeze_rows(letter_spec, letters("abcd", 40), folder, 1)
    theirs = msgspec.structs.replace(letter_spec, data=Data(licence=Terms(attribution="Labels by Ana")))
    return distill(
        theirs, [window], variant=Variant(name="tiny", dim=8, hidden=16), parent=None, artifacts=folder, seed=0
    )


@pytest.fixture
def home(letter_spec, letters, freeze_rows, tmp_path, monkeypatch):
    """A site whose only window has two classes."""
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    store = migrated(Settings().control_url)
    with store.transaction() as s:
        window: WindowRow = freeze_rows(letter_spec, letters("ab", 30, seed=5), Settings().artifacts, 1)
        s.add(window)
    yield store
    store.close()


def written(letter_spec, tmp_path, **start):
    spec = msgspec.structs.replace(letter_spec, student=msgspec.structs.replace(letter_spec.student, epochs=1))
    content = {k: v for k, v in msgspec.to_builtins(spec).items() if k not in ("source", "features")}
    content["features"] = {"factory": spec.features.factory, "options": spec.features.options}
    content["student"] |= {"start": start} if start else {}
    (tmp_path / "letters.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "letters.yaml")


def test_it_knows_from_the_first_what_only_others_have_taught(home, letter_spec, letters, given, tmp_path):
    path = written(letter_spec, tmp_path, uri=given.uri, digest=given.digest)
    made = distil(path, "", True, "nothing")
    assert made.card.parent is None and set(made.card.classes) == set("abcd")
    assert made.card.attribution == ("Labels by Ana",)
    student = Student.load(get_bytes(made.uri, made.digest))
    unseen = letters("cd", 20, seed=8)
    said = student.predict([payload for payload, _, _ in unseen])
    assert sum(s.label == truth for s, (_, _, truth) in zip(said, unseen, strict=True)) > 30
    alone = distil(written(letter_spec, tmp_path), "", True, "nothing")
    assert set(alone.card.classes) == set("ab")


@pytest.mark.parametrize("serving", [None, "new"])
def test_after_a_forgetting_it_is_left_aside_whoever_serves(home, letter_spec, given, tmp_path, serving):
    order = forgettings.open_order(home, letter_spec.name, "ana", "op", "asked to")
    forgettings.put(home, order.id, result={"students": [{"version": "1", "digest": "old"}]})
    if serving is not None:  # made afresh since, so that no order lists it
        model = ModelRef(version="2", uri="file:///new", digest=serving, snapshot="", teacher="t@1")
        home.put_intent(letter_spec.name, home.intent(letter_spec.name)[0], Intent(champion=model))
    made = distil(written(letter_spec, tmp_path, uri=given.uri, digest=given.digest), "", True, "nothing")
    assert set(made.card.classes) == set("ab")


def test_where_signatures_are_asked_for_it_is_refused_with_the_reason(home, letter_spec, given, tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_ARTIFACT_POLICY", "signed")
    with pytest.raises(ConfigError, match=r"student\.start.*COHOBATE_ARTIFACT_POLICY=signed"):
        distil(written(letter_spec, tmp_path, uri=given.uri, digest=given.digest), "", True, "nothing")


def test_another_artifact_or_label_space_is_refused(home, letter_spec, given, tmp_path):
    with pytest.raises(ArtifactError):
        distil(written(letter_spec, tmp_path, uri=given.uri, digest="0" * 64), "", True, "nothing")
    with home.transaction() as s:
        row = s.query(WindowRow).one()
        row.manifest = {**row.manifest, "space": "letters@2"}
    with pytest.raises(ConfigError, match=r"student\.start.*in 'letters@1': the labels here are of .* in 'letters@2'"):
        distil(written(letter_spec, tmp_path, uri=given.uri, digest=given.digest), "", True, "nothing")


def test_it_is_part_of_the_spec_s_digest_and_names_an_artifact_by_its_own(letter_spec, tmp_path):
    before = load_spec(written(letter_spec, tmp_path))
    assert before.student.start is None
    start = Begin(uri="file:///m.onnx", digest="0" * 64)
    assert msgspec.structs.replace(before, student=msgspec.structs.replace(before.student, start=start)).digest != (
        before.digest
    )
    for digest in ("", "0" * 63, "X" * 64):
        with pytest.raises(ConfigError, match="digest"):
            load_spec(written(letter_spec, tmp_path, uri="file:///m.onnx", digest=digest))
