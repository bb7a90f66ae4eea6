"""How clients prove who they are and check who they talk to: the settings as kafka-python's options.

Mechanisms: PLAIN (RFC 4616), SCRAM (RFC 5802), OAUTHBEARER (RFC 7628); TLS from version 1.2 on, with our own
certificate where the broker asks for one.
"""

from __future__ import annotations

import logging
import ssl
from typing import Any

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings

TALKATIVE = ("kafka.protocol.parser", "kafka.net.connection")
"""Loggers of kafka-python that write whole requests at DEBUG, passwords and tokens included."""


class Hidden(str):
    """A text whose ``repr`` does not show it: kafka-python logs whole configurations at DEBUG."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def security_options(settings: Settings) -> dict[str, Any]:
    """The options that every kafka-python client gets for SASL and TLS.

    Raises:
        ConfigError: settings are missing, contradict each other or name files that cannot be used.

    """
    protocol, mechanism = settings.security_protocol, settings.sasl_mechanism
    if protocol.startswith("SASL") != (mechanism is not None):
        raise ConfigError(
            "COHOBATE_SASL_MECHANISM",
            mechanism,
            f"with COHOBATE_SECURITY_PROTOCOL={protocol}: SASL_PLAINTEXT and SASL_SSL need one, the others take none",
        )
    options: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        options["ssl_context"] = tls_context(settings)
    if mechanism is not None:
        keep_requests_unlogged()
        options |= {"sasl_mechanism": mechanism, **_credentials(settings, mechanism)}
    return options


def keep_requests_unlogged() -> None:
    """Drop the DEBUG records of :data:`TALKATIVE`, whatever their level is set to."""
    for name in TALKATIVE:
        logging.getLogger(name).addFilter(_above_debug)


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _credentials(settings: Settings, mechanism: str) -> dict[str, Any]:
    if mechanism == "OAUTHBEARER":
        from components.stream.tokens import token_provider

        return {"sasl_oauth_token_provider": token_provider(settings)}
    password = settings.secret("sasl_password")
    for field, value in (("SASL_USERNAME", settings.sasl_username), ("SASL_PASSWORD", password)):
        if not value:
            raise ConfigError(f"COHOBATE_{field}", None, f"{mechanism} needs one")
    return {"sasl_plain_username": settings.sasl_username, "sasl_plain_password": Hidden(password)}


def tls_context(settings: Settings) -> ssl.SSLContext:
    """The TLS context of every connection to the broker.

    Raises:
        ConfigError: a certificate or key is missing or of no use, or the key's password is wrong.

    """
    context = ssl.create_default_context()
    if settings.ssl_cafile is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(settings.ssl_cafile)
        except (OSError, ssl.SSLError) as error:
            allowed = f"must be a readable file of certificates in PEM form ({error})"
            raise ConfigError("COHOBATE_SSL_CAFILE", str(settings.ssl_cafile), allowed) from error
    context.check_hostname = settings.ssl_check_hostname
    if settings.ssl_certfile is not None:
        _load_own(context, settings)
    elif settings.ssl_keyfile is not None:
        raise ConfigError("COHOBATE_SSL_CERTFILE", None, "COHOBATE_SSL_KEYFILE needs its certificate")
    return context


def _load_own(context: ssl.SSLContext, settings: Settings) -> None:
    key, password = settings.ssl_keyfile or settings.ssl_certfile, settings.secret("ssl_password")
    try:
        # Without a password OpenSSL would ask for one on the terminal, and wait.
        context.load_cert_chain(settings.ssl_certfile or "", settings.ssl_keyfile, lambda: password or "")
    except ssl.SSLError as error:
        why = "the key is encrypted: COHOBATE_SSL_PASSWORD or COHOBATE_SSL_PASSWORD_FILE must hold its password"
        if password is not None:
            why = "the key does not belong to the certificate, or COHOBATE_SSL_PASSWORD is not its password"
        elif error.reason == "KEY_VALUES_MISMATCH":
            why = "the key does not belong to the certificate"
        raise ConfigError("COHOBATE_SSL_KEYFILE", str(key), f"{why} ({error.strerror or error})") from error
    except OSError as error:
        allowed = f"certificate and key must be readable files ({error.strerror}: {error.filename})"
        raise ConfigError("COHOBATE_SSL_CERTFILE", str(settings.ssl_certfile), allowed) from error
