"""Signing in at the page of an OpenID Connect provider that really signs and checks."""

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from serving.admin import oidc
from serving.admin.app import create_app
from serving.admin.console.sessions import SESSION_SECONDS
from tests.oidc_provider import provider, settings_of
from tests.serving.admin.conftest import Registry, SyncTransport, W
from tests.serving.admin.console.conftest import BASE, Person

BACK = "/console/sign-in/oidc/callback"


@pytest.fixture
def issuer():
    with provider() as made:
        yield made


@pytest.fixture
def settings(tmp_path, issuer):
    return Settings(home=tmp_path, **settings_of(issuer))


def visits(settings, control, base=BASE):
    app = create_app(settings, store=control, registry=Registry())
    return Person(base_url=base, transport=SyncTransport(app), headers={"Accept": "text/html"})


@pytest.fixture
def person(settings, control):
    """Somebody with a browser of their own, signed in nowhere."""
    with visits(settings, control) as made:
        yield made


def at_the_provider(url, who="ada"):
    """What somebody does there: the address that the provider sends them back to."""
    shown = httpx.get(url, timeout=90.0)
    assert shown.status_code == 200, shown.text
    sent = httpx.post(url, data={"who": who}, timeout=90.0)
    assert sent.status_code == 303
    return sent.headers["location"]


def leave_for(person, page="/console/"):
    sent = person.get("/console/sign-in/oidc", params={"next": page})
    assert sent.status_code == 303, sent.text
    return sent.headers["location"]


def sign_in(person, who="ada", page="/console/", **changed):
    back = at_the_provider(leave_for(person, page), who)
    query = dict(parse_qsl(urlsplit(back).query)) | changed
    return person.get(BACK, params={k: v for k, v in query.items() if v is not None})


def problem(answer):
    return re.search(r'role="alert">([^<]*)<', answer.text)[1]


def test_somebody_signs_in_at_the_issuer_s_page_and_goes_on_where_they_were(person, issuer, ledger):
    page = f"/console/w/{W}"
    sign_in_page = person.get(page, follow_redirects=True)
    assert f"Sign in at {issuer.url}" in sign_in_page.text
    link = re.search(r'href="(/console/sign-in/oidc\?[^"]*)"', sign_in_page.text)[1].replace("&amp;", "&")
    sent = person.get(link)
    cookie = sent.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and "path=/console/sign-in/oidc" in cookie
    asked = dict(parse_qsl(urlsplit(sent.headers["location"]).query))
    assert asked["redirect_uri"] == BASE + BACK and asked["code_challenge_method"] == "S256"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    back = at_the_provider(sent.headers["location"])
    done = person.get(back.removeprefix(BASE))
    assert done.status_code == 200 and f'content="0; url={page}"' in done.text
    strict = next(c for c in done.headers.get_list("set-cookie") if c.startswith("cohobate_console="))
    assert "samesite=strict" in strict.lower() and "httponly" in strict.lower()
    assert "ada (operator)" in person.get(page).text
    assert [e[1:3] for e in ledger()] == [("ada", "sign in")]
    assert ledger()[0][3]["via"] == "oidc" and ledger()[0][3]["credential"] == issuer.url


def test_the_session_lasts_a_night_and_signing_out_offers_to_sign_out_there_too(person, issuer, control):
    now = control.clock()
    control.clock = lambda: now
    sign_in(person)
    control.clock = lambda: now + SESSION_SECONDS - 1
    out = person.post("/console/sign-out", data={"csrf": person.csrf()}, follow_redirects=True)
    assert "sign out there too" in out.text
    assert person.get("/console/sign-in/oidc/leave").headers["location"] == f"{issuer.url}/logout"
    assert person.get("/console/").status_code == 303
    assert "sign out there too" not in person.get("/console/sign-in").text
    sign_in(person)
    control.clock = lambda: now + 2 * SESSION_SECONDS
    assert person.get("/console/").status_code == 303


def test_a_client_without_a_secret_signs_in_with_pkce_alone(issuer, tmp_path, control):
    issuer.secret = ""
    with visits(Settings(home=tmp_path, **settings_of(issuer)), control) as person:
        assert sign_in(person).status_code == 200
        assert "ada (operator)" in person.get("/console/").text


def test_another_admin_api_finishes_what_one_began(person, settings, control):
    back = at_the_provider(leave_for(person))
    with visits(settings, control) as other:
        other.cookies = person.cookies
        assert other.get(back.removeprefix(BASE)).status_code == 200
        assert "ada (operator)" in other.get("/console/").text


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"state": "another"}, "not to a sign-in that this browser began"), ({"state": None}, "this browser began"),
        ({"iss": "https://other.example"}, "another issuer answered"), ({"code": None}, "sent no code"),
        ({"code": "made-up"}, "invalid_grant"), ({"code": "x" * 5_000}, "sent no code"),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_to_this_try_is_refused(person, changed, says, ledger):
    refused = sign_in(person, **changed)
    assert refused.status_code == 401 and says in problem(refused)
    assert person.get("/console/").status_code == 303
    assert [e[1:3] for e in ledger()] == [("unauthenticated", "refused get")]


def test_the_answer_to_another_browser_s_try_is_refused(person, settings, control):
    back = at_the_provider(leave_for(person))
    with visits(settings, control) as other:
        leave_for(other)
        assert other.get(back.removeprefix(BASE)).status_code == 401
        assert other.get("/console/").status_code == 303


def test_a_code_is_taken_once_and_only_while_it_is_fresh(person, issuer):
    back = at_the_provider(leave_for(person)).removeprefix(BASE)
    secret = person.cookies["cohobate_sign_in"]
    assert person.get(back).status_code == 200
    assert "cohobate_sign_in" not in person.cookies
    person.cookies.clear()
    person.cookies.set("cohobate_sign_in", secret)
    assert "invalid_grant" in problem(person.get(back))
    person.cookies.clear()
    issuer.code_seconds = 0.0
    assert "invalid_grant" in problem(sign_in(person))


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"}, {"nonce": None}, {"aud": "cohobate-api"}, {"aud": ["others"]}, {"exp": 1_000},
        {"iss": "https://other.example"}, {"sub": None},
    ],
)  # fmt: skip
def test_an_id_token_for_another_try_or_client_or_time_is_refused(person, issuer, claims):
    issuer.claims = claims
    refused = sign_in(person)
    assert refused.status_code == 401 and "not valid here" in problem(refused)
    assert person.get("/console/").status_code == 303


def test_an_id_token_that_another_key_signed_is_refused(person, issuer):
    assert sign_in(person).status_code == 200
    issuer.key = RSAKey.generate_key(2048, {"kid": "p1"})
    assert sign_in(person).status_code == 401


def test_who_has_no_role_or_says_no_is_told_so_as_text(person):
    assert "names no role here" in problem(sign_in(person, "eve"))
    refused = sign_in(person, "nobody")
    assert refused.status_code == 401 and "<b>" not in refused.text
    assert "access_denied: &lt;b&gt;she said no" in problem(refused)


def test_while_the_issuer_is_away_a_page_says_so_and_tokens_work(person, issuer, tokens, monkeypatch):
    back = at_the_provider(leave_for(person)).removeprefix(BASE)
    issuer.down = True
    away = person.get(back)
    assert away.status_code == 503 and "does not answer" in problem(away) and "works meanwhile" in problem(away)
    monkeypatch.setattr(oidc, "KEYS_SECONDS", 0.0)
    assert person.get("/console/sign-in/oidc").status_code == 303, "what was discovered before stays in use"
    person.post("/console/sign-in", data={"token": tokens["viewer"]})
    assert "viewer-eve" in person.get("/console/").text


def test_an_issuer_that_never_answered_leaves_a_clear_page(person, issuer):
    issuer.down = True
    away = person.get("/console/sign-in/oidc")
    assert away.status_code == 503 and issuer.url in problem(away) and "does not answer" in problem(away)


def test_a_client_that_the_issuer_does_not_know_is_told_which_settings_are_wrong(person, issuer):
    issuer.secret = issuer.secret[::-1]
    refused = sign_in(person)
    assert refused.status_code == 503 and "COHOBATE_ADMIN_OIDC_CLIENT_ID or its secret" in problem(refused)


def test_whoever_fails_too_often_is_not_taken_to_the_issuer_any_more(person, issuer):
    for _ in range(10):
        assert person.get(BACK, params={"state": "x", "code": "y"}).status_code == 401
    back = at_the_provider(leave_for(person)).removeprefix(BASE)
    before = len(issuer.asked)
    assert person.get(back).status_code == 429 and len(issuer.asked) == before


@pytest.mark.parametrize("place", ["https://evil.example/", "//evil.example", "/v1/me"])
def test_the_way_back_leads_to_pages_of_the_console_alone(person, place):
    assert 'content="0; url=/console/"' in sign_in(person, page=place).text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"admin_oidc_issuer": ""}, "set COHOBATE_ADMIN_OIDC_ISSUER too"),
        ({"admin_oidc_issuer": "http://id.example"}, "must be https"), ({"admin_oidc_scope": "email"}, "openid"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(settings, control, changes, says):
    with pytest.raises(ConfigError, match=says):
        create_app(settings.model_copy(update=changes), store=control)


def test_a_document_of_another_issuer_or_with_an_open_address_is_not_used(settings, control, issuer, monkeypatch):
    for changes in ({"issuer": "https://other.example"}, {"authorization_endpoint": "http://id.example/authorize"}):
        status, found = issuer.document()
        monkeypatch.setattr(issuer, "document", lambda s=status, f=found, c=changes: (s, {**f, **c}))
        with visits(settings, control) as person:
            assert person.get("/console/sign-in/oidc").status_code == 503
        monkeypatch.undo()


def test_the_provider_knows_this_client_alone(person, issuer):
    url = urlsplit(leave_for(person))
    asked = dict(parse_qsl(url.query)) | {"client_id": "another"}
    assert httpx.get(f"{issuer.url}/authorize?{urlencode(asked)}", timeout=90.0).status_code == 400
