"""Cosines, neighbours found and ranks, against counting by hand; their bounds, limits and what is too little."""

import msgspec
import numpy as np
import pytest
from scipy.stats import spearmanr

from components.contracts.errors import ConfigError
from components.contracts.records import SoftLabel
from components.contracts.spec import Limits
from components.evaluate.evidence import NEW, Answer, Evidence, Judgement, Row, decode, encode
from components.evaluate.judge import demanded, judge, replay
from components.evaluate.measure import REGIME, measures
from components.evaluate.page import evidence_page
from components.evaluate.ranked import search

DIMENSION, ROWS = 8, 60


def answer(vector, scale=0.1):
    return Answer.of(SoftLabel(task="embedding", space="s@1", vector=tuple(map(float, vector)), scale=scale))


def evidence(noise=0.3, worse=None, rows=ROWS, k=5, sets=(NEW,), **judgement):
    """A student that is off the teacher by ``noise``, and a champion that is off by ``worse``."""
    chance = np.random.default_rng(4)
    made = []
    for name in sets:
        for i in range(rows):
            teacher = chance.normal(size=DIMENSION)
            off = chance.normal(size=(2, DIMENSION))
            champion = None if worse is None else answer(teacher + worse * off[1])
            made.append(
                Row(set=name, id=f"{i}", teacher=answer(teacher), candidate=answer(teacher + noise * off[0]),
                    champion=champion)
            )  # fmt: skip
    named = {"champion": None if worse is None else "c", "min_rows": 30, "neighbours": k, "searched": 40, **judgement}
    return Evidence(judgement=Judgement(workload="w", task="embedding", **named), rows=tuple(made))


def units(chance, n, d):
    found = chance.normal(size=(n, d))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_recall_and_ranks_are_those_that_counting_gives():
    chance = np.random.default_rng(0)
    mine, teacher, k = units(chance, 25, 6), units(chance, 25, 4), 3
    found = search(mine, teacher, k, 24)
    for i in range(25):
        others = [j for j in range(25) if j != i]
        own, wanted = ([float(side[i] @ side[j]) for j in others] for side in (mine, teacher))
        best = sorted(others, key=lambda j, w=wanted: -w[others.index(j)])[:k]
        near = sorted(others, key=lambda j, w=own: -w[others.index(j)])[:k]
        assert found.recall[i] == pytest.approx(len(set(best) & set(near)) / k)
        assert found.correlation[i] == pytest.approx(spearmanr(own, wanted).statistic)


def test_the_teacher_itself_finds_all_and_a_mirrored_space_ranks_the_same():
    chance = np.random.default_rng(0)
    teacher = units(chance, 40, 6)
    assert (search(teacher, teacher, 5, 20).recall == 1.0).all()
    mirrored = search(-teacher, teacher, 5, 39)
    assert (mirrored.recall == 1.0).all() and mirrored.correlation == pytest.approx(1.0)
    for k, searched in ((5, 4), (2, 5)):
        with pytest.raises(ValueError, match=f"4 others: {searched} of them cannot be searched for {k}"):
            search(teacher[:5], teacher[:5], k, searched)


def test_equal_vectors_are_found_in_their_order_on_both_sides():
    same = np.ones((12, 3)) / np.sqrt(3.0)
    found = search(same, same, 4, 8)
    assert (found.recall == 1.0).all() and (found.correlation == 0.0).all()  # nothing tells an order


def test_measures_fall_with_noise_and_have_bounds():
    good, bad = (measures(evidence(noise)) for noise in (0.1, 1.5))
    for name in ("cosine", "recall", "rank_correlation"):
        assert good[name].value > bad[name].value + 0.1
        assert good[name].bound("lower", 0.95) < good[name].value < good[name].bound("upper", 0.95)
    assert good["agreement"].value == 1.0 > bad["agreement"].value
    assert good["truth_rows"] == 0.0 and good["cosine_loss"] is None and good["recall_loss"] is None


def test_a_worse_student_than_the_champion_has_losses():
    found = measures(evidence(noise=1.5, worse=0.1, sets=(NEW, f"{REGIME}window 1")))
    for name in ("cosine_loss", "recall_loss"):
        assert found[name].value > 0.1 and found[name].bound("lower", 0.95) > 0.0
    assert found["forgetting"] == pytest.approx(found["forgetting[window 1]"].value) and found["forgetting"] > 0.1


@pytest.mark.parametrize("change", [{"rows": 40}, {"k": 11}, {"rows": 20}])
def test_too_few_rows_measure_nothing(change):
    found = measures(evidence(**change))
    assert found["recall"] is None and found["rank_correlation"] is None
    assert (found["cosine"] is None) == (change.get("rows") == 20)


def test_a_vector_of_another_space_is_as_far_as_can_be_and_no_neighbour():
    made = evidence(worse=0.1)
    odd = msgspec.structs.replace(made.rows[0], candidate=answer(np.ones(3)))
    found = measures(msgspec.structs.replace(made, rows=(odd, *made.rows[1:])))
    assert found["recall"] is None and found["cosine"].values[0] == -1.0


LIMITS = Limits(min_rows=30, confidence=0.9, min_cosine=0.8, min_recall=0.5, neighbours=5, searched=40)


def test_limits_are_judged_by_bounds_and_each_can_fail():
    assert judge(demanded(evidence(noise=0.1), LIMITS)).decision == "promote"
    failing = judge(demanded(evidence(noise=2.0), LIMITS))
    assert failing.decision == "reject"
    assert {f.measure: f.outcome for f in failing.findings if f.measure in ("cosine", "recall")} == {
        "cosine": "fail", "recall": "fail",
    }  # fmt: skip
    small = msgspec.structs.replace(LIMITS, max_cosine_loss=0.05, max_recall_loss=0.05)
    worse = judge(demanded(evidence(noise=0.5, worse=0.05, rows=150), small))
    assert {f.measure for f in worse.findings if f.outcome == "fail"} >= {"cosine_loss", "recall_loss"}
    assert judge(demanded(evidence(noise=0.1, worse=0.1, rows=150), small)).decision == "promote"


def test_without_rows_enough_to_search_the_verdict_is_hold():
    assert judge(demanded(evidence(noise=0.1, rows=40), LIMITS)).decision == "hold"
    assert judge(demanded(evidence(noise=0.1, rows=41), LIMITS)).decision == "promote"


def test_recall_does_not_tell_how_large_the_holdout_is():
    few, many = (measures(evidence(noise=1.0, rows=rows))["recall"] for rows in (60, 1_000))
    assert many.value == pytest.approx(few.value, abs=0.05)
    whole = measures(evidence(noise=1.0, rows=1_000, searched=999))["recall"]
    assert whole.value < few.value - 0.15, "which it would be, were all searched"


def test_rows_are_counted_before_they_are_thinned(monkeypatch):
    monkeypatch.setattr("components.evaluate.ranked.MOST_SEARCHED", 100)
    found = measures(evidence(rows=101, min_rows=101))["recall"]
    assert found is not None and found.n == 100


def test_the_page_shows_the_recall_that_the_gate_judges():
    made = evidence(noise=1.0, rows=200)
    rows = [msgspec.structs.replace(row, weight=float(i % 2)) for i, row in enumerate(made.rows)]
    made = msgspec.structs.replace(made, rows=tuple(rows))
    judged = measures(made)["recall"]
    assert judged.n == 100
    assert f"<td class=number>{judged.value:.4g} (" in evidence_page(made, {}, {}).decode()


def test_evidence_is_judged_again_alike_and_shown():
    full = demanded(evidence(noise=0.2, worse=0.2), LIMITS)
    lines = encode(full, judge(full)).splitlines()
    assert replay(lines).same is True
    page = evidence_page(decode(lines)[0], {}, {}).decode()
    assert "mean cosine to the teacher" in page and "5 nearest, of 40 others," in page


@pytest.mark.parametrize(("label", "what"), [("?", "float16 in base64"), ("", "float16 in base64|finite numbers")])
def test_evidence_without_vectors_is_refused_by_its_line(label, what):
    made = evidence(rows=1)
    row = msgspec.structs.replace(made.rows[0], candidate=Answer(label=label, scale=0.1))
    lines = encode(msgspec.structs.replace(made, rows=(row,))).splitlines()
    with pytest.raises(ConfigError, match=what):
        decode(lines)


def test_looked_at_repeatedly_the_bounds_are_wider():
    once, often = (measures(evidence(repeated=repeated)) for repeated in (False, True))
    assert often["cosine"].bound("lower", 0.9) < once["cosine"].bound("lower", 0.9)
    assert once["recall"] is not None
    assert [often[name] for name in ("recall", "rank_correlation", "recall_loss")] == [None] * 3


def test_recall_is_a_share_and_its_bound_no_lower_than_one_more_row_without_a_hit_makes_it():
    found = measures(evidence(noise=0.0))["recall"]
    assert (found.value, found.least) == (1.0, 0.0)
    assert found.bound("lower", 0.95) == pytest.approx(0.05 ** (1 / ROWS), abs=0.01)
