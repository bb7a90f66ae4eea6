from collections import Counter

import pytest

from tests.chaos.failpoints import failpoints
from tests.chaos.schedule import FAULTS, LABELERS, BrokerKill, Fault, Freeze, Scale, schedule

PLACES = tuple(f"labeler.{n}" for n in range(1, 7))


def test_the_same_seed_gives_the_same_schedule_and_another_one_another():
    assert schedule(3, 200, 10, PLACES) == schedule(3, 200, 10, PLACES)
    assert schedule(3, 200, 10, PLACES) != schedule(4, 200, 10, PLACES)


@pytest.mark.parametrize("seed", range(5))
def test_a_long_run_has_everything_that_it_promises(seed):
    kills, events = schedule(seed, 200, 10, PLACES)
    places = Counter(k.failpoint for k in kills if k.how == "failpoint")
    assert len(kills) == 200 and places.total() == 100
    assert set(places) == set(PLACES) and max(places.values()) - min(places.values()) <= 1
    assert {k.how for k in kills} == {"failpoint", "start", "work"}
    kinds = Counter(type(event) for _, event in events)
    assert kinds[BrokerKill] == 10 and kinds[Freeze] == 8
    assert {e.kind for _, e in events if isinstance(e, Fault)} == set(FAULTS)
    scales = [e.labelers for _, e in events if isinstance(e, Scale)]
    assert set(scales) == set(range(1, LABELERS + 1))
    assert all(a != b for a, b in zip([LABELERS, *scales], scales, strict=False)), "each changes something"
    assert all(1 <= at < 200 for at, _ in events), "none comes before the first kill or after the last"


def test_without_failpoints_all_kills_are_by_process_id():
    assert {k.how for k in schedule(0, 40, 0, ()).kills} == {"start", "work"}


def test_failpoints_are_read_from_the_sources(tmp_path):
    (tmp_path / "components" / "x").mkdir(parents=True)
    (tmp_path / "components" / "x" / "a.py").write_text(
        'failpoint("labeler.2")\nfailpoint("labeler.10")\nfailpoint("other.1")\n# failpoint("labeler.3")\n'
    )
    assert failpoints("labeler", tmp_path) == ("labeler.2", "labeler.10")
