"""The overview and a workload's page: what they show, the verbs, and what is refused."""

import re
import time

import msgspec
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from components.contracts.spec import RolloutPolicy
from components.control import looks
from components.control.intent import Intent
from components.control.links import note_rollback_link
from components.ledger.ledger import append
from serving.admin.app import create_app
from serving.admin.console import console as console_module
from serving.admin.console import history, series
from serving.admin.console.charts import Line, chart
from serving.admin.console.series import arms_of
from serving.control.journal import Journal, uri_of
from serving.rollout.evidence import Audited
from serving.rollout.replay import Begun, Looked
from serving.rollout.state import as_dict
from serving.rollout.step import begin, command, step
from tests.serving.admin.conftest import SyncTransport, W, ref
from tests.serving.admin.console.conftest import BASE, Person
from tests.serving.rollout.made import alone, pair

PAGE = f"/console/w/{W}"
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
SHOWN = "&lt;img src=x onerror=alert(1)&gt;&lt;script&gt;alert(2)&lt;/script&gt;"


@pytest.fixture
def rollout(control):
    """A rollout in its second step, at 5 %."""
    policy = msgspec.convert(
        {"steps": [{"weight": 0.0, "min_requests": 2}, {"weight": 0.05, "min_requests": 9, "min_candidate": 3}]},
        RolloutPolicy,
    )
    now = time.time()
    control.clock = lambda: now  # the replica and the controller are heard of, however long the test takes
    state, _ = begin("rollout-a", W, ref("2"), ref("1"), policy, now, audit_share=0.0)
    state, _ = step(state, [pair(id="a"), pair(id="b")], now)
    assert state.phase == "canary"
    state, _ = step(state, [alone("candidate", 0.05, ok=False)], now)
    control.put_rollout(state.id, W, 0, True, as_dict(state))
    control.put_intent(
        W, 1, Intent(champion=ref("1"), candidate=ref("2"), weight=0.05, lease_until=now + 1e6, previous=ref("0"))
    )
    control.acknowledge(W, "replica-1", 2, {"champion": "1", "candidate": "2", "failed": {}})
    with control.transaction() as s:
        from components.control.tables import LeaderRow

        s.add(LeaderRow(name=f"controller/{W}", holder="me", beats=1, at=now))
    return state


def test_the_overview_says_in_one_row_what_is_wrong_and_why(person, control, rollout):
    control.put_intent("quiet", 0, Intent())
    control.put_gauge(W, "labeler", {"lag": 41})
    control.raise_alarm(W, "drift", 7, {"champion": "1"})
    control.raise_alarm(W, "drift", 7, {"champion": "0"})
    text = person("viewer").get("/console/").text
    assert text.index('id="row-quiet"') < text.index(f'id="row-{W}"')  # stale is worse than a canary
    row = text[text.index(f'id="row-{W}"') :]
    for shown in ("canary 5 %", "v2 against v1", ">41<", "1 open", 'href="/console/w/signs"', ">v1</a>"):
        assert shown in row


def test_a_row_is_drawn_again_when_it_shows_something_else(person, control, rollout, monkeypatch):
    control.put_gauge(W, "labeler", {"lag": 41})
    viewer, drawn = person("viewer"), []
    now = control.clock()
    monkeypatch.setattr(control, "clock", lambda: now)  # a report that gets too old is shown as that
    fill = console_module.fill
    monkeypatch.setattr(console_module, "fill", lambda name, values: drawn.append(name) or fill(name, values))
    viewer.get("/console/")
    drawn.clear()
    viewer.get("/console/")
    assert "_row.html" not in drawn
    control.put_gauge(W, "labeler", {"lag": 42})
    assert ">42<" in viewer.get("/console/").text
    assert drawn.count("_row.html") == 1


def test_what_was_never_measured_is_called_unknown(person):
    text = person("viewer").get("/console/").text
    assert text.count(">unknown</span>") == 5 and ">0 %" not in text


def test_a_workload_shows_the_rollout_its_guards_and_its_replicas(person, rollout):
    text = person("viewer").get(PAGE).text
    for shown in (
        "canary 5 %", "Rollout rollout-a", "revision 2", "1 of 9 requests", "1 of 3 of the candidate", "replica-1",
        "Still needs: 1 of 9 requests, 1 of 3 answers of the candidate", "1 of 3 answers of the candidate failed",
    ):  # fmt: skip
        assert shown in text, shown


def test_where_kubeflow_rolls_back_the_page_leads_there(person, control):
    viewer = person("viewer")
    for url, shown in (("https://kfp.example/#/x?a=1&b", True), ("javascript:alert(1)", False), ("", False)):
        note_rollback_link(control, W, url)
        text = viewer.get(PAGE).text
        assert ('href="https://kfp.example/#/x?a=1&amp;b">Roll back from Kubeflow' in text) is shown
        assert "javascript:" not in text


def test_a_viewer_sees_no_buttons_and_may_press_none(person, rollout, control, ledger):
    viewer, operator = person("viewer"), person("operator")
    assert "/order/" not in viewer.get(PAGE).text and "/order/rollback" in operator.get(PAGE).text
    assert viewer.get(f"{PAGE}/order/rollback").status_code == 403
    fields = {**operator.form(f"{PAGE}/order/rollback"), "reason": "r", "csrf": viewer.csrf()}
    assert viewer.post(f"{PAGE}/order/rollback", data=fields).status_code == 403
    assert control.open_orders(W) == []
    assert ledger()[-1][1:3] == ("viewer-eve", "refused rollback")


def test_what_may_be_pressed_is_what_the_rollout_allows(person, rollout, control):
    operator = person("operator")
    shown = operator.get(PAGE).text
    for verb in ("rollback", "pause", "promote", "promote-full", "abort", "undo"):
        assert f"/order/{verb}" in shown
    assert "/order/resume" not in shown and "/order/retry" not in shown
    ended, _ = command(rollout, "abort", time.time(), order="o", actor="ada", reason="r")
    control.put_rollout(rollout.id, W, 1, False, as_dict(ended))
    shown = operator.get(PAGE).text
    assert "/order/retry" in shown and "/order/rollback" in shown and "/order/pause" not in shown


def test_an_order_names_what_it_was_decided_on_and_is_one_however_often_it_is_sent(person, rollout, control, ledger):
    operator = person("operator")
    page = f"{PAGE}/order/rollback"
    assert "The candidate v2 is taken back at once" in operator.get(page).text
    fields = {**operator.form(page), "reason": "bad answers"}
    sent = [operator.post(page, data=fields, follow_redirects=False) for _ in range(2)]
    assert [one.status_code for one in sent] == [303, 303]
    (order,) = control.open_orders(W)
    assert (order.actor, order.reason, order.args) == ("operator-eve", "bad answers", {"revision": 2})
    shown = operator.get(sent[0].headers["location"]).text
    assert "rollback: waits for the controller" in shown and "do not give it again" in shown
    control.finish_order(order.id, True, "the champion serves")
    shown = operator.get(sent[0].headers["location"]).text
    assert "rollback: done" in shown and "the champion serves" in shown
    (entry,) = [e for e in ledger() if e[2] == "ordered rollback"]
    assert entry[1] == "operator-eve" and entry[3]["via"] == "token" and entry[3]["client"] == "127.0.0.1"


def test_of_two_people_the_second_is_told_what_changed_and_may_decide_again(person, rollout, control):
    first, second = person("operator"), person("admin")
    page = f"{PAGE}/order/abort"
    fields = {**second.form(page), "reason": "mine"}
    assert first.order(W, "rollback").status_code == 303
    late = second.post(page, data=fields)
    assert late.status_code == 409 and "decided since you looked" in late.text and 'value="mine"' in late.text
    (order,) = control.open_orders(W)
    ended, _ = command(rollout, "rollback", time.time(), order="o", actor="eve", reason="theirs")
    control.put_rollout(rollout.id, W, 1, False, as_dict(ended))
    control.finish_order(order.id, True, "done")
    late = second.post(page, data=fields)
    assert late.status_code == 409 and "This is how it is now: <b>rolled back</b>, theirs" in late.text
    assert control.open_orders(W) == []
    assert second.order(W, "retry").status_code == 303


@pytest.mark.parametrize(
    ("verb", "fields", "status"),
    [
        ("abort", {"reason": ""}, 422), ("abort", {"reason": "   "}, 422), ("abort", {"reason": "x" * 501}, 422),
        ("abort", {"revision": ""}, 422), ("abort", {"revision": "two"}, 422), ("abort", {"to": "3"}, 422),
        ("abort", {"reason": "a\0b"}, 422), ("abort", {"key": "a b"}, 422), ("abort", {"revision": "7"}, 409),
        ("rollback", {"to": "../3"}, 422), ("start", {"version": "2", "forced": "true"}, 403),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_words(person, rollout, control, verb, fields, status):
    refused = person("operator").order(W, verb, **fields)
    assert refused.status_code == status and 'role="alert"' in refused.text
    assert control.open_orders(W) == []


def test_forms_of_one_session_are_limited(person, rollout):
    operator = person("operator")
    fields = operator.form(f"{PAGE}/order/abort")
    seen = [operator.post(f"{PAGE}/order/abort", data={**fields, "reason": ""}).status_code for _ in range(62)]
    assert seen == [422] * 60 + [429] * 2


def test_without_a_rollout_there_is_the_previous_champion_to_go_back_to(person, control):
    operator = person("operator")
    assert "/order/rollback" not in operator.get(PAGE).text
    control.put_intent(W, 1, Intent(champion=ref("2"), previous=ref("1")))
    assert "v1, the previous champion, serves again in the place of v2" in operator.get(f"{PAGE}/order/rollback").text
    assert operator.order(W, "rollback", to="1").status_code == 303
    assert control.open_orders(W)[0].args == {"to": "1", "revision": 0}


def test_markup_that_somebody_stored_is_text(person, rollout, control):
    append(control, W, MARKUP, "rollout step", {"rollout": rollout.id, "reason": MARKUP})
    moved = msgspec.structs.replace(rollout, reason=MARKUP)
    control.put_rollout(rollout.id, W, 1, True, as_dict(moved))
    control.raise_alarm(W, MARKUP, 1, {"drifted": [MARKUP], "champion": "1"})
    control.put_gauge(W, "drift", {"outcome": MARKUP, "drifted": MARKUP, "column": MARKUP, "statistic": 1.0,
                                   "threshold": 2.0})  # fmt: skip
    control.acknowledge(W, MARKUP, 2, {"champion": MARKUP, "candidate": None, "failed": {MARKUP: MARKUP}})
    control.finish_order(control.order(W, "pause", MARKUP, MARKUP, key=MARKUP.replace(" ", "")), False, MARKUP)
    operator = person("operator")
    refused = operator.order(W, "abort", reason=MARKUP, revision="9")
    for text in (operator.get("/console/").text, operator.get(PAGE).text, refused.text):
        assert SHOWN in text and "<img" not in text and "<script>" not in text


def test_unknown_pages_are_not_found(person):
    for page in ("/console/none", "/console/w/none", "/console/w/none/order/abort", "/console/w/<b>"):
        answer = person("operator").get(page)
        assert answer.status_code in (404, 422) and 'role="alert"' in answer.text and "<b>" not in answer.text


def test_both_arms_over_time_come_from_the_journal_as_it_grows(tmp_path, control, rollout, monkeypatch):
    root, revision = f"file://{tmp_path}", 0
    state = msgspec.structs.replace(rollout, id="r")
    journal = Journal(control, uri_of(root, W, "r"), "r", 0)

    def arms():
        reading = msgspec.structs.replace(state.reading, journal=journal.lines)
        return arms_of(control, root, msgspec.structs.replace(state, reading=reading))

    def append(line):
        nonlocal revision
        added = journal.next(line)
        revision = control.put_rollout("r", W, revision, False, {}, added)
        journal.lines = added.number

    assert arms() is None
    begun = Begun(at=100.0, id="r", workload=W, candidate=ref("2"), champion=ref("1"), policy=rollout.policy,
                  audit_share=0.1, forced=False, skip_shadow=False, reason="", actor="a")  # fmt: skip
    append(begun)
    assert arms() is None
    append(Looked(at=100.5, seen=(pair(ms=3.0), pair(ok=False), Audited(id="i", candidate=True, weight=0.0))))
    (bucket,) = arms().buckets
    assert (bucket.given, bucket.given_candidate) == (2, 0)
    assert (bucket.candidate.asked, bucket.candidate.failed, bucket.candidate.milliseconds) == (2, 1, 3.0)
    assert (bucket.candidate.audited, bucket.candidate.disagreed, bucket.champion.audited) == (1, 1, 0)
    for at in range(101, 400):
        append(Looked(at=float(at), seen=(alone("candidate", 0.05),)))
        if at == 250:
            arms()
    journal.retire()  # it ended: what was not read yet is read from its file
    found = arms()
    assert len(found.buckets) <= series.BUCKETS and found.width == 8.0
    assert sum(b.given_candidate for b in found.buckets) == 299 and sum(b.given for b in found.buckets) == 301
    monkeypatch.setattr(series, "AT_ONCE", 2000)
    monkeypatch.setattr(series, "_journals", type(series._journals)())
    seen = [sum(b.given for b in arms().buckets) for _ in range(200)]
    assert seen[0] < 301 and seen[-1] == 301


def test_a_chart_says_its_numbers_to_those_who_cannot_see_it():
    drawn = chart("Errors", [Line(name="<b>", style="champion", points=[(0.0, 0.1), (1.0, None), (2.0, 0.25)])],
                  unit="%")  # fmt: skip
    assert '<title id="chart-t">Errors</title>' in drawn and "&lt;b&gt; now 25 %" in drawn
    assert drawn.count("<polyline") == 2 and "style=" not in drawn
    assert chart("Errors", [Line(name="a", style="champion", points=[(0.0, None)])]) == ""
    marked = chart("D", [Line(name="a", style="value", points=[(5.0, 1.0), (9.0, 2.0)])], marks=[4.0, 6.0, 9.5])
    assert marked.count('class="mark"') == 1 and "1 alarms" in marked


def test_drift_is_drawn_as_it_moves_with_its_alarms(person, control, monkeypatch):
    monkeypatch.setattr(history, "EVERY_SECONDS", 0.0)
    viewer, now = person("viewer"), time.time()
    for at, statistic in ((now, 0.1), (now + 10, 0.4)):
        control.clock = lambda at=at: at
        control.put_gauge(W, "drift", {"outcome": "none", "column": "size", "statistic": statistic, "threshold": 0.2})
        if statistic > 0.2:
            control.raise_alarm(W, "drift", 1, {"champion": "1"})
        text = viewer.get(PAGE).text
    drawn = text[text.index('<title id="drift-t">') :]
    assert "worst column now 0.4; its threshold now 0.2; 1 alarms" in drawn


def test_each_column_is_drawn_the_nearest_to_its_threshold_first_with_its_alarms(person, control):
    now = time.time()
    for index in range(3):
        control.clock = lambda index=index: now - 100 + index
        found = [
            looks.Distance(column=MARKUP if i == 7 else f"c{i}", value=0.01 * i * index, threshold=0.1, drifted=False)
            for i in range(8)
        ]
        looks.add(control, W, index, {"drift": found})
    control.clock = lambda: now - 98.5
    control.raise_alarm(W, "drift", 2, {"champion": "1", "drifted": [MARKUP, "c2"]})
    control.raise_alarm(W, "lost_positions", 2, {"drifted": ["c6"]})
    control.clock = time.time
    text = person("viewer").get(PAGE).text
    section = text[text.index('<section id="columns"') :]
    section = section[: section.index("</section>")]
    assert MARKUP not in section
    names = [name for name in re.findall(r"<figcaption>([^<]*)<", section)]
    assert names == [SHOWN, *(f"c{i}" for i in (6, 5, 4, 3, 2, 1, 0))]
    first, rest = section.split("<details")
    assert "4 more columns" in rest and first.count("<figure") == 4
    assert "distance now 0.14; its threshold now 0.1; 1 alarms" in first
    figures = section.split("<figure")[1:]
    assert [figure.count('class="mark"') for figure in figures] == [1, 0, 0, 0, 0, 1, 0, 0]


def test_the_first_page_after_a_start_finds_what_it_needs(settings, control, rollout, person, monkeypatch):
    monkeypatch.setattr(history, "EVERY_SECONDS", 3_600.0)
    operator = person("operator")
    for number in range(20):
        control.put_rollout(f"old-{number}", W, 0, False, as_dict(rollout) | {"id": f"old-{number}"})

    def statements(app):
        with Person(base_url=BASE, transport=SyncTransport(app), cookies=operator.cookies) as one:
            seen = []
            listener = ("before_cursor_execute", lambda *asked: seen.append(asked[2]))
            event.listen(control.engine, *listener)
            assert one.get("/console/").status_code == 200
            event.remove(control.engine, *listener)
            return len(seen)

    cold, warm = create_app(settings, store=control), create_app(settings, store=control)
    warm.state.warm()
    first = statements(warm)
    assert first < statements(cold)

    def away(*_):
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(control, "session", away)
    warm.state.warm()  # and is no reason not to start
