import msgspec
import pytest

from components.contracts.spec import Factory, Payload
from components.steps import Candidate
from components.student.card import StudentCard
from drift.gate import Criterion, assess
from drift.measured import Share
from pipelines.outcome import Outcome, outcome
from tests.students import bag

CARD = StudentCard(
    workload="tickets", task="classification", space="s@1", classes=("a", "b"), features=Factory(factory="f:F"),
    payload=Payload(), **bag(16, 4, 8), variant="small", snapshots=("a" * 64,), teacher="t@1",
    parent=None, code="1",
)  # fmt: skip


@pytest.fixture
def ran(tmp_path):
    """The files of a run whose student got a verdict (None: there was nothing new)."""

    def make(verdict, step="evaluate/judged"):
        path = tmp_path / "continual-1" / step
        path.parent.mkdir(parents=True, exist_ok=True)
        candidate = verdict and Candidate(
            uri="u", digest="d", float_uri="u", card=CARD, parity_gap=0.0, metrics={}, history=(),
            decision=verdict.decision, verdict=verdict.as_dict(),
        )  # fmt: skip
        path.write_bytes(msgspec.json.encode(candidate))
        return tmp_path

    return make


def agreement(right, of, *, limit=0.8, rows=None):
    share = Share(hits=(True,) * right + (False,) * (of - right), weights=(1.0,) * of)
    found = {"agreement": share, "rows": float(rows or of)}
    return assess(
        found,
        [
            Criterion(measure="rows", at_least=30.0, evidence=True),
            Criterion(measure="agreement", at_least=limit, confidence=0.9),
        ],
    )


def test_an_order_makes_no_student(tmp_path):
    assert outcome(tmp_path, {"rollback": "version 1 serves"}, 0.2, serves=False) is None


def test_a_registered_student_is_named(ran):
    done = outcome(ran(agreement(99, 100)), {"register": "3"}, 0.2, serves=False)
    assert done.version == "3"
    assert done.text == "student: version 3 is registered"


def test_a_student_of_made_up_inputs_is_registered_and_says_why_it_is_held(tmp_path):
    path = tmp_path / "data-free-1" / "evaluate" / "judged"
    path.parent.mkdir(parents=True)
    verdict = agreement(0, 0)
    for synthetic, said in (({"noise;seed=0": 9}, "and held: it was taught by synthetic inputs alone"), ({}, "forced")):
        card = msgspec.structs.replace(CARD, labels=9, synthetic=synthetic)
        candidate = Candidate(
            uri="u", digest="d", float_uri="u", card=card, parity_gap=0.0, metrics={}, history=(),
            decision=verdict.decision, verdict=verdict.as_dict(),
        )  # fmt: skip
        path.write_bytes(msgspec.json.encode(candidate))
        done = outcome(tmp_path, {"register": "3"}, 0.2, serves=False)
        assert (
            done.decision == "hold" and done.text.startswith("student: version 3 is registered") and said in done.text
        )


def test_a_forced_one_says_that_the_gate_did_not_want_it(ran):
    done = outcome(ran(agreement(1, 100)), {"register": "3"}, 0.2, serves=False)
    assert done.version == "3"
    assert "forced: the gate says reject" in done.text


def test_a_rejected_one_says_what_it_broke(ran):
    done = outcome(ran(agreement(1, 100)), {"register": "reject"}, 0.2, serves=False)
    assert done.version is None and done.more_labels is None
    assert done.text.startswith("no student: rejected: agreement is 0.01, ")
    assert "rows is" not in done.text, "what passed is no reason"


def test_a_held_one_says_how_many_more_inputs_would_decide(ran):
    verdict = agreement(42, 50)
    (finding,) = [f for f in verdict.findings if f.outcome == "missing"]
    done = outcome(ran(verdict), {"register": "hold"}, 0.25, serves=False)
    assert done.version is None
    assert done.more_labels == 4 * finding.more > 0
    assert f"About {done.more_labels} more labelled inputs would decide" in done.text


def test_where_rows_alone_are_missing_their_number_counts(ran):
    verdict = agreement(20, 20, limit=0.5)
    assert verdict.decision == "hold"
    assert outcome(ran(verdict), {"register": "hold"}, 0.25, serves=False).more_labels == 40


def test_where_no_number_would_decide_none_is_promised(ran):
    verdict = assess({}, [Criterion(measure="teacher_accuracy", at_least=0.9)])
    done = outcome(ran(verdict), {"register": "hold"}, 0.2, serves=False)
    assert done.more_labels is None
    assert "teacher_accuracy was not measured" in done.text
    assert done.text.endswith("No number of labels is sure to decide")


@pytest.mark.parametrize(
    ("known", "serves", "more"),
    [
        (39.0, False, 1), (0.0, False, 40), (40.0, False, None), (None, False, None),
        (39.0, True, 40), (0.0, True, 40), (40.0, True, None), (None, True, None),
    ],
)  # fmt: skip
def test_where_truths_are_missing_it_says_of_how_many_inputs_to_come(tmp_path, known, serves, more):
    rows = Criterion(measure="rows", at_least=40.0, evidence=True)
    verdict = assess({"rows": 78.0}, [rows, Criterion(measure="rmse", at_most=60.0, confidence=0.9)])
    candidate = Candidate(
        uri="u", digest="d", float_uri="u", card=CARD, parity_gap=0.0, metrics={}, history=(),
        decision=verdict.decision, verdict=verdict.as_dict(), measurements={"rows": 78.0, "truth_rows": known},
    )  # fmt: skip
    path = tmp_path / "continual-1" / "evaluate" / "judged"
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(candidate))
    done = outcome(tmp_path, {"register": "hold"}, 0.2, serves=serves)
    assert done.more_truths == more
    whose = "held-out inputs of the next window" if serves else "more held-out inputs, of windows to come,"
    told = f"To measure that, the truth of {more} {whose} must be known when these are frozen"
    assert done.text.endswith(told if more else "No number of labels is sure to decide")


def test_of_two_variants_the_chosen_one_counts(ran):
    ran(agreement(1, 100))
    root = ran(agreement(99, 100), step="choose/chosen")
    assert outcome(root, {"register": "1"}, 0.2, serves=False).decision == "promote"


def test_nothing_new_is_said(ran):
    done = outcome(ran(None), {"register": "nothing"}, 0.2, serves=False)
    assert done == Outcome(decision="nothing", version=None)
    assert done.text == "no student: there are no new labels"
