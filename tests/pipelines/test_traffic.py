from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipelines.traffic import REMEMBERED, Thinning, Window


def test_an_input_is_taken_once_while_it_is_remembered():
    thinning = Thinning(1e9)
    assert [thinning.takes(name, 1.0) for name in ("a", "b", "a")] == [True, True, False]
    assert all(thinning.takes(f"i{i}", 1.0) for i in range(REMEMBERED))
    assert thinning.takes("a", 1.0), "it was forgotten: the memory is bounded"
    assert len(thinning._known) == REMEMBERED


@given(rate=st.floats(0.5, 50.0), each=st.integers(1, 40), seconds=st.integers(1, 30))
def test_of_many_inputs_no_more_than_the_rate_are_taken_and_of_few_all(rate, each, seconds):
    thinning = Thinning(rate)
    taken = sum(thinning.takes(f"{s}-{i}", s + i / each) for s in range(seconds) for i in range(each))
    assert taken <= max(1.0, rate) + rate * seconds
    if each <= rate:
        assert taken == each * seconds


def test_of_a_flood_an_even_part_is_taken():
    thinning = Thinning(10.0)
    taken = [i for i in range(10_000) if thinning.takes(str(i), i / 1_000)]
    later = [b - a for a, b in pairwise(taken[10:])]
    assert set(later) <= {99, 100, 101}, "one of a hundred, evenly"


def test_windows_follow_each_other_by_a_half():
    window = Window[int](10)
    looks = [i for i in range(1, 31) if window.add(i)]
    assert looks == [10, 15, 20, 25, 30] and window.rows == list(range(21, 31))
