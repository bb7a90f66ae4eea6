"""A small OpenID Connect provider on the loopback: it signs, checks its client and PKCE, and takes a code once."""

import base64
import contextlib
import hashlib
import html
import json
import secrets
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.servers import serving

CLIENT, SECRET = "cohobate-console", "not-told-to-anybody"
PEOPLE = {"ada": ["cohobate-operator"], "eve": []}
"""Who may sign in, and with which roles."""

KEY = RSAKey.generate_key(2048, {"kid": "p1", "use": "sig", "alg": "RS256"})


class Provider:
    """The provider. What a test changes: ``code_seconds``, ``claims`` of the next ID token, ``down``, ``secret``."""

    def __init__(self):
        self.key = KEY
        self.codes, self.asked, self.claims = {}, [], {}
        self.code_seconds, self.down, self.secret = 3_600.0, False, SECRET
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self, urlsplit(self.path), "")

            def do_POST(self):
                outer.answer(self, urlsplit(self.path), self.rfile.read(int(self.headers["Content-Length"])).decode())

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request, url, body):
        self.asked.append(url.path)
        query = dict(parse_qsl(url.query))
        routes = {
            "/.well-known/openid-configuration": lambda: self.document(),
            "/jwks": lambda: (200, {"keys": [self.key.as_dict(private=False)]}),
            "/authorize": lambda: self.authorize(query, parse_qs(body)),
            "/token": lambda: self.token(dict(parse_qsl(body)), request.headers.get("Authorization", "")),
            "/logout": lambda: (200, "<h1>Signed out of the provider</h1>"),
        }
        status, said = (503, {}) if self.down else routes.get(url.path, lambda: (404, {}))()
        request.send_response(status)
        if status == 303:
            request.send_header("Location", said)
            said = ""
        text = said if isinstance(said, str) else json.dumps(said)
        request.send_header("Content-Type", "text/html" if isinstance(said, str) else "application/json")
        request.end_headers()
        request.wfile.write(text.encode())

    def document(self):
        found = {name: f"{self.url}/{path}" for name, path in (
            ("authorization_endpoint", "authorize"), ("token_endpoint", "token"), ("jwks_uri", "jwks"),
            ("end_session_endpoint", "logout"),
        )}  # fmt: skip
        methods = ["client_secret_basic", "none"]
        return 200, found | {"issuer": self.url, "token_endpoint_auth_methods_supported": methods}

    def authorize(self, asked, form):
        """The page where somebody says who they are; then the way back, with a code or with a refusal."""
        if asked.get("client_id") != CLIENT or asked.get("response_type") != "code":
            return 400, "<h1>This client is not known</h1>"
        if asked.get("code_challenge_method") != "S256" or "openid" not in asked.get("scope", "").split():
            return 400, "<h1>PKCE and the scope openid are needed</h1>"
        if not form:
            buttons = "".join(f"<button name=who value={w}>{w}</button>" for w in (*PEOPLE, "nobody"))
            return 200, f"<h1>Provider</h1><form method=post action='?{html.escape(urlencode(asked))}'>{buttons}</form>"
        (who,) = form["who"]
        given = {"state": asked["state"], "iss": self.url}
        if who == "nobody":
            given |= {"error": "access_denied", "error_description": "<b>she said no</b>"}
        else:
            given["code"] = secrets.token_urlsafe(16)
            self.codes[given["code"]] = (time.monotonic(), who, asked)
        return 303, f"{asked['redirect_uri']}?{urlencode(given)}"

    def token(self, form, authorization):
        basic = base64.b64encode(f"{CLIENT}:{self.secret}".encode()).decode()
        known = authorization == f"Basic {basic}" if self.secret else form.get("client_id") == CLIENT
        if not known:
            return 401, {"error": "invalid_client"}
        at, who, asked = self.codes.pop(form.get("code"), (float("-inf"), "", {}))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            time.monotonic() - at >= self.code_seconds
            or form.get("grant_type") != "authorization_code"
            or challenge != asked["code_challenge"]
            or form.get("redirect_uri") != asked["redirect_uri"]
        ):
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": CLIENT, "sub": f"u-{who}", "name": who, "roles": PEOPLE[who], "exp": now + 3_600,
            "iat": now, "nonce": asked["nonce"],
        }  # fmt: skip
        signed = jwt.encode({"alg": "RS256", "kid": "p1"}, claims | self.claims, self.key)
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": signed}


@contextlib.contextmanager
def provider():
    """A provider that answers while the block runs."""
    made = Provider()
    with serving(made.server):
        yield made


def settings_of(provider):
    """The settings of an admin API whose people sign in there."""
    return {
        "admin_oidc_issuer": provider.url, "admin_oidc_audience": "cohobate-api", "admin_oidc_client_id": CLIENT,
        "admin_oidc_client_secret": provider.secret or None, "admin_oidc_role_prefix": "cohobate-",
        "admin_oidc_actor_claim": "name",
    }  # fmt: skip
