"""Tokens for OAUTHBEARER (RFC 7628): a fixed one, one from a file, or one from an OIDC token endpoint.

Brokers close or re-authenticate a connection when its token ends (KIP-368), and kafka-python authenticates again at 85
to 95 % of a token's life: a token is renewed here from :data:`RENEW_AT` of its life on, so that one is ready by then.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from kafka.net.sasl.oauth import AbstractTokenProvider

from components.contracts.errors import AccessError, ConfigError, UnavailableError
from components.contracts.settings import Settings

RENEW_AT = 0.8
"""Share of a token's life after which a new one is fetched."""

FETCH_SECONDS = 10.0
"""How long the token endpoint may take: the client's connections wait meanwhile."""

DEFAULT_LIFE = 300.0
"""Seconds that a token is taken to live where the endpoint does not say."""

Clock = Callable[[], float]


class Tokens(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python has no types
    """kafka-python's token provider over a function; its ``repr`` names no token."""

    def __init__(self, read: Callable[[], str]) -> None:
        super().__init__()
        self._read = read

    def token(self) -> str:
        """The token to send now."""
        return self._read()


class _Issued(NamedTuple):
    token: str
    renew_at: float
    ends_at: float


class ClientCredentials:
    """Fetches tokens by the client credentials grant (RFC 6749, 4.4), and keeps each until it is to be renewed.

    Safe to call from several threads. While a fetch fails, a token that has not ended goes on to be used.
    """

    def __init__(self, settings: Settings, clock: Clock = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._issued: _Issued | None = None

    def __call__(self) -> str:
        """A token that has at least a fifth of its life before it.

        Raises:
            AccessError: the endpoint refuses the client.
            UnavailableError: the endpoint does not answer, or not with a token.

        """
        with self._lock:
            now, held = self._clock(), self._issued
            if held is not None and now < held.renew_at:
                return held.token
            try:
                self._issued = self._fetch(now)
            except (AccessError, UnavailableError):
                if held is not None and now < held.ends_at:
                    return held.token
                raise
            return self._issued.token

    def _fetch(self, now: float) -> _Issued:
        from authlib.integrations.base_client import OAuthError
        from authlib.integrations.httpx_client import OAuth2Client

        settings, url = self._settings, self._settings.sasl_oauth_token_url
        context = ssl.create_default_context()
        if settings.ssl_cafile is not None:
            context.load_verify_locations(settings.ssl_cafile)
        secret = settings.secret("sasl_oauth_client_secret")
        try:
            with OAuth2Client(
                settings.sasl_oauth_client_id, secret, scope=settings.sasl_oauth_scope,
                verify=context, timeout=FETCH_SECONDS, trust_env=False,
            ) as client:  # fmt: skip
                answer: Any = client.fetch_token(url, grant_type="client_credentials")
            token, life = str(answer["access_token"]), float(answer.get("expires_in") or DEFAULT_LIFE)
        except OAuthError as error:
            remedy = "check COHOBATE_SASL_OAUTH_CLIENT_ID, its secret and COHOBATE_SASL_OAUTH_SCOPE"
            raise AccessError("token endpoint", url, "token", error.error or "no token", remedy) from None
        except Exception as error:  # whatever a foreign endpoint does wrong; its text could hold what was sent
            remedy = f"set COHOBATE_SASL_OAUTH_TOKEN_URL to one that answers with a token ({type(error).__name__})"
            raise UnavailableError("token endpoint", url, remedy) from None
        return _Issued(token, now + RENEW_AT * life, now + life)


def token_provider(settings: Settings) -> Tokens:
    """The provider of tokens that the settings name.

    Raises:
        ConfigError: none or several are named, or the endpoint's settings are incomplete.

    """
    url = settings.sasl_oauth_token_url
    ways = [w for w in (settings.sasl_oauth_token, settings.sasl_oauth_token_file, url) if w]
    if len(ways) != 1:
        allowed = "OAUTHBEARER needs exactly one of COHOBATE_SASL_OAUTH_TOKEN, _TOKEN_FILE and _TOKEN_URL"
        raise ConfigError("COHOBATE_SASL_OAUTH_TOKEN", f"{len(ways)} given", allowed)
    if not url:
        return Tokens(lambda: settings.secret("sasl_oauth_token") or "")
    if not url.startswith("https://"):
        raise ConfigError("COHOBATE_SASL_OAUTH_TOKEN_URL", url, "must be https: the client's secret is sent to it")
    if not settings.sasl_oauth_client_id or not settings.secret("sasl_oauth_client_secret"):
        raise ConfigError("COHOBATE_SASL_OAUTH_CLIENT_ID", settings.sasl_oauth_client_id, "needed, with its secret")
    return Tokens(ClientCredentials(settings))
