"""What goes wrong: with a bundle, with an option of it, or with one input."""

from __future__ import annotations


class BundleError(Exception):
    """A bundle is not what its manifest says, or is of a version that this code does not know."""


class ConfigError(Exception):
    """A value that a bundle configures is not allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} is {value!r}: {allowed}")
        self.field, self.value, self.allowed = field, value, allowed


class RecordError(Exception):
    """One input cannot be answered; ``reason`` is a stable code in snake_case."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail
