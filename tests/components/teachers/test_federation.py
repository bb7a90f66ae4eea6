"""The mixture of a round as a teacher, by the contract of teachers."""

import pytest

from components.contracts.errors import ArtifactError, RecordError, TeacherError
from components.contracts.spec import Factory, build
from components.contracts.storage import digest_of
from components.federation.exchange import row_id
from components.federation.rounds import mixed
from components.teachers.contract import outcomes, reference
from components.teachers.federation import Federation
from tests.components.federation.conftest import TEXTS, Desk


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation")
    desk = Desk(folder, ("north", "south", "west"))
    files = {"a": desk.file("north", 0.9), "b": desk.file("south", 0.7, texts=("one", "two"))}
    done = mixed(desk.agreement(), 1, map(row_id, TEXTS), files)
    path = folder / "round-1.mixture.jsonl"
    path.write_bytes(done.data)
    return path


def test_it_answers_public_inputs_and_no_others(mixture):
    teacher = Federation(str(mixture))
    first, unmixed, foreign = outcomes(teacher, ["one", "three", "somebody's own"])
    assert first.distribution == pytest.approx({"ham": 0.2, "spam": 0.8}) and first.space == "mail@1"
    for letter in (unmixed, foreign):
        assert isinstance(letter, RecordError) and letter.reason == "not_in_mixture"
    with pytest.raises(TeacherError, match="round 1 has no answer to it"):
        teacher.label(["three"])


@pytest.mark.parametrize("payload", [{"a": float("nan")}, {1: "a", "b": 2}, "\ud800", object()])
def test_a_payload_that_has_no_id_is_a_dead_letter_and_stops_nothing(mixture, payload):
    first, letter = outcomes(Federation(str(mixture)), ["one", payload])
    assert first.space == "mail@1" and isinstance(letter, RecordError) and letter.reason == "not_in_mixture"


def test_a_folder_is_no_mixture(mixture):
    with pytest.raises(ArtifactError, match="is a folder: name the file"):
        Federation(str(mixture.parent))


def test_a_label_names_the_mixture_and_thereby_the_weights(mixture):
    teacher = build(Factory(factory="components.teachers.federation:Federation", options={"mixture": str(mixture)}))
    assert reference(teacher) == f"federation@{digest_of(mixture.read_bytes())}"
    assert (teacher.classes, teacher.task, teacher.round) == (("ham", "spam"), "classification", 1)
    assert {name: part.left_out for name, part in teacher.sites.items()} == {
        "north": None, "south": None, "west": "absent",
    }  # fmt: skip


def test_a_spec_may_say_which_federation_it_is_of(mixture):
    assert Federation(str(mixture), federation="banks").round == 1
    with pytest.raises(ArtifactError, match="is signed for the federation 'banks', not 'hospitals'"):
        Federation(str(mixture), federation="hospitals")


def test_a_spec_may_say_which_round_it_is(mixture, tmp_path):
    digest = digest_of(mixture.read_bytes())
    assert Federation(str(mixture), digest=digest).digest == digest
    other = tmp_path / "other.jsonl"
    other.write_bytes(mixture.read_bytes() + b"\n")
    with pytest.raises(ArtifactError):
        Federation(str(other), digest=digest)
    with pytest.raises(ArtifactError):
        Federation(str(tmp_path / "none.jsonl"))
