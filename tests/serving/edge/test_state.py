"""Who answers, by what an edge was last told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.sampling import bucket as theirs
from serving.edge import state
from serving.edge.disk import Disk
from serving.edge.errors import LinkError
from serving.edge.state import EVERY_ANSWER, Consent, Decision, Version, bucket
from serving.replica.split import to_candidate

ONE, TWO = (Version(version=v, digest=v * 64) for v in "12")


def decision(**fields):
    made = {"workload": "signs", "revision": 7, "champion": ONE, "candidate": TWO, "weight": 0.5, "lease_seconds": 10.0}
    return Decision(**{**made, "heard_at": 1000.0, **fields})


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_key_falls_to_whom_it_falls_to_behind_the_gateway(workload, salt, key):
    assert bucket(workload, salt, key) == theirs(workload, salt, key)


@given(st.text(max_size=20), st.floats(0, 1))
def test_the_split_is_the_gateway_s(key, weight):
    arm = decision(weight=weight).arm(key, 1005.0)
    assert (arm == "candidate") == to_candidate("signs", TWO.digest, key, weight)


@pytest.mark.parametrize(
    ("now", "expected"), [(1000.0, "candidate"), (1009.9, "candidate"), (1010.0, "champion"), (999.9, "champion")]
)
def test_a_candidate_answers_while_its_lease_lasts_and_not_by_a_clock_that_was_set_back(now, expected):
    assert decision(weight=1.0).arm("k", now) == expected


def test_a_guard_defers_all_once_nobody_stands_for_it():
    guarded = decision(guard_below=0.9)
    assert guarded.defer_below("champion", 1005.0) == 0.9
    assert guarded.defer_below("champion", 1010.0) == EVERY_ANSWER
    assert guarded.defer_below("candidate", 1005.0) == decision().defer_below("champion", 1010.0) == 0.0


@pytest.mark.parametrize(
    ("required", "allowed", "terms", "expected"),
    [
        (True, (), None, False), (False, (), None, True), (True, (), "any", True), (True, ("a",), "a", True),
        (True, ("a",), "b", False), (False, ("a",), None, True), (False, ("a",), "b", False),
    ],
)  # fmt: skip
def test_what_may_be_kept_is_what_the_platform_would_take(required, allowed, terms, expected):
    from components.contracts.admission import check_consent
    from components.contracts.errors import RecordError
    from components.contracts.spec.label import Consent as Theirs

    assert Consent(required=required, allowed=allowed).allows(terms) is expected
    try:
        check_consent(terms, Theirs(required=required, allowed=allowed))
        assert expected
    except RecordError:
        assert not expected


def test_a_decision_is_read_as_it_was_written(tmp_path):
    assert state.read(tmp_path) is None
    made = decision(before=TWO, guard_below=0.8, consent=Consent(required=False, allowed=("a", "b")))
    state.write(tmp_path, made, Disk())
    assert state.read(tmp_path) == made
    (tmp_path / state.STATE).write_bytes(b"{")
    assert state.read(tmp_path) is None


def test_the_champion_before_is_kept_for_a_way_back():
    first = state.after(decision(candidate=None), None)
    assert first.before is None
    second = state.after(decision(champion=TWO, candidate=None), first)
    assert second.before == ONE
    again = state.after(decision(champion=TWO, candidate=None, revision=8), second)
    assert again.before == ONE


@pytest.mark.parametrize("answer", [{}, {"champion": 7}, {"champion": None}, {"champion": {"version": "1"}}])
def test_what_is_no_decision_is_told(answer):
    with pytest.raises(LinkError):
        state.told(answer, 0.0, "http://gateway")


def test_what_a_gateway_says_of_the_champion_before_is_not_taken_for_what_is_here():
    heard = {"workload": "s", "revision": 1, "champion": {"version": "1", "digest": "1" * 64}}
    assert state.told({**heard, "before": {"version": "9", "digest": "9" * 64}}, 0.0, "http://gateway").before is None
