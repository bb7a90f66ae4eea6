"""Who is to blame where the search for personal data fails: the finder, or one input."""

import pytest

from components.contracts.errors import FinderError
from components.contracts.masking import TRIES
from components.contracts.records import Input, decode, encode
from components.contracts.spec import Factory, Masking, Payload, Spec
from components.contracts.stream_record import Record
from components.label.search import Search

pytestmark = pytest.mark.usefixtures("hangs")

FINDER = """
import pathlib
import time

STATE = pathlib.Path(__file__).with_name("state")


def find(text):
    state = STATE.read_text()
    with STATE.with_name("asked").open("a") as asked:
        asked.write(text + "\\n")
    if "hang" in text:
        time.sleep(3600)
    if state == "away" or "poison" in text:
        raise OSError(text)
    return [("NAME", text.index("Ada"), text.index("Ada") + 3)] if "Ada" in text else []


def made():
    return find
"""


@pytest.fixture
def finder(tmp_path):
    """Says how the finder is: ``finder("away")``."""
    (tmp_path / "finder.py").write_text(FINDER)
    state = (tmp_path / "state").write_text
    state("works")
    return state


@pytest.fixture
def search(tmp_path, finder):
    masking = Masking(entities=("NAME",), finder=Factory(factory="finder.py:made"), finder_seconds=60.0)
    spec = Spec(
        name="w", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), payload=Payload(decoder="text"),
        masking=masking, source=str(tmp_path / "w.yaml"),
    )  # fmt: skip
    return Search(spec)


def record(text, offset=0):
    entry = Input(workload="w", id=str(offset), key="k", time=1.0, payload=text)
    return Record("w.inputs", 0, offset, b"k", encode(entry), {}, 1.0)


def texts(searched):
    return [decode(Input, s.record.value).payload if s.unmasked is None else s.unmasked.reason for s in searched]


def test_while_the_finder_is_away_nobody_is_blamed_and_it_heals_by_itself(search, finder):
    batch = [record(b"Ada came"), record(b"nobody", 1)]
    finder("away")
    for _ in range(3 * TRIES):
        with pytest.raises(FinderError, match="raised OSError"):
            search.of(batch)
    finder("works")
    assert texts(search.of(batch)) == [b"[NAME] came", b"nobody"]


@pytest.mark.parametrize("others", [(), (b"Ada came",)])
def test_an_input_that_the_finder_alone_fails_on_is_refused_once_it_works_on_others(search, others):
    batch = [record(b"poison of Ada"), *(record(text, n) for n, text in enumerate(others, start=1))]
    for _ in range(TRIES - 1):
        with pytest.raises(FinderError):
            search.of(batch)
    first, *rest = search.of(batch)
    assert (first.record.value, first.unmasked.reason) == (b"", "mask_failed")
    assert "the finder works on others" in first.unmasked.detail and "poison" not in first.unmasked.detail
    assert texts(rest) == [b"[NAME] came"] * len(others)


def test_what_failed_while_the_finder_was_away_does_not_count_against_an_input(search, finder):
    batch = [record(b"poison of Ada")]
    for state in ("works", "away", "away", "away", "works"):
        finder(state)
        with pytest.raises(FinderError):
            search.of(batch)
    finder("works")
    assert texts(search.of(batch)) == ["mask_failed"]


def test_a_finder_that_works_on_what_it_searched_before_is_asked_that_too(search, finder):
    search.of([record(b"Ada came")])
    finder("away")
    with pytest.raises(FinderError):
        search.of([record(b"others", 1)])
    assert search._failures == {}


def test_however_many_inputs_it_hangs_on_the_others_come_through(search):
    batch = [*(record(f"hang {n}".encode(), n) for n in range(3)), record(b"Ada came", 3)]
    for _ in range(TRIES - 1):
        with pytest.raises(FinderError, match="took longer"):
            search.of(batch)
    assert texts(search.of(batch)) == ["mask_failed"] * 3 + [b"[NAME] came"]
    assert texts(search.of([record(b"Ada went", 4)])) == [b"[NAME] went"]


def test_what_is_refused_is_not_searched_again_while_another_is_not_yet(tmp_path, search):
    first, second = record(b"poison", 0), record(b"poison, too", 1)
    for batch in ([first], [first], [first, second], [first, second]):
        with pytest.raises(FinderError):
            search.of(batch)
    assert texts(search.of([first, second])) == ["mask_failed"] * 2
    assert (tmp_path / "asked").read_text().splitlines().count("poison") == TRIES
