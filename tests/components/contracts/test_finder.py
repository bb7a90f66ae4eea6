"""A finder that hangs holds up its caller for its limit alone, and heals by itself."""

import threading

import pytest

from components.contracts.errors import FinderError
from components.contracts.finder import MOST_LEFT, Finder


def test_one_that_hangs_is_left_to_run_and_others_are_searched_meanwhile():
    gate = threading.Event()
    finder = Finder(lambda text: gate.wait(30) and [] if text == "bad" else [("NAME", 0, 1)], "f.py:made", 0.05)
    with pytest.raises(FinderError, match=r"f\.py:made.*took longer than 0\.05 s"):
        finder("bad")
    assert finder("good") == [("NAME", 0, 1)]
    gate.set()


def test_no_more_are_left_to_run_than_may_be_until_one_ends():
    gate, calls = threading.Event(), []

    def find(text):
        calls.append(text)
        gate.wait(30)
        return []

    finder = Finder(find, "f.py:made", 0.01)
    for _ in range(MOST_LEFT):
        with pytest.raises(FinderError, match="took longer"):
            finder("bad")
    with pytest.raises(FinderError, match=f"{MOST_LEFT} of its calls hang"):
        finder("bad")
    assert len(calls) == MOST_LEFT
    gate.set()
    for call in list(finder._left):
        call.result(30)
    assert finder("good") == []
