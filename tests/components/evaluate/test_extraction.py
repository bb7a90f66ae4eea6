"""How well a model that learnt from a student's answers alone says what the student says."""

import hashlib
import logging
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from components.contracts.errors import ConfigError
from components.contracts.records import SoftLabel, content_hash
from components.contracts.spec import Extraction, Limits, Variant, extracted, load_spec
from components.contracts.storage import get_bytes
from components.distill.data import Rows, holdouts
from components.distill.train import distill
from components.evaluate import extraction
from components.evaluate.evaluate import evaluate
from components.evaluate.evidence import Answer, Evidence, Judgement, Row
from components.evaluate.extraction import CONSTANT, TEACHER, columns, extraction_rows, table_of
from components.evaluate.judge import demanded, judge, replay
from components.evaluate.measure import measures
from components.snapshot.holdout import needed
from components.student.features import TensorSpec
from components.student.runtime import Student
from tests.stores import migrated

ASKED = Extraction(questions=40)


@pytest.fixture(scope="module")
def world(letter_spec, letters, freeze_rows, tmp_path_factory):
    """A student of letters of which as many are held out as an attack needs."""
    folder = tmp_path_factory.mktemp("extraction")
    student = replace(letter_spec.student, holdout_share=0.6)
    spec = replace(letter_spec, student=student, limits=Limits(min_rows=20, confidence=0.95))
    windows = [freeze_rows(spec, letters("abcd", 60), f"file://{folder}", 1)]
    done = distill(spec, windows, variant=Variant(name="w", dim=8, hidden=16), parent=None,
                   artifacts=f"file://{folder}", seed=0)  # fmt: skip
    store = migrated(f"sqlite:///{folder}/control.db")
    yield spec, windows, done, store
    store.close()


@pytest.fixture(scope="module")
def held(world):
    """The student, and what it is asked about."""
    spec, windows, done, _ = world
    ((_, rows),) = holdouts(spec, windows)
    return Student.load(get_bytes(done.uri, done.digest)), rows


def fidelity(rows):
    """Shares of agreement with the student by what the surrogate learnt from."""
    sets = {}
    for row in rows:
        sets.setdefault(row.set.removeprefix("extraction "), []).append(row.candidate.label == row.champion.label)
    return {name: sum(hits) / len(hits) for name, hits in sets.items()}


def judged(world, **limits):
    spec, windows, done, store = world
    limited = replace(spec, limits=replace(spec.limits, **limits))
    return evaluate(limited, done.uri, done.digest, done.float_uri, windows=windows, champion=None, store=store)


def test_a_student_whose_answers_teach_a_surrogate_is_rejected_where_that_has_a_limit(world):
    found = judged(world, max_extraction_fidelity=0.5, extraction=ASKED)
    told = found.measurements
    assert told["extraction_fidelity"] >= told["extraction_fidelity_lower"] > 0.5 > told["extraction_by_constant"]
    assert all(0.0 < told[f"extraction_fidelity[{n}]"] <= 1.0 for n in (10, 20))
    assert told["extraction_by_teacher"] > told["extraction_by_constant"] and told["extraction_questions"] == 40
    assert found.verdict.decision == "reject" and "extraction_fidelity is" in found.verdict.reasons[0]
    assert replay(get_bytes(found.evidence_uri).splitlines()).same is True


def test_it_is_measured_where_it_is_asked_for_and_nowhere_else(world):
    assert not [name for name in judged(world).measurements if name.startswith("extraction")]
    found = judged(world, extraction=ASKED, min_agreement=0.5)
    assert found.measurements["extraction_fidelity"] > 0.5 and found.verdict.decision == "promote"
    assert found.measurements["rows"] == judged(world, min_agreement=0.5).measurements["rows"]


def test_with_too_few_rows_for_the_questions_the_verdict_is_hold(world, caplog):
    with caplog.at_level(logging.WARNING):
        found = judged(world, max_extraction_fidelity=0.99, extraction=Extraction(questions=5_000), min_agreement=0.5)
    assert found.verdict.decision == "hold"
    assert "extraction_fidelity was not measured; it must be <= 0.99" in found.verdict.reasons
    assert "too few for limits.extraction.questions 5000" in caplog.text


@pytest.mark.parametrize("surrogate", ["linear", "forest"])
@pytest.mark.parametrize("answers", ["probabilities", "labels"])
def test_every_surrogate_learns_from_every_kind_of_answer(held, surrogate, answers):
    student, rows = held
    wanted = Extraction(questions=40, answers=answers, surrogate=surrogate)
    found = fidelity(extraction_rows(student, rows, wanted, 20, 0))
    assert found["40"] > found[CONSTANT] + 0.2 and set(found) == {"10", "20", "40", TEACHER, CONSTANT}
    assert extraction_rows(student, rows, wanted, 20, 0) == extraction_rows(student, rows, wanted, 20, 0)


def test_probabilities_tell_more_than_labels(held):
    """Of a student that is a line and a softmax over what the surrogate sees, they tell all that there is to learn."""

    class Line:
        """Says a softmax of its columns' sums."""

        def __init__(self):
            self.card = SimpleNamespace(classes=("a", "b", "c"), inputs={})
            self.weights = np.random.default_rng(0).normal(size=(16, 3))

        def features(self, payloads):
            return {"x": np.array([self._row(p) for p in payloads], dtype=np.float32)}

        def predict(self, payloads):
            scores = np.array([self._row(p) for p in payloads]) @ self.weights
            shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            return [SoftLabel.of("s", ("a", "b", "c"), row.tolist()) for row in shares]

        @staticmethod
        def _row(payload):
            return np.frombuffer(hashlib.sha256(payload).digest()[:16], dtype=np.uint8) / 128.0 - 1.0

    student, payloads = Line(), [str(i).encode() for i in range(460)]
    rows = Rows(payloads=payloads, soft=student.predict(payloads), truth=[None] * len(payloads))
    wanted = Extraction(questions=60)
    all_of_it, labels = (
        fidelity(extraction_rows(student, rows, one, 20, 0))["60"]
        for one in (wanted, replace(wanted, answers="labels"))
    )
    assert all_of_it > 0.95 > labels > 0.6


def test_what_was_asked_about_is_not_judged_and_each_content_is_there_once(held):
    student, rows = held
    twice = rows + rows
    once = {row.id for row in extraction_rows(student, rows, ASKED, 20, 0)}
    assert {row.id for row in extraction_rows(student, twice, ASKED, 20, 0)} == once
    contents = {content_hash(p) for p in rows.payloads}
    assert len(once) == len(contents) - 40
    assert {row.id for row in extraction_rows(student, rows, ASKED, 20, 1)} != once, "the seed draws"
    made_up = Rows(payloads=rows.payloads, soft=rows.soft, truth=rows.truth, synthetic=["noise"] * len(rows))
    assert extraction_rows(student, made_up, ASKED, 20, 0) == []


def test_a_content_that_came_several_times_counts_as_often(held):
    student, rows = held
    half = rows.take(list(range(len(rows) // 2)))
    found = extraction_rows(student, rows + half, Extraction(questions=10), 20, 3)
    expected = {}
    for payload, weight in zip((rows + half).payloads, (rows + half).weights, strict=True):
        expected[payload] = expected.get(payload, 0.0) + weight
    first = {payload: name for name, payload in reversed(list(zip(rows.ids, rows.payloads, strict=True)))}
    by_id = {first[payload]: weight for payload, weight in expected.items()}
    counted = {row.id: row.weight for row in found if row.set == f"extraction {CONSTANT}"}
    assert counted == {name: by_id[name] for name in counted} and len(set(counted.values())) > 1


def test_what_a_student_is_fed_is_encoded_some_inputs_at_a_time(held, monkeypatch):
    student, rows = held
    payloads = [p * (1 + n % 3) for n, p in enumerate(rows.payloads[:20])]
    whole, sizes, features = columns(student.features(payloads)), [], student.features
    monkeypatch.setattr(extraction, "CHUNK", 7)
    monkeypatch.setattr(student, "features", lambda some: (sizes.append(len(some)), features(some))[1])
    assert np.array_equal(table_of(student, payloads), whole)
    assert max(sizes) == 7


def test_arrays_that_are_as_long_as_the_longest_beside_them_are_brought_to_one_length():
    class Lengths:
        card = SimpleNamespace(inputs={"x": TensorSpec(dtype="float32", shape=("batch", "length", 2))})

        def features(self, payloads):
            longest = max(map(len, payloads))
            rows = [np.pad(np.full((len(p), 2), float(len(p)), np.float32), ((0, longest - len(p)), (0, 0)))
                    for p in payloads]  # fmt: skip
            return {"x": np.stack(rows)}

    payloads = [b"a" * (1 + n % 5) for n in range(600)]
    assert np.array_equal(table_of(Lengths(), payloads), columns(Lengths().features(payloads)))


def test_of_a_regression_the_value_is_learnt(line_spec, lines, freeze_rows, tmp_path):
    spec = replace(line_spec, student=replace(line_spec.student, holdout_share=0.6))
    windows = [freeze_rows(spec, lines(160), tmp_path.as_uri(), 1)]
    done = distill(spec, windows, variant=spec.student.variants[0], parent=None, artifacts=tmp_path.as_uri(), seed=0)
    ((_, rows),) = holdouts(spec, windows)
    found = extraction_rows(Student.load(get_bytes(done.uri, done.digest)), rows, ASKED, 10, 0)
    errors = {
        name: np.mean([abs(r.candidate.value - r.champion.value) for r in found if r.set == f"extraction {name}"])
        for name in ("40", CONSTANT)
    }
    assert errors["40"] < errors[CONSTANT] / 2
    made = Evidence(judgement=Judgement(workload="w", task="regression"), rows=tuple(found))
    assert 0.0 <= measures(made)["extraction_fidelity"].value <= 1.0


def test_columns_of_what_a_student_is_fed():
    ids, weights = np.array([[1, 1, 5]]), np.array([[0.5, 1.0, 0.0]], dtype=np.float32)
    bag = columns({"ids": ids, "weights": weights})
    assert bag.shape == (1, 2_048) and bag[0, 1] == 1.5 and bag.sum() == 1.5
    assert columns({"ids": ids, "mask": np.array([[1, 0, 1]])})[0, [1, 5]].tolist() == [1.0, 1.0]
    assert columns({"ids": ids})[0, [1, 5]].tolist() == [2.0, 1.0]
    pixels = np.arange(2 * 5_000, dtype=np.float32).reshape(2, 50, 100)
    assert columns({"pixels": pixels}).shape == (2, 1_667) and columns({"p": pixels})[0, :2].tolist() == [0.0, 3.0]
    assert columns({"ids": ids, "x": np.ones((1, 4), dtype=np.float32)}).shape == (1, 2_052)


def answered(name, hits, n):
    a, b = Answer(label="a"), Answer(label="b")
    return [Row(set=f"extraction {name}", candidate=a if i < hits else b, champion=a) for i in range(n)]


def evidence(rows, **limits):
    made = [Row(set="new", teacher=Answer(label="a"), candidate=Answer(label="a"))] * 30
    bare = Evidence(judgement=Judgement(workload="w", task="classification"), rows=(*made, *rows))
    return demanded(bare, Limits(min_rows=20, confidence=0.95, **limits))


def test_the_bound_must_keep_the_limit_and_surrogates_judge_nothing_else():
    rows = [*answered("100", 60, 100), *answered("25", 40, 100), *answered(CONSTANT, 30, 100)]
    found = measures(evidence(rows))
    assert found["rows"] == 30 and found["agreement"].n == 30
    assert found["extraction_fidelity"].value == 0.6 and found["extraction_fidelity[25]"].value == 0.4
    assert found["extraction_by_constant"].value == 0.3 and found["extraction_by_teacher"] is None
    decisions = {
        limit: judge(evidence(rows, max_extraction_fidelity=limit)).decision for limit in (0.4, 0.6, 0.65, 0.8)
    }
    assert decisions == {0.4: "reject", 0.6: "hold", 0.65: "hold", 0.8: "promote"}


def test_where_it_is_looked_at_repeatedly_the_estimate_is_told_and_a_limit_holds_with_the_reason():
    rows = [*answered("100", 60, 100), *answered("25", 40, 100)]
    made = evidence(rows, max_extraction_fidelity=0.99, looks="repeated")
    found = measures(made)
    assert found["extraction_fidelity"] is None
    assert (found["extraction_fidelity_estimate"], found["extraction_fidelity[25]"]) == (0.6, 0.4)
    verdict = judge(made)
    assert verdict.decision == "hold"
    assert any("no bound that holds at all looks" in text for text in made.judgement.notes)


def test_too_few_rows_hold_and_evidence_from_before_has_no_measure():
    assert judge(evidence(answered("100", 5, 19), max_extraction_fidelity=0.9)).decision == "hold"
    assert not [name for name in measures(evidence([])) if name.startswith("extraction")]
    assert judge(evidence([], max_extraction_fidelity=0.9)).decision == "hold"


def test_a_limit_alone_asks_by_the_defaults_and_all_that_may_be_is_held_out(letter_spec):
    assert extracted(Limits()) is None and extracted(Limits(extraction=ASKED)) == ASKED
    assert extracted(Limits(max_extraction_fidelity=0.5)) == Extraction()
    few = replace(letter_spec, limits=Limits(confidence=0.9, min_agreement=0.8))
    more = replace(few, limits=replace(few.limits, max_extraction_fidelity=0.9))
    assert needed(few).rows < needed(more).rows == float("inf")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"questions": 3}, r"Expected `int` >= 4.*limits\.extraction\.questions"),
        ({"answers": "logits"}, r"Invalid enum value 'logits'.*limits\.extraction\.answers"),
        ({"surrogate": "tree"}, r"Invalid enum value 'tree'.*limits\.extraction\.surrogate"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, written, told):
    path = tmp_path / "spec.yaml"
    content = {"name": "w", "teacher": {"factory": "t:T"}, "features": {"factory": "f:F"}}
    path.write_bytes(msgspec.yaml.encode(content | {"limits": {"extraction": written}}))
    with pytest.raises(ConfigError, match=told):
        load_spec(path)
