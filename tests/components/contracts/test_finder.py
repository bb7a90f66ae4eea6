"""A finder that hangs, or ends its process, holds up its caller for its limit alone, and leaves nothing behind."""

import os
import time

import pytest

from components.contracts import finder as module
from components.contracts.errors import ConfigError, FinderError
from components.contracts.finder import Finder
from components.contracts.spec import Factory

pytestmark = pytest.mark.usefixtures("hangs")

FINDER = """
import os
import pathlib
import time

HERE = pathlib.Path(__file__).parent


def find(text):
    (HERE / "pid").write_text(str(os.getpid()))
    if "hang" in text:
        time.sleep(3600)
    if "die" in text:
        os._exit(1)
    return [("NAME", 0, 1), ("PLACE", text.index("\\ud800"), len(text))] if "\\ud800" in text else [("NAME", 0, 1)]


def made():
    if (HERE / "broken").exists():
        raise OSError("no model")
    return find
"""


@pytest.fixture
def make(tmp_path):
    (tmp_path / "f.py").write_text(FINDER)
    return lambda seconds=60.0: Finder(Factory(factory="f.py:made"), str(tmp_path / "spec.yaml"), seconds)


def pid(folder):
    return int((folder / "pid").read_text())


def test_however_many_texts_it_hangs_on_others_are_searched_and_nothing_is_left_to_run(make):
    finder, pids = make(), set()
    for n in range(3):
        assert finder("good") == [("NAME", 0, 1)]
        pids.add(finder._process._running.pid)
        with pytest.raises(FinderError, match=r"f\.py:made.*took longer than 60 s"):
            finder(f"hang {n}")
    assert finder("good") == [("NAME", 0, 1)]
    assert len(pids) == 3 and os.getpid() not in pids
    for one in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(one, 0)


def test_one_that_takes_its_process_down_fails_on_that_text_alone(make):
    finder = make()
    with pytest.raises(FinderError, match="its process ended"):
        finder("die")
    assert finder("good") == [("NAME", 0, 1)]


def test_a_text_of_json_that_no_utf_8_can_hold_is_searched(make):
    assert make()("a \ud800")[1] == ("PLACE", 2, 3)


def test_one_that_cannot_be_made_anew_fails_until_it_can(make, tmp_path):
    finder, broken = make(), tmp_path / "broken"
    with pytest.raises(FinderError):
        finder("hang")
    broken.touch()
    with pytest.raises(FinderError, match="cannot be made: OSError: no model"):
        finder("good")
    broken.unlink()
    assert finder("good") == [("NAME", 0, 1)]


def test_its_process_ends_with_who_asks(make, tmp_path):
    finder = make()
    finder("good")
    one = pid(tmp_path)
    os.kill(one, 0)
    del finder
    with pytest.raises(ProcessLookupError):
        os.kill(one, 0)


def test_one_that_hangs_ends_by_itself_once_nobody_waits_for_it(make):
    # who asks may be killed: here it never ends what hangs, and only sees that it went
    finder = make(-module.GRACE_SECONDS + 0.2)
    process = finder._process
    process._pipe.send("hang")
    started = time.monotonic()
    assert process._running.wait(60) == -14 and time.monotonic() - started < 60


def test_a_finder_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        Finder(Factory(factory="f.py:made"), str(tmp_path / "spec.yaml"), 1.0)
