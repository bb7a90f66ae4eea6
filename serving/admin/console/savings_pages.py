"""The routes of the savings: a page, which prints, and a CSV file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from components.contracts.errors import CohobateError
from serving.admin.console.console import Console
from serving.admin.console.savings import DAYS, Prices, Savings, as_csv, midnight, savings
from serving.admin.problems import Refused

MOST_DAYS = 366

Day = Annotated[str, Query(max_length=10)]
Price = Annotated[str, Query(max_length=30)]


def add(app: FastAPI, console: Console) -> None:
    """Add the routes."""

    def rows(first: date, last: date, given: Prices) -> list[Savings]:
        prices = {}
        for workload in console.store.workloads():
            declared = _declared(console, workload)
            token = declared.token if given.call is None else None  # a call's price that is given here is meant
            prices[workload] = Prices(
                call=declared.call if given.call is None else given.call,
                token=token if given.token is None else given.token,
                core_hour=declared.core_hour if given.core_hour is None else given.core_hour,
            )
        return savings(console.store, prices, midnight(first), midnight(last + timedelta(days=1)))

    def period(since: str, until: str) -> tuple[date, date]:
        today = datetime.fromtimestamp(console.store.clock(), UTC).date()
        last = _day("until", until) if until else today
        first = _day("since", since) if since else last - timedelta(days=DAYS - 1)
        if not first <= last or (last - first).days >= MOST_DAYS:
            raise Refused(422, "invalid", f"the period must have from 1 to {MOST_DAYS} days")
        return first, last

    @app.get("/savings")
    def savings_page(
        request: Request, since: Day = "", until: Day = "", call_price: Price = "", token_price: Price = "",
        core_hour_price: Price = "",
    ) -> Response:  # fmt: skip
        """What the students of all workloads saved in a period."""
        first, last = period(since, until)
        asked = {"call_price": call_price, "token_price": token_price, "core_hour_price": core_hour_price}
        given = {"since": first.isoformat(), "until": last.isoformat()} | {n: v for n, v in asked.items() if v}
        values = {
            "here": "/savings", "rows": rows(first, last, _prices(asked)), "first": first, "last": last, **asked,
            "query": urlencode(given),
        }  # fmt: skip
        return console.page(request, "savings.html", values)

    @app.get("/savings.csv")
    def savings_csv(
        since: Day = "", until: Day = "", call_price: Price = "", token_price: Price = "", core_hour_price: Price = ""
    ) -> Response:
        """The same as CSV."""
        first, last = period(since, until)
        asked = {"call_price": call_price, "token_price": token_price, "core_hour_price": core_hour_price}
        found = rows(first, last, _prices(asked))
        name = f"savings-{first.isoformat()}-{last.isoformat()}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(as_csv(found), media_type="text/csv; charset=utf-8", headers=headers)


def _prices(asked: Mapping[str, str]) -> Prices:
    call, token, core_hour = (_price(name, asked[name]) for name in ("call_price", "token_price", "core_hour_price"))
    return Prices(call=call, token=token, core_hour=core_hour)


def _declared(console: Console, workload: str) -> Prices:
    """The prices in the spec in force; none where it is not at hand."""
    if console.pipelines is None:
        return Prices()
    try:
        spec = console.pipelines.spec(workload)
    except CohobateError:
        return Prices()
    return Prices.of(spec)


def _day(name: str, text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError as error:
        raise Refused(422, "invalid", f"{name} must be a day such as 2026-01-31") from error
    if not 1970 < found.year < 9999:
        raise Refused(422, "invalid", f"{name} must be a day such as 2026-01-31")
    return found


def _price(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        found = float(text)
    except ValueError as error:
        raise Refused(422, "invalid", f"{name} must be a number") from error
    if not 0.0 <= found < 1e9:
        raise Refused(422, "invalid", f"{name} must be from 0 to a billion")
    return found
