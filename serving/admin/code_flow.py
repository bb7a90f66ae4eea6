"""Signing in at the issuer's own page: OpenID Connect's authorization code flow with PKCE, state and nonce.

One try is known by a secret of 256 random bits in a cookie of the browser that began it, and by nothing here: state,
nonce and PKCE's verifier are made of it, so that any admin API of the platform can finish what another one began.

1. :meth:`CodeFlow.begin` sends the browser to the issuer with the state, the nonce and the verifier's digest.
2. The issuer sends it back with a code and the state; another try's state, or none, is refused.
3. :meth:`CodeFlow.finish` exchanges the code, with the verifier, for an ID token.
4. The ID token must be signed by the issuer, for this client, with this nonce, and in force; it names actor and role.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.settings import Settings
from serving.admin.oidc import FETCH_SECONDS, Issuer
from serving.admin.problems import Refused

CODE_CHARACTERS = 4_096
"""The longest code that is passed on."""


class CodeFlow:
    """The console as a client of the issuer. Safe to use from several threads."""

    def __init__(self, settings: Settings, issuer: Issuer) -> None:
        if "openid" not in settings.admin_oidc_scope.split():
            raise ConfigError(
                "COHOBATE_ADMIN_OIDC_SCOPE", settings.admin_oidc_scope, "must have openid among its words"
            )
        self.issuer, self._settings = issuer, settings
        self._secret = settings.secret("admin_oidc_client_secret")

    def begin(self, redirect_uri: str) -> tuple[str, str]:
        """The issuer's page to go to, and the secret that the browser has to come back with.

        Raises:
            UnavailableError: the issuer does not answer.

        """
        secret = secrets.token_urlsafe(32)
        with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                self._endpoint("authorization_endpoint"), state=_of(secret, "state"), nonce=_of(secret, "nonce"),
                code_verifier=_of(secret, "verifier"),
            )  # fmt: skip
        return str(url), secret

    def finish(self, secret: str, redirect_uri: str, given: Mapping[str, str]) -> tuple[str, Any]:
        """The actor and role of who came back; ``given``: what the issuer put into the address.

        Raises:
            Refused: 401, it is another try's answer, the issuer said no, or its ID token is not for this try; 403, who
                signed in has no role here.
            UnavailableError: the issuer does not answer.

        """
        if not secret or not hmac.compare_digest(given.get("state", "").encode(), _of(secret, "state").encode()):
            raise _refused("this answer is not to a sign-in that this browser began, or began last: begin again")
        if given.get("iss", self.issuer.name) != self.issuer.name:
            raise _refused("another issuer answered than the one that was asked")
        if "error" in given:
            said = f"{given['error']}: {given.get('error_description', '')}".removesuffix(": ")
            raise _refused(f"{self.issuer.name} refused: {said[:300]}")
        code = given.get("code", "")
        if not 0 < len(code) <= CODE_CHARACTERS:
            raise _refused(f"{self.issuer.name} sent no code")
        token = self._exchange(code, redirect_uri, _of(secret, "verifier"))
        return self.issuer.verify(token, audience=self._settings.admin_oidc_client_id, nonce=_of(secret, "nonce"))

    def leave(self) -> str:
        """The issuer's page to sign out at; empty where it has none, or does not answer."""
        try:
            return self.issuer.endpoint("end_session_endpoint")
        except UnavailableError:
            return ""

    def _exchange(self, code: str, redirect_uri: str, verifier: str) -> str:
        from authlib.integrations.base_client import OAuthError

        try:
            with self._client(redirect_uri) as client:
                answer: Any = client.fetch_token(self._endpoint("token_endpoint"), code=code, code_verifier=verifier)
        except OAuthError as error:
            if error.error == "invalid_client":
                remedy = "it does not know COHOBATE_ADMIN_OIDC_CLIENT_ID or its secret"
                raise UnavailableError("token issuer", self.issuer.name, remedy) from None
            raise _refused(f"{self.issuer.name} refused: {str(error.error)[:100]}: begin again") from None
        except UnavailableError:
            raise
        except Exception as error:  # whatever a foreign endpoint does wrong; its text could hold what was sent
            why = f"its token endpoint does not answer as it should ({type(error).__name__})"
            raise UnavailableError("token issuer", self.issuer.name, why) from None
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise UnavailableError("token issuer", self.issuer.name, "it answered without an ID token")
        return token

    def _endpoint(self, name: str) -> str:
        found = self.issuer.endpoint(name)
        if not found:
            raise UnavailableError("token issuer", self.issuer.name, f"its discovery document names no {name}")
        return found

    def _client(self, redirect_uri: str) -> Any:
        from authlib.integrations.httpx_client import OAuth2Client

        known = self.issuer.discovery().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        method = "client_secret_basic" if "client_secret_basic" in known else "client_secret_post"
        return OAuth2Client(
            self._settings.admin_oidc_client_id, self._secret, scope=self._settings.admin_oidc_scope,
            redirect_uri=redirect_uri, code_challenge_method="S256", timeout=FETCH_SECONDS, trust_env=False,
            token_endpoint_auth_method=method if self._secret else "none",
        )  # fmt: skip


def _refused(why: str) -> Refused:
    return Refused(401, "unauthenticated", why)


def _of(secret: str, what: str) -> str:
    """A value of a try: 43 characters that tell nothing of the secret or of its other values."""
    made = hmac.new(secret.encode(), f"oidc {what}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made).decode().rstrip("=")
