"""What all of Kafka's clients share: how long the broker may take, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from components.contracts.errors import UnavailableError
from components.stream.access import refuse

METADATA_SECONDS = 10.0
"""How long a topic that was just created may take to be known by every broker."""

CREATE = "create it with 'cohobate up' or Kafka's tools, or give the user an ACL to describe it if it exists"
"""Remedy for a topic that is not there: a broker does not tell that from one that we may not see."""


@contextmanager
def answering(address: str) -> Iterator[None]:
    """Turn kafka-python's errors into ours.

    Raises:
        AccessError: the broker does not know us, or does not permit it.
        UnavailableError: it does not answer, or not as it should.

    """
    from kafka.errors import (
        KafkaError,
        SaslAuthenticationFailedError,
        UnsupportedSaslMechanismError,
    )

    try:
        yield
    except (SaslAuthenticationFailedError, UnsupportedSaslMechanismError) as error:
        token = "token" if "invalid_token" in str(error) else "password"
        refuse(address, "mechanism" if isinstance(error, UnsupportedSaslMechanismError) else token, f"{error}")
    except KafkaError as error:
        if _denied(error):
            refuse(address, "permission", f"{type(error).__name__}, {error!s:.160}")
        remedy = (
            "is the broker up? set COHOBATE_BOOTSTRAP_SERVERS to its address and COHOBATE_SECURITY_PROTOCOL to what "
            f"its listener speaks ({error!r:.200})"
        )
        raise UnavailableError("Kafka", address, remedy) from error


def _denied(error: Exception) -> bool:
    """Whether an ACL refused; kafka-python names such errors in another's text where a transaction is involved."""
    return "AuthorizationFailedError" in repr(error)
