"""JWTs of an OpenID Connect issuer: signature by its published keys, issuer, audience, times, and a role claim.

Where the issuer's keys and pages are says its discovery document (OpenID Connect Discovery 1.0, section 4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import InvalidClaimError, JoseError
from joserfc.jwk import KeySet

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.settings import Settings
from components.control.order_client import LOOPBACK
from components.control.tokens import RESERVED, ROLES, Role
from serving.admin.problems import Refused

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Signatures by a private key only: with HS256 the public key would be the secret (RFC 8725, 3.1)."""

LEEWAY_SECONDS = 30
KEYS_SECONDS = 600.0
"""How long fetched keys are used before they are fetched again."""

AGAIN_SECONDS = 10.0
"""The least time between two fetches, whatever key ids callers make up."""

FETCH_SECONDS = 5.0
DISCOVERY = "/.well-known/openid-configuration"
MAX_CHARACTERS = 16_384


class Issuer:
    """The issuer that the settings name. Safe to use from several threads.

    Keys are fetched at the first token, every ten minutes, and when a token names a key that is not there (rotation).
    While the issuer does not answer, the keys that are there stay in use.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        allowed = "must be https (or http on the loopback): whoever answers there decides who may act"
        if settings.admin_oidc_jwks_url and not is_safe(settings.admin_oidc_jwks_url):
            raise ConfigError("COHOBATE_ADMIN_OIDC_JWKS_URL", settings.admin_oidc_jwks_url, allowed)
        discovered = not settings.admin_oidc_jwks_url or settings.admin_oidc_client_id
        if discovered and not is_safe(settings.admin_oidc_issuer):
            raise ConfigError("COHOBATE_ADMIN_OIDC_ISSUER", settings.admin_oidc_issuer, allowed)
        if not settings.admin_oidc_audience:
            raise ConfigError("COHOBATE_ADMIN_OIDC_AUDIENCE", "", "needed: a token made for others is not for us")
        self.name = settings.admin_oidc_issuer
        self._settings, self._clock, self._transport = settings, clock, transport
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._fetched = float("-inf")
        self._document: dict[str, Any] = {}
        self._discovered = float("-inf")

    def verify(self, token: str, *, audience: str = "", nonce: str | None = None) -> tuple[str, Role]:
        """The actor and role of a token.

        ``audience``: whom it must be for, if it is not the API's; ``nonce``: the one that it must have, if any.

        Raises:
            Refused: 401 if it is not the issuer's, not for us, or not in force; 403 if it has no role here.
            UnavailableError: the issuer's keys cannot be had.

        """
        if len(token) > MAX_CHARACTERS:
            raise Refused(401, "unauthenticated", "the token is too long")
        try:
            decoded = self._decode(token)
            jwt.JWTClaimsRegistry(
                now=int(self._clock()),
                leeway=LEEWAY_SECONDS,
                iss={"essential": True, "value": self._settings.admin_oidc_issuer},
                aud={"essential": True, "value": audience or self._settings.admin_oidc_audience},
                exp={"essential": True},
                sub={"essential": True},
            ).validate(decoded)
            if nonce is not None and decoded.get("nonce") != nonce:
                raise InvalidClaimError("nonce")
        except (JoseError, ValueError, TypeError) as error:
            why = f"the token is not valid here: {type(error).__name__}"
            raise Refused(401, "unauthenticated", why) from error
        return self._actor(decoded), self._role(decoded)

    def endpoint(self, name: str) -> str:
        """An address from the discovery document, such as ``authorization_endpoint``; empty where it names none.

        Raises:
            UnavailableError: there is no such document, or it is another issuer's, or the address is not https.

        """
        found = self.discovery().get(name, "")
        if found and not (isinstance(found, str) and is_safe(found)):
            raise UnavailableError("token issuer", self.name, f"its {name} is no https address")
        return str(found)

    def discovery(self) -> dict[str, Any]:
        """The discovery document, at most ten minutes old, or older while the issuer does not answer.

        Raises:
            UnavailableError: there is none, or it is another issuer's.

        """
        with self._lock:
            now = time.monotonic()
            if now - self._discovered >= (KEYS_SECONDS if self._document else AGAIN_SECONDS):
                self._discovered = now
                try:
                    found = self._get(self.name.rstrip("/") + DISCOVERY)
                except (httpx.HTTPError, ValueError):
                    found = None
                if isinstance(found, dict) and found.get("issuer") == self.name:
                    self._document = found
            if not self._document:
                where = self.name.rstrip("/") + DISCOVERY
                raise UnavailableError("token issuer", where, "it does not answer with a document of this issuer")
            return self._document

    def _get(self, url: str) -> Any:
        with httpx.Client(timeout=FETCH_SECONDS, transport=self._transport, trust_env=False) as client:
            answer = client.get(url)
            answer.raise_for_status()
            return answer.json()

    def _decode(self, token: str) -> dict[str, Any]:
        try:
            return jwt.decode(token, self._current(), algorithms=ALGORITHMS).claims
        except (JoseError, ValueError):
            if not self._refresh(AGAIN_SECONDS):
                raise
            return jwt.decode(token, self._current(), algorithms=ALGORITHMS).claims

    def _current(self) -> KeySet:
        self._refresh(KEYS_SECONDS)
        if self._keys is None:
            where = self._settings.admin_oidc_jwks_url or self.name
            raise UnavailableError("token issuer", where, "its keys cannot be fetched")
        return self._keys

    def _refresh(self, older_than: float) -> bool:
        """Fetch the keys if they are older than so many seconds; returns whether there are new ones."""
        url = self._settings.admin_oidc_jwks_url or self.endpoint("jwks_uri")
        with self._lock:
            now = time.monotonic()
            if now - self._fetched < (older_than if self._keys is not None else AGAIN_SECONDS):
                return False
            self._fetched = now
            try:
                self._keys = KeySet.import_key_set(self._get(url))
            except (httpx.HTTPError, JoseError, ValueError, KeyError, TypeError):
                return False
            return True

    def _actor(self, claims: dict[str, Any]) -> str:
        named = claims.get(self._settings.admin_oidc_actor_claim)
        if not isinstance(named, str) or not 1 <= len(named) <= 100 or not named.isprintable() or named in RESERVED:
            claim = self._settings.admin_oidc_actor_claim
            raise Refused(403, "no_actor", f"the token's claim {claim!r} is no name that may stand in the ledger")
        return named

    def _role(self, claims: dict[str, Any]) -> Role:
        value: Any = claims
        for part in self._settings.admin_oidc_role_claim.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        names = {value} if isinstance(value, str) else set(filter(_is_text, value if isinstance(value, list) else []))
        for role in reversed(ROLES):
            if self._settings.admin_oidc_role_prefix + role in names:
                return role
        claim = self._settings.admin_oidc_role_claim
        raise Refused(403, "no_role", f"the token's claim {claim!r} names no role here: {', '.join(ROLES)}")


def is_safe(url: str) -> bool:
    """Whether what answers there is who it says it is: https, or http on the loopback.

    >>> [is_safe(u) for u in ("https://id.example", "http://127.0.0.1:9000", "http://id.example", "")]
    [True, True, False, False]
    """
    address = urlsplit(url)
    return address.scheme == "https" or (address.scheme == "http" and address.hostname in LOOPBACK)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
