"""Rates and counts of the workers, and what the student saves by them."""

import csv
import datetime
import io

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from components.contracts.spec import Budget, Factory, Label, Limits, Spec
from components.control import learning
from components.control.tables import AlarmRow, ReviewRow, SpendingRow, TrafficRow, WindowRow
from components.ledger.ledger import append
from serving.admin.app import create_app
from serving.admin.console import traffic as module
from serving.admin.console.savings import Prices, as_csv, savings
from serving.admin.console.traffic import Traffic
from tests.serving.admin.conftest import W
from tests.serving.admin.console.test_runs import Pipelines

DAY = 1_800_000_000 // 86_400 * 86_400
TODAY = datetime.datetime.fromtimestamp(DAY, datetime.UTC).date().isoformat()


class Workers:
    """Workers that answer ``/metrics`` by their address; None: one that does not answer."""

    def __init__(self, monkeypatch):
        self.answers = {}
        names = {"a": "w-gateway-1", "b": "w-gateway-2", "c": "w-labeler-3", "d": "w-monitor-4"}
        monkeypatch.setattr(module, "announced", lambda home: {names[a]: a for a in self.answers})
        inner, transport = httpx.Client, httpx.MockTransport(self.answer)
        monkeypatch.setattr(module.httpx, "Client", lambda **_: inner(transport=transport))

    def answer(self, request):
        said = self.answers[request.url.host]
        if said is None:
            raise httpx.ConnectError("gone")
        lines = [f'{name}{{workload="{W}"}} {value}' for name, value in said.items()]
        return httpx.Response(200, text="\n".join(lines) + "\n")


@pytest.fixture
def workers(monkeypatch):
    return Workers(monkeypatch)


@pytest.fixture
def ticks():
    return [0.0]


@pytest.fixture
def traffic(tmp_path, control, ticks):
    control.clock = lambda: DAY + 10.0
    return Traffic(tmp_path, control, clock=lambda: ticks[0])


def answers(n, deferred=0):
    return {"cohobate_answers_total": n, "cohobate_deferred_total": deferred, "cohobate_student_seconds_sum": n / 8,
            "cohobate_student_seconds_count": n}  # fmt: skip


def kept(control):
    with control.session() as s:
        return s.scalars(select(TrafficRow)).all()


def look(traffic, ticks, workers, **said):
    workers.answers = said
    ticks[0] += 10.0
    traffic.look()


def test_rates_are_those_between_two_looks_and_sums_are_kept_by_the_hour(traffic, ticks, workers, control):
    look(traffic, ticks, workers, a=answers(1000), b=answers(500))
    assert traffic.rate(W) is None and kept(control) == []  # what was counted before is not ours
    look(traffic, ticks, workers, a=answers(1030, 8), b=answers(502), c={"cohobate_labels_total": 7}, d=answers(9e9))
    rate = traffic.rate(W)
    assert (rate.answers, rate.deferred) == (pytest.approx(3.2), pytest.approx(8 / 32))
    (row,) = kept(control)
    assert (row.hour, row.answers, row.deferred, row.labels) == (DAY, 32, 8, 7)
    assert (row.student_answers, row.student_seconds) == (32, 4.0)
    control.clock = lambda: DAY + 3_700.0
    look(traffic, ticks, workers, a=answers(4), b=None)  # a was started anew
    look(traffic, ticks, workers, a=answers(4), b=answers(503))
    assert [(r.hour - DAY, r.answers) for r in kept(control)] == [(0, 32), (3_600, 5)]


def test_workers_are_asked_no_more_often_than_is_said(traffic, ticks, workers):
    look(traffic, ticks, workers, a=answers(0))
    ticks[0] += 9.0
    workers.answers = {"a": answers(90)}
    traffic.look()
    assert traffic.rate(W) is None
    ticks[0] += 1.0
    traffic.look(module.KEEP_SECONDS)
    assert traffic.rate(W) is None
    traffic.look()
    assert traffic.rate(W).answers == 9.0


def test_one_that_was_away_at_the_first_look_is_not_counted_from_its_start(traffic, ticks, workers, control):
    look(traffic, ticks, workers, a=None)
    look(traffic, ticks, workers, a=None)
    look(traffic, ticks, workers, a=answers(1000))
    look(traffic, ticks, workers, a=answers(1001), b=answers(5))
    assert [row.answers for row in kept(control)] == [6]


def test_what_the_database_does_not_take_is_added_later(traffic, ticks, workers, control, monkeypatch):
    look(traffic, ticks, workers, a=answers(0))

    def away():
        raise OperationalError("INSERT", {}, Exception("gone"))

    with monkeypatch.context() as patch:
        patch.setattr(control, "transaction", away)
        look(traffic, ticks, workers, a=answers(3))
    assert kept(control) == []
    look(traffic, ticks, workers, a=answers(5))
    assert [row.answers for row in kept(control)] == [5]


@pytest.fixture
def filled(control):
    """A day with 1,000 answers, 40 calls of the teacher, 3 questions to people, and two changes."""
    with control.transaction() as s:
        for hour in (0, 23 * 3_600, 86_400):
            s.add(TrafficRow(workload=W, hour=DAY + hour, answers=500, deferred=50, student_answers=500,
                             student_seconds=1.0, labels=70, teacher_calls=10, teacher_seconds=5.0))  # fmt: skip
        s.add(SpendingRow(workload=W, period="hour", start=DAY, calls=40, money=80_000_000_000, skipped=0))
        s.add(SpendingRow(workload=W, period="day", start=DAY, calls=40, money=80_000_000_000, skipped=0))
        for number in range(3):
            s.add(ReviewRow(workload=W, key=str(number), teacher="t", space="s", classes=[], input=b"", why="",
                            policy="", probability=1.0, audit=False, asked_at=DAY + 1.0))  # fmt: skip
        for at, kind in ((100, "drift"), (150, "entropy"), (200, "lost_positions"), (5_000, "drift"), (9_000, "drift")):
            s.add(AlarmRow(workload=W, kind=kind, input_index=1, at=DAY + at, detail={}))
    for at in (400, 6_000):
        control.clock = lambda at=at: float(DAY + at)
        append(control, W, "controller", "rollout promote", {})


def test_what_a_student_saves_in_a_period(control, filled):
    (found,) = savings(control, {W: Prices(call=2.0, core_hour=0.36)}, DAY, DAY + 86_400)
    assert (found.answers, found.deferred, found.teacher_calls, found.avoided) == (1000, 100, 40, 960)
    assert (found.teacher_cost, found.avoided_cost) == (80.0, 1_920.0)
    assert found.student_cost == pytest.approx(0.0002) and found.saved == pytest.approx(1_919.9998)
    assert (found.student_ms, found.teacher_ms) == (2.0, 500.0)
    assert (found.people_asked, found.people_avoided) == (3, 997)
    assert (found.changes, found.change_seconds) == ((300.0, 1_000.0), 650.0)


def test_what_was_never_counted_is_unknown_and_nothing_is_made_of_it(control, filled):
    (found,) = savings(control, {W: Prices(call=2.0, core_hour=0.36)}, DAY - 86_400, DAY)
    assert (found.answers, found.avoided, found.saved, found.student_ms, found.change_seconds) == (None,) * 5
    (found,) = savings(control, {W: Prices()}, DAY, DAY + 86_400)
    assert (found.avoided, found.avoided_cost, found.student_cost, found.saved) == (960, None, None, None)
    (later,) = savings(control, {W: Prices(call=2.0)}, DAY + 86_400, DAY + 2 * 86_400)
    assert (later.teacher_calls, later.teacher_cost) == (70, 140.0)  # no budget: labels that were made


def test_what_a_thousand_answers_and_an_hour_of_a_stale_student_cost(control, filled):
    control.add_window(
        WindowRow(
            digest="w1", workload=W, number=1, uri="u", rows=9, created_at=DAY + 10.0, manifest={"replaces": ["w0"]}
        )
    )
    before = learning.Evaluated(window="w1", digest="d1", rows=100.0, wrong=50.0)  # beside no champion
    beside = {"champion_window": "w9", "champion_wrong": 30.0}
    for one in (learning.Evaluated(window="w0", digest="d2", rows=100.0, wrong=10.0, **beside), before):
        learning.add(control, W, one)
    (found,) = savings(control, {W: Prices(call=2.0, core_hour=0.36)}, DAY, DAY + 86_400)
    assert found.student_per_1000 == pytest.approx(0.0002)
    assert (found.teacher_per_1000, found.deferral_per_1000) == (2_000.0, pytest.approx(2_000.0002))
    assert found.time_to_value == 0.0, "its first entry of the ledger is the promotion"
    assert (found.stale_share, found.hours) == (pytest.approx(0.2), 2)
    assert (found.stale_answers, found.stale_hour) == (pytest.approx(100.0), pytest.approx(200.0))


def test_without_a_price_or_a_fact_nothing_is_said_of_them(control, filled):
    (found,) = savings(control, {W: Prices()}, DAY, DAY + 86_400)
    assert (found.student_per_1000, found.deferral_per_1000, found.teacher_per_1000) == (None,) * 3
    assert (found.stale_share, found.stale_answers, found.stale_hour) == (None,) * 3
    (found,) = savings(control, {W: Prices(call=2.0)}, DAY, DAY + 86_400)
    assert (found.student_per_1000, found.deferral_per_1000, found.teacher_per_1000) == (None, None, 2_000.0)
    (none,) = savings(control, {"another": Prices(call=2.0)}, DAY, DAY + 86_400)
    assert none.time_to_value is None and none.hours == 0


def reports(control, worker="labeler", **teacher):
    control.put_gauge(W, worker, {"labelled": 100, "teacher": teacher})


def test_a_price_of_tokens_counts_with_the_tokens_that_labelers_report(control, filled):
    def found(**prices):
        return savings(control, {W: Prices(**prices)}, DAY, DAY + 86_400)[0]

    assert (found(token=5.0).call_tokens, found(token=5.0).avoided_cost) == (None, None), "nobody reports tokens"
    assert found(token=5.0, call=2.0).call_price == 2.0
    reports(control, prompt_tokens_total=30_000, answer_tokens_total=400)
    reports(control, "labeler-2", prompt_tokens_total=20_000, answer_tokens_total=600, spent_total=0.0)
    seen = found(token=5.0, call=2.0)
    assert (seen.call_tokens, seen.call_price) == (255.0, pytest.approx(0.001275))
    assert seen.teacher_cost == pytest.approx(40 * 0.001275) and seen.avoided_cost == pytest.approx(960 * 0.001275)
    assert (found(call=2.0).call_price, found(call=2.0).call_tokens) == (2.0, 255.0)
    assert found().call_price is None
    reports(control, "labeler-2", prompt_tokens_total=20_000, answer_tokens_total=600, spent_total=3.0)
    assert found().call_price == pytest.approx(0.015), "a teacher that knows its own prices is believed"
    control.put_gauge(W, "labeler", {"labelled": 0, "teacher": {"prompt_tokens_total": 7}})
    control.put_gauge(W, "labeler-2", {"labelled": 0})
    assert found(token=5.0).call_tokens is None


@pytest.fixture
def app(settings, control):
    pipelines = Pipelines()
    pipelines.spec = lambda workload: Spec(
        name=W, teacher=Factory(factory="t:T"), features=Factory(factory="f:F"),
        label=Label(budget=Budget(cost=2.0)), limits=Limits(core_hour_price=0.36),
    )  # fmt: skip
    return create_app(settings, store=control, pipelines=pipelines)


def test_the_page_takes_declared_prices_or_others_and_a_period(person, filled, control):
    viewer = person("viewer")
    text = viewer.get(f"/console/savings?since={TODAY}&until={TODAY}").text
    for shown in (">1,000<", ">960<", ">80.00<", ">1,920.00<", ">997<", "10 min (median of 2)", "2 ms", "500 ms"):
        assert shown in text, shown
    assert ">960.00<" in viewer.get(f"/console/savings?since={TODAY}&until={TODAY}&call_price=1").text
    assert viewer.get("/console/savings").status_code == 200
    reports(control, prompt_tokens_total=90_000, answer_tokens_total=10_000)
    day = f"since={TODAY}&until={TODAY}"
    assert ">0.002 (1,000 tokens)<" in viewer.get(f"/console/savings?{day}&token_price=2").text
    row = next(csv.DictReader(io.StringIO(viewer.get(f"/console/savings.csv?{day}&token_price=2").text)))
    assert (row["call_tokens"], row["call_price"], row["avoided_cost"]) == ("1000.0", "0.002", "1.92")
    assert ">2.00 (1,000 tokens)<" in viewer.get(f"/console/savings?{day}").text
    for query in ("since=x", f"since={TODAY}&until=2020-01-01", "since=2020-01-01", "call_price=-1", "call_price=nan",
                  "until=0001-01-01", "core_hour_price=1e10", "token_price=x"):  # fmt: skip
        assert viewer.get(f"/console/savings?{query}").status_code == 422


def test_the_csv_has_the_same_numbers_and_no_formulas(person, filled, control):
    done = person("viewer").get(f"/console/savings.csv?since={TODAY}&until={TODAY}")
    assert done.headers["content-type"].startswith("text/csv") and "attachment" in done.headers["content-disposition"]
    (row,) = csv.DictReader(io.StringIO(done.text))
    assert (row["workload"], row["answers"], row["avoided"], row["avoided_cost"]) == (W, "1000", "960", "1920.0")
    (found,) = savings(control, {"=1+1": Prices()}, DAY, DAY + 1)
    assert next(csv.DictReader(io.StringIO(as_csv([found]))))["workload"] == "'=1+1"
