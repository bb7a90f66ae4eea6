"""Which personal data is looked for in texts and masked before an input is kept."""

from __future__ import annotations

import re

from components.contracts.errors import ConfigError
from components.contracts.spec.fields import Factory, Payload, Positive, Section

KINDS = (
    "API_KEY",
    "BEARER_TOKEN",
    "CREDENTIAL_URI",
    "CREDIT_CARD",
    "DATE",
    "DE_IBAN",
    "DE_PASSPORT_NUMBER",
    "DE_POSTAL_CODE",
    "DE_RESIDENCE_PERMIT_NUMBER",
    "DE_SOCIAL_SECURITY_NUMBER",
    "DE_TAX_ID",
    "DE_VAT_ID",
    "EMAIL",
    "IP_ADDRESS",
    "JWT",
    "NPI",
    "PHONE",
    "PRIVATE_KEY",
    "SSN",
    "US_ROUTING_NUMBER",
    "ZIP_CODE",
)
"""What ``datafog-core`` finds in texts by its rules; what begins with ``DE_`` by its rules for Germany."""

KIND = re.compile("[A-Z][A-Z0-9_]{0,40}")
"""Form of a kind's name, so that its placeholder is told from other text."""

DECODERS = ("text", "json")


class Masking(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked for in an input's texts, and replaced by ``[KIND]`` before anything is kept of the input.

    ``entities``: the kinds; those of :data:`KINDS` are found by rules, others by the ``finder``. ``columns``: with
    ``payload.decoder: json``, the fields of the object (or of each object of a list) whose texts are searched, at any
    depth below them; none: every text. ``finder``: an object that is called with a text and gives ``(kind, start,
    end)`` of what it finds in it, places by characters; of other kinds than ``entities`` it finds nothing.
    ``finder_seconds``: how long it may take for one text; one that takes longer counts as failing.
    """

    entities: tuple[str, ...]
    columns: tuple[str, ...] = ()
    finder: Factory | None = None
    finder_seconds: Positive = 5.0


def check_masking(masking: Masking, payload: Payload) -> None:
    """Raise ConfigError where a workload's masking cannot be."""
    if payload.decoder not in DECODERS:
        remedy = f"searches texts, and payload.decoder is {payload.decoder!r}: it must be {' or '.join(DECODERS)}"
        raise ConfigError("masking", list(masking.entities), remedy)
    if masking.columns and payload.decoder != "json":
        raise ConfigError("masking.columns", list(masking.columns), "goes with payload.decoder: json")
    if not masking.entities:
        raise ConfigError("masking.entities", [], f"must name what to look for, such as {', '.join(KINDS)}")
    for kind in masking.entities:
        if KIND.fullmatch(kind) is None:
            raise ConfigError("masking.entities", kind, "is no name of a kind: capitals, digits and _, as in EMAIL")
        if kind not in KINDS and masking.finder is None:
            known = ", ".join(KINDS)
            raise ConfigError("masking.entities", kind, f"needs a masking.finder that finds it, or is one of {known}")
