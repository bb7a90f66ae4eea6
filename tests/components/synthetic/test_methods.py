from collections import Counter

import msgspec
import pytest
import torch

from components.contracts.errors import ConfigError, TeacherError
from components.contracts.payload import decoder
from components.contracts.spec import build, load_spec
from components.contracts.spec.data_free import DataFree
from components.student.image import Image
from components.synthetic import gradient
from components.synthetic.methods import make_up
from components.teachers.contract import differentiable
from tests.components.synthetic.conftest import IMAGES, TABLES, TEXTS


def made(spec, **wanted):
    """Payloads of a method, and the teacher's answers to them."""
    teacher = build(spec.teacher, spec.source)
    found = make_up(spec, teacher, msgspec.structs.replace(spec.student.data_free, **wanted))
    return found, teacher


def said(spec, payloads):
    decode = decoder(spec.payload, spec.source)
    return build(spec.teacher, spec.source).label([decode(p) for p in payloads])


def test_a_search_finds_texts_of_every_class_that_the_teacher_is_sure_of(spec_of):
    spec = spec_of(TEXTS)
    found, _ = made(spec, rows=90)
    noise, _ = made(spec, rows=90, method="noise")
    answers = said(spec, found.payloads)
    assert found.synthetic == "search;seed=0;steps=8" and noise.synthetic == "noise;seed=0"
    assert {a.label for a in answers} == {"animal", "plant", "stone"}
    assert min(Counter(a.label for a in answers).values()) >= 25
    sure = [sum(a.confidence >= 0.8 for a in of) / len(of) for of in (answers, said(spec, noise.payloads))]
    assert sure[0] >= 0.9 > 0.3 >= sure[1]
    words = [p.decode().split() for p in found.payloads]
    assert all(3 <= len(w) <= 12 for w in words) and len({*map(tuple, words)}) == len(words)


def test_a_search_finds_rows_of_a_class_that_draws_hardly_meet(spec_of):
    spec = spec_of(TABLES)
    shares = []
    for method in ("search", "noise"):
        found, _ = made(spec, rows=100, method=method, steps=30)
        shares.append(Counter(a.label for a in said(spec, found.payloads))["rich"] / len(found.payloads))
    assert shares[0] >= 0.15 > 0.05 >= shares[1]


def test_noise_of_a_table_is_what_is_declared(spec_of):
    columns = {
        "age": {"low": 18, "high": 30, "whole": True},
        "income": {"mean": 100, "deviation": 50, "low": 0, "missing": 0.5},
        "region": {"values": ["north", "south"], "chances": [1.0, 0.0]},
        "mark": {"low": 0, "high": 1},
    }
    spec = spec_of(TABLES, student={"data_free": {"method": "noise", "inputs": {"kind": "table", "columns": columns}}})
    rows = [msgspec.json.decode(p) for p in made(spec, rows=400)[0].payloads]
    assert all(18 <= r["age"] <= 30 and isinstance(r["age"], int) for r in rows)
    incomes = [r["income"] for r in rows if "income" in r]
    assert 0.4 < len(incomes) / len(rows) < 0.6 and min(incomes) >= 0
    assert {r["region"] for r in rows} == {"north"}


def test_noise_of_images_has_the_moments_that_are_declared(spec_of):
    inputs = {"kind": "image", "height": 8, "width": 8, "mean": 100, "deviation": 20}
    spec = spec_of(IMAGES, student={"data_free": {"method": "noise", "inputs": inputs}})
    found, _ = made(spec, rows=50)
    pixels = 127.5 * (Image(height=8, width=8, colour="grey").encode(found.payloads)["pixels"] + 1)
    assert pixels.mean() == pytest.approx(100, abs=2) and pixels.std() == pytest.approx(20, abs=1)


def gap(module, inputs):
    with gradient._statistics(module) as found, torch.no_grad():
        module(torch.from_numpy(inputs))
    return float(sum(found) / len(found))


@pytest.mark.parametrize("method", ["inversion", "generator"])
def test_a_gradient_leads_to_images_that_are_to_the_teacher_as_real_ones(spec_of, method):
    spec = spec_of(IMAGES)
    teacher = build(spec.teacher, spec.source)
    found, _ = made(spec, rows=200, method=method, steps=60)
    assert found.synthetic == f"{method};seed=0;steps=60"
    noise = gradient.noise(differentiable(teacher), 200, 0)
    module = teacher.differentiable().module
    assert gap(module, teacher.numbers(found.payloads)) < gap(module, noise) / 3
    counts = Counter(a.label for a in teacher.label(found.payloads))
    assert len(counts) == 10
    assert all(p.requires_grad for p in module.parameters()) and not module._forward_hooks


@pytest.mark.parametrize("method", ["noise", "search", "inversion", "generator"])
def test_equal_seeds_make_equal_inputs_and_others_others(spec_of, method):
    spec = spec_of(IMAGES if method in ("inversion", "generator") else TEXTS)
    first, again, other = (made(spec, rows=20, method=method, steps=2, seed=s)[0].payloads for s in (1, 1, 2))
    assert first == again and first != other


def test_auto_takes_what_the_teacher_allows(spec_of):
    told = {
        document["name"]: made(spec_of(document), rows=10, steps=1)[0].synthetic.partition(";")[0]
        for document in (TEXTS, TABLES, IMAGES)
    }
    assert told == {"words": "search", "rows": "search", "digits": "inversion"}


class Silent:
    """A teacher that tells nothing of itself."""

    name, task, space, size_bytes, digest, classes = "silent", "classification", "s@1", 0, "4" * 64, ("a", "b")


class Broken(Silent):
    def differentiable(self):
        return "a module"


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("inversion", r"student\.data_free\.method .*has differentiable\(\), and silent@4+ has not: take search"),
        ("generator", r"take search or noise"),
        ("search", "changes words or cells: declare inputs of kind text"),
        ("chat", "needs a chat teacher, and silent writes no texts"),
        ("noise", r"student\.data_free\.inputs .*must tell what inputs look like"),
        ("auto", "must tell what inputs look like"),
        ("magic", "must be one of auto, noise, search, inversion, generator, chat"),
    ],
)
def test_a_method_that_a_workload_cannot_use_is_refused(spec_of, method, error):
    with pytest.raises(ConfigError, match=error):
        make_up(spec_of(TEXTS), Silent(), DataFree(method=method, rows=4))


def test_a_teacher_that_gives_no_module_is_refused(spec_of):
    with pytest.raises(TeacherError, match=r"must give a Differentiable of a torch\.nn\.Module"):
        make_up(spec_of(TEXTS), Broken(), DataFree(rows=4))


def test_a_module_that_takes_no_such_arrays_is_the_teacher_s_fault(spec_of):
    spec = spec_of(IMAGES)
    teacher = build(spec.teacher, spec.source)
    whole = teacher.differentiable()
    teacher.differentiable = lambda: whole._replace(shape=(1, 9, 9))
    with pytest.raises(TeacherError, match="cannot be differentiated: mat1 and mat2"):
        make_up(spec, teacher, DataFree(method="inversion", rows=4, steps=1))


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"kind": "text", "vocabulary": "none.txt"}, "there is no such file"),
        ({"kind": "table"}, "must declare the columns"),
        ({"kind": "image", "height": 2, "width": 2}, "gives payloads that text cannot decode"),
    ],
)
def test_inputs_that_cannot_be_drawn_are_refused(spec_of, inputs, error):
    spec = spec_of(TEXTS, student={"data_free": {"method": "noise", "inputs": inputs}})
    with pytest.raises(ConfigError, match=error):
        made(spec, rows=3)


def test_a_vocabulary_of_one_s_own_is_taken(spec_of, tmp_path):
    (tmp_path / "mine.txt").write_text("\n".join(f"w{i}" for i in range(30)))
    inputs = {"kind": "text", "vocabulary": "mine.txt", "words": [2, 2]}
    spec = spec_of(TEXTS, student={"data_free": {"method": "noise", "inputs": inputs}})
    texts = [p.decode().split() for p in made(spec, rows=20)[0].payloads]
    assert {len(t) for t in texts} == {2} and {w for t in texts for w in t} <= {f"w{i}" for i in range(30)}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"inputs": {"kind": "text", "words": [5, 2]}}, "must be the least and the most"),
        ({"inputs": {"kind": "table", "columns": {"a": {}}}}, "needs values, or mean and deviation, or low and high"),
        ({"inputs": {"kind": "table", "columns": {"a": {"mean": 1}}}}, "both mean and deviation"),
        ({"inputs": {"kind": "table", "columns": {"a": {"low": 2, "high": 1}}}}, "low must be below high"),
        ({"inputs": {"kind": "table", "columns": {"a": {"values": ["x"], "low": 1}}}}, "not both"),
        ({"inputs": {"kind": "table", "columns": {"a": {"values": ["x"], "chances": [0.5]}}}}, "that sum to one"),
        ({"inputs": {"kind": "table", "columns": {"a": {"low": 1, "high": 2, "chances": [1]}}}}, "go with values"),
        ({"inputs": {"kind": "table", "columns": {"a": {"low": 1, "high": float("inf")}}}}, "must be a finite number"),
        ({"inputs": {"kind": "sound"}}, "Invalid value 'sound'"),
        ({"rows": 0}, ">= 1"),
    ],
)
def test_bad_declarations_are_refused_at_load(spec_of, given, error):
    with pytest.raises(ConfigError, match=error):
        spec_of(TEXTS, student={"data_free": given})


def test_a_regression_has_noise_alone(write):
    path = write({**TABLES, "task": "regression"}, student={"data_free": {"method": "search"}})
    with pytest.raises(ConfigError, match="in a regression take noise"):
        load_spec(path)


def test_the_teacher_is_asked_within_the_budget(spec_of):
    spec = spec_of(TEXTS)
    teacher, left = build(spec.teacher, spec.source), [50]

    def permit(calls):
        left[0] -= calls
        return left[0] >= 0

    with pytest.raises(ConfigError, match=r"label\.budget .*more calls of the teacher are not left"):
        make_up(spec, teacher, DataFree(rows=30), permit)
    assert len(make_up(spec, teacher, DataFree(rows=30, method="noise"), permit).payloads) == 30
