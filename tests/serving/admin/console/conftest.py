"""The console over a control database, and people with every role who use it by a browser's cookies."""

import re

import httpx
import pytest

from tests.serving.admin.conftest import SyncTransport

BASE = "http://127.0.0.1:8401"


class Person(httpx.Client):
    """A browser without scripts: keeps cookies, follows redirects, and fills in forms."""

    def csrf(self, page="/console/"):
        return re.search(r'name="csrf" value="([0-9a-f]{64})"', self.get(page).text)[1]

    def form(self, page):
        """The fields of the last form on a page."""
        text = self.get(page).text
        last = text[text.rindex("<form") :]
        return dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', last))

    def order(self, workload, verb, reason="looks odd", **fields):
        page = f"/console/w/{workload}/order/{verb}"
        return self.post(page, data={**self.form(page), "reason": reason, **fields}, follow_redirects=False)


@pytest.fixture
def person(app, tokens):
    """``person("operator")``: somebody with this role's token, signed in; None: a stranger."""
    opened = []

    def make(role=None, address="127.0.0.1", token=None, base=BASE):
        transport = SyncTransport(app, (address, 5000))
        made = Person(base_url=base, transport=transport, follow_redirects=True, headers={"Accept": "text/html"})
        opened.append(made)
        if role or token:
            done = made.post("/console/sign-in", data={"token": token or tokens[role]})
            assert done.status_code == 200, done.text
        return made

    yield make
    for made in opened:
        made.close()
