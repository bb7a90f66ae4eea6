from collections import Counter

import pytest

from tests.chaos.report import Report, summary
from tests.chaos.verdict import Verdict

DONE = {"seed": 0, "planned": 3, "planned_of_broker": 1, "broker_kills": 1, "answered": 1}


def report(**changes):
    return Report(**DONE | {"kills": Counter({"labeler.1": 2, "work": 1})} | changes)


def test_a_run_that_did_what_it_should_is_good():
    assert report().good and report().last_line == "lost 0 duplicated 0 kills 3"


@pytest.mark.parametrize("kind", Verdict._fields)
def test_nothing_that_is_wrong_passes(kind):
    bad = report(verdict=Verdict(**{kind: ("i1",)}))
    assert not bad.good and f"{kind} 1: i1" in summary(bad)


def test_fewer_kills_than_planned_and_records_that_the_broker_lost_do_not_pass():
    assert not report(kills=Counter({"work": 2})).good
    assert "only 2 of 3 kills in the time allowed" in summary(report(kills=Counter({"work": 2})))
    assert not report(broker_kills=0).good and not report(answered=0).good
    lost = report(broker_lost=["i7"])
    assert not lost.good and lost.last_line == "lost 1 duplicated 0 kills 3"
