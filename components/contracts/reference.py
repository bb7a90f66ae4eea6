"""How a version of a workload is named: ``workload:NAME@DIGEST``, wherever a spec's path may stand."""

from __future__ import annotations

import re
from typing import NamedTuple

from components.contracts.errors import ConfigError

SCHEME = "workload:"

REFERENCE = re.compile(SCHEME + r"(?P<workload>[a-z][a-z0-9-]{0,40})(@(?P<which>[0-9a-f]{64}|[1-9][0-9]{0,8}))?")
"""Of a workload: its version by digest or number, or without one, the version in force."""


class Reference(NamedTuple):
    """A workload, and which version of it: its bundle's digest, or a number, or None for the one in force."""

    workload: str
    which: str | None = None

    @property
    def digest(self) -> str | None:
        """The digest, where it is named by one."""
        return self.which if self.which is not None and len(self.which) == 64 else None

    def __str__(self) -> str:
        """As it is written."""
        return f"{SCHEME}{self.workload}{f'@{self.which}' if self.which else ''}"


def parse(text: str) -> Reference | None:
    """The reference that a text is; None of a path.

    Raises:
        ConfigError: it begins like one, and is none.

    """
    if not text.startswith(SCHEME):
        return None
    found = REFERENCE.fullmatch(text)
    if found is None:
        raise ConfigError(
            "spec", text, "must have the form workload:NAME, workload:NAME@NUMBER or workload:NAME@DIGEST"
        )
    return Reference(found["workload"], found["which"])
