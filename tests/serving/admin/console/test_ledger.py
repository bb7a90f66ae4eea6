"""The ledger's pages: who did what, filtered, in pages, and verified."""

import re

import pytest
from sqlalchemy import update

from components.control.tables import LedgerRow
from components.ledger.ledger import append
from serving.admin.console import ledger_pages
from tests.serving.admin.conftest import W
from tests.serving.admin.console.test_workload import MARKUP, SHOWN


@pytest.fixture
def filled(control):
    for number in range(4):
        append(control, W, "ada", "rollout step", {"reason": f"r{number}", "empty": None, "list": [number]})
    append(control, "other", MARKUP, "rollout_step", {MARKUP: MARKUP})


def seqs(text):
    return [int(n) for n in re.findall(r'<td class="n">(\d+)</td>', text)]


def test_entries_are_shown_newest_first_in_pages(person, filled, monkeypatch):
    monkeypatch.setattr(ledger_pages, "PAGE", 2)
    viewer = person("viewer")
    text, seen = viewer.get("/console/ledger?workload=signs").text, []
    while True:
        seen += seqs(text)
        older = re.search(r'href="(/console/ledger\?[^"]*before[^"]*)"', text)
        if older is None:
            break
        text = viewer.get(older[1].replace("&amp;", "&")).text
    assert seen == [4, 3, 2, 1] and "list: [0]" in text and "empty" not in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("workload=signs", [4, 3, 2, 1]), ("actor=ada", [4, 3, 2, 1]), ("action=step", [5, 4, 3, 2, 1]),
        ("action=_step", [5]), ("action=%25", []), ("actor=ad", []), ("workload=*", [6]), ("before=3", [2, 1]),
        ("action=sign+in&actor=viewer-eve", [6]),
    ],
)  # fmt: skip
def test_entries_are_filtered_literally(person, filled, query, found):
    assert seqs(person("viewer").get(f"/console/ledger?{query}").text) == found


def test_markup_in_the_ledger_is_text(person, filled):
    text = person("viewer").get("/console/ledger?workload=other").text
    assert text.count(SHOWN) == 3 and "<img" not in text


def test_the_chain_is_verified_now_and_a_change_is_found(person, filled, control):
    viewer = person("viewer")
    assert "The chain is whole: 6 entries" in viewer.get("/console/ledger/verify").text
    part = viewer.get("/console/ledger/verify", headers={"HX-Request": "true"}).text
    assert part.startswith('<p class="good">') and "<html" not in part
    with control.transaction() as s:
        s.execute(update(LedgerRow).where(LedgerRow.seq == 2).values(actor="somebody else"))
    assert "ledger entry 2 was changed after it was written" in viewer.get("/console/ledger/verify").text


def test_what_is_no_filter_is_refused(person):
    for query in ("before=-1", "before=x", "actor=" + "x" * 129, "action=%00"):
        assert person("viewer").get(f"/console/ledger?{query}").status_code == 422
