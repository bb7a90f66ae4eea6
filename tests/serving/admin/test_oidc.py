import base64
import hmac
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from serving.admin import oidc
from serving.admin.app import create_app
from tests.servers import serving
from tests.serving.admin.conftest import Registry, SyncTransport, W
from tests.serving.admin.console.conftest import BASE, Person


class KeyServer:
    """An issuer's JWKS endpoint, over HTTP on the loopback."""

    def __init__(self):
        self.keys, self.asked = [], 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                body = json.dumps({"keys": [k.as_dict(private=False) for k in outer.keys]}).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"


@pytest.fixture
def issuer():
    made = KeyServer()
    with serving(made.server):
        yield made


@pytest.fixture
def key(issuer):
    made = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"})
    issuer.keys.append(made)
    return made


@pytest.fixture
def settings(tmp_path, issuer):
    return Settings(
        home=tmp_path, admin_oidc_issuer="https://id.example", admin_oidc_audience="cohobate",
        admin_oidc_jwks_url=issuer.url, admin_oidc_role_claim="realm_access.roles", admin_oidc_role_prefix="cohobate-",
        admin_oidc_actor_claim="email",
    )  # fmt: skip


def claims(**changes):
    made = {
        "iss": "https://id.example", "aud": ["cohobate", "other"], "sub": "u-1", "email": "eve@example.org",
        "exp": int(time.time()) + 300, "realm_access": {"roles": ["x", "cohobate-viewer", "cohobate-operator"]},
    }  # fmt: skip
    return {k: v for k, v in (made | changes).items() if v is not None}


def token(key, alg="RS256", kid="k1", **changes):
    return jwt.encode({"alg": alg, "kid": kid}, claims(**changes), key, algorithms=[alg])


@pytest.fixture
def ask(settings, control):
    app = create_app(settings, store=control, registry=Registry())

    def get(bearer, method="GET", url="/v1/me", **more):
        with httpx.Client(base_url="http://127.0.0.1:8401", transport=SyncTransport(app)) as client:
            return client.request(method, url, headers={"Authorization": f"Bearer {bearer}"}, **more)

    return get


def test_an_issuer_s_token_gives_its_caller_and_the_highest_role(ask, key, ledger):
    me = ask(token(key)).json()
    assert me == {"actor": "eve@example.org", "role": "operator", "via": "oidc", "credential": "https://id.example"}
    body = {"reason": "looks odd", "wait_seconds": 0}
    assert ask(token(key), "POST", f"/v1/workloads/{W}/rollout/abort", json=body).status_code == 202
    assert ledger()[-1][1:3] == ("eve@example.org", "ordered abort")
    assert ask(token(key, realm_access={"roles": "cohobate-admin"})).json()["role"] == "admin"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"}, {"iss": None}, {"aud": "other"}, {"aud": None}, {"exp": 1_000}, {"exp": None},
        {"nbf": int(time.time()) + 9_999}, {"sub": None},
    ],
)  # fmt: skip
def test_a_token_of_others_for_others_or_of_another_time_is_refused(ask, key, changes):
    refused = ask(token(key, **changes))
    assert (refused.status_code, refused.json()["title"]) == (401, "unauthenticated")


def test_a_signature_by_another_key_or_none_or_the_public_key_is_refused(ask, key):
    other = RSAKey.generate_key(2048)
    assert ask(token(other)).status_code == 401
    head, body, _ = token(key).split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "k1"}).encode()).decode().rstrip("=")
    assert ask(f"{none}.{body}.").status_code == 401
    hs = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "k1"}).encode()).decode().rstrip("=")
    mac = hmac.new(key.as_pem(private=False), f"{hs}.{body}".encode(), "sha256").digest()
    assert ask(f"{hs}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}").status_code == 401
    assert ask(f"{head}.{body}.{'A' * 342}").status_code == 401
    assert ask("x" * 20_000).status_code == 401
    assert ask("a.b.c").status_code == 401


def test_a_caller_without_a_role_or_a_name_is_forbidden(ask, key, ledger):
    assert ask(token(key, realm_access={"roles": ["operator"]})).json()["title"] == "no_role"
    assert ask(token(key, realm_access=None)).status_code == 403
    assert ask(token(key, email="controller")).json()["title"] == "no_actor"
    assert ask(token(key, email=None)).json()["title"] == "no_actor"
    assert [e[2] for e in ledger()] == ["refused get"] * 4


def test_keys_are_fetched_again_when_they_rotate_and_not_for_every_made_up_id(ask, key, issuer, monkeypatch):
    assert ask(token(key)).status_code == 200 and issuer.asked == 1
    new = ECKey.generate_key("P-256", {"kid": "k2", "use": "sig"})
    issuer.keys[:] = [new]
    monkeypatch.setattr(oidc, "AGAIN_SECONDS", 0.0)
    assert ask(token(new, "ES256", "k2")).status_code == 200 and issuer.asked == 2
    assert ask(token(key)).status_code == 401
    monkeypatch.setattr(oidc, "AGAIN_SECONDS", 3_600.0)
    before = issuer.asked
    for i in range(5):
        assert ask(token(key, kid=f"made-up-{i}")).status_code == 401
    assert issuer.asked == before


def test_without_the_issuer_s_keys_nobody_is_let_in_and_known_keys_stay(ask, key, issuer, monkeypatch):
    known = issuer.keys[:]
    issuer.keys.clear()
    assert ask(token(key)).status_code == 503
    issuer.keys[:] = known
    monkeypatch.setattr(oidc, "AGAIN_SECONDS", 0.0)
    assert ask(token(key)).status_code == 200
    issuer.keys.clear()
    monkeypatch.setattr(oidc, "KEYS_SECONDS", 0.0)
    assert ask(token(key)).status_code == 200


def test_an_issuer_that_is_away_is_unavailable(tmp_path, control, key):
    settings = Settings(
        home=tmp_path, admin_oidc_issuer="i", admin_oidc_audience="a", admin_oidc_jwks_url="http://127.0.0.1:9/jwks"
    )
    app = create_app(settings, store=control, registry=Registry())
    with httpx.Client(base_url="http://127.0.0.1:8401", transport=SyncTransport(app)) as client:
        answer = client.get("/v1/me", headers={"Authorization": f"Bearer {token(key)}"})
    assert (answer.status_code, answer.json()["title"]) == (503, "unavailable")


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"admin_oidc_jwks_url": "http://id.example/jwks"}, "https"), ({"admin_oidc_audience": ""}, "needed")],
)
def test_settings_that_let_anybody_in_are_refused(settings, control, changes, says):
    wrong = settings.model_copy(update=changes)
    with pytest.raises(ConfigError, match=says):
        create_app(wrong, store=control)


def test_a_token_of_the_issuer_signs_in_to_the_console_for_as_long_as_it_lasts(settings, control, key):
    now = time.time()
    control.clock = lambda: now
    app = create_app(settings, store=control, registry=Registry())
    with Person(base_url=BASE, transport=SyncTransport(app), follow_redirects=True) as one:
        page = one.get("/console/")
        assert "or one of https://id.example" in page.text
        done = one.post("/console/sign-in", data={"token": token(key, exp=int(now) + 60)})
        assert "eve@example.org (operator)" in done.text
        control.clock = lambda: now + 61
        assert one.get("/console/").url.path == "/console/sign-in"
        refused = one.post("/console/sign-in", data={"token": token(key, aud="others")})
        assert refused.status_code == 401 and "not valid here" in refused.text
