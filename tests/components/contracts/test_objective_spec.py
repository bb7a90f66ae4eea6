import msgspec
import pytest

from components.contracts.errors import ConfigError
from components.contracts.spec.objective import (
    Attention,
    Cosine,
    Dkd,
    Hidden,
    Kl,
    MseLogits,
    Normal,
    Relation,
    Rkd,
    Term,
    Truth,
    check_objective,
    check_states,
    term_names,
)

INSIDE = {"student": "pooled", "teacher": "embedding"}


def read(*terms):
    return msgspec.convert(list(terms), tuple[Term, ...])


def test_a_list_of_terms_is_read_by_their_names():
    found = read({"term": "kl", "weight": 0.7, "temperature": 2}, {"term": "truth", "weight": 0.3})
    assert found == (Kl(weight=0.7, temperature=2.0), Truth(weight=0.3))
    assert msgspec.convert(msgspec.to_builtins(found), tuple[Term, ...]) == found
    assert term_names(read({"term": "hidden", **INSIDE}, {"term": "kl"}, {"term": "hidden", **INSIDE})) == [
        "hidden", "kl", "hidden-2"
    ]  # fmt: skip


NAMES = {
    "kl", "dkd", "mse-logits", "truth", "normal", "hidden", "attention", "relation", "contrastive", "rkd", "pkt", "spkd"
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_term_is_read_with_a_weight_and_a_schedule(name):
    plain = name in {"kl", "dkd", "mse-logits", "truth", "normal"}
    content = {"term": name, "weight": 2, "schedule": "cosine-warmup", **({} if plain else INSIDE)}
    (found,) = read(content)
    assert found.name == name and found.outputs == plain
    assert (found.weight, found.schedule) == (2.0, "cosine-warmup")
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        read({**content, "wieght": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"term": "klx"}, r"Invalid value 'klx' - at `\$\[0\].term`"),
        ({"weight": 1}, "required field `term`"),
        ({"term": "kl", "weight": 0}, r"> 0.0 - at `\$\[0\].weight`"),
        ({"term": "kl", "schedule": "rising"}, r"at `\$\[0\].schedule`"),
        ({"term": "kl", "beta": 1.0}, r"at `\$\[0\].beta`"),
        ({"term": "truth", "smoothing": 1.0}, r"at `\$\[0\].smoothing`"),
        ({"term": "hidden", "student": "a"}, "required field `teacher`"),
        ({"term": "hidden", "student": "", "teacher": "b"}, r"at `\$\[0\].student`"),
        ({"term": "relation", **INSIDE, "of": []}, r"at `\$\[0\].of`"),
        ({"term": "relation", **INSIDE, "heads": 0}, r"at `\$\[0\].heads`"),
    ],
)
def test_what_is_out_of_range_is_named_when_it_is_read(content, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        read(content)


def refused(terms, task="classification", **options):
    with pytest.raises(ConfigError) as caught:
        check_objective(terms, task, **options)
    return str(caught.value)


def test_objectives_that_can_be_learnt_pass():
    check_objective([Kl(weight=0.7), Truth(weight=0.3)], "classification")
    check_objective([Normal(), Truth()], "regression")
    check_objective([Hidden(**INSIDE)], "classification", rows="unlabelled")
    check_objective([Hidden(**INSIDE), Normal()], "regression")
    check_objective([Kl(direction="jensen-shannon", beta=0.2)], "classification")


def test_an_empty_list_is_refused():
    assert refused([]) == "student.objective is []: has at least one term: add {term: kl}"
    assert refused([], "regression").endswith("add {term: normal}")


@pytest.mark.parametrize("term", [Kl(), Dkd(), MseLogits()])
def test_a_term_of_classes_is_refused_in_a_regression(term):
    message = refused([Normal(), term], "regression")
    assert message.startswith(f"student.objective[1].term is '{term.name}': has no meaning in a regression")


def test_a_term_of_normals_is_refused_in_a_classification():
    assert "take kl or truth" in refused([Normal()])


def test_a_labelled_stage_has_a_term_against_outputs():
    message = refused([Hidden(**INSIDE)], field="student.stages[1].objective")
    assert message.startswith("student.stages[1].objective is 'hidden': has no term against outputs")
    assert message.endswith("add kl")


def test_an_unlabelled_stage_does_not_know_the_teacher_s_vector():
    told = refused([Rkd(student="vector", teacher="vector")], "embedding", rows="unlabelled")
    assert "student.objective[0].teacher is 'vector'" in told and "needs labels" in told
    check_objective([Rkd(student="vector", teacher="hidden")], "embedding", rows="unlabelled")
    check_objective([Cosine(), Rkd(student="vector", teacher="vector")], "embedding")


def test_an_unlabelled_stage_has_none():
    assert "student.objective[1].term is 'kl': needs labels" in refused([Hidden(**INSIDE), Kl()], rows="unlabelled")


@pytest.mark.parametrize(
    ("term", "task", "field"),
    [
        (Kl(beta=0.5), "classification", "beta"),
        (Kl(direction="reverse", beta=0.5), "classification", "beta"),
        (Kl(weight=float("inf")), "classification", "weight"),
        (Kl(temperature=float("inf")), "classification", "temperature"),
        (Truth(smoothing=0.1), "regression", "smoothing"),
        (Dkd(alpha=0.0, beta=0.0), "classification", "alpha"),
        (Rkd(distances=0.0, angles=0.0, **INSIDE), "classification", "distances"),
        (Relation(of=("query", "query"), **INSIDE), "classification", "of"),
    ],
)
def test_a_term_that_contradicts_itself_is_refused(term, task, field):
    output = Kl() if task == "classification" else Normal()
    assert refused([output, term], task).startswith(f"student.objective[1].{field} is ")


def test_states_that_are_not_there_are_named_with_those_that_are():
    terms = [Kl(), Attention(**INSIDE), Relation(student="blocks.1", teacher="layer.5", of=("query", "key"))]
    there = {"student": ["pooled", "blocks.1.query", "blocks.1.key"], "teacher": ["embedding", "layer.5.query"]}
    with pytest.raises(ConfigError) as caught:
        check_states(terms, **there)
    assert str(caught.value) == (
        "student.objective[2].teacher is 'layer.5.key': is no state of the teacher, which has embedding, layer.5.query"
    )
    check_states(terms, student=there["student"], teacher=[*there["teacher"], "layer.5.key"])
    with pytest.raises(ConfigError, match=r"objective\[1\].teacher .* which gives no states"):
        check_states(terms, student=there["student"], teacher=())
