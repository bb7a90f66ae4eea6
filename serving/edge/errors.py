"""What goes wrong on an edge.

::

    EdgeError
    ├── NotReadyError     no bundle is here that can answer: install one, or connect
    ├── UntrustedError    a bundle is not signed by the key that this edge knows, or is not what was signed
    ├── InputError        an input cannot be answered: ``reason`` is a stable code
    └── LinkError         the gateway does not answer, or refuses
"""

from __future__ import annotations


class EdgeError(Exception):
    """Base of all errors that an edge raises on purpose."""


class NotReadyError(EdgeError):
    """There is no version here that can answer."""


class UntrustedError(EdgeError):
    """A bundle must not be used; nothing of it was executed."""


class InputError(EdgeError):
    """An input cannot be answered."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class LinkError(EdgeError):
    """The gateway did not do what it was asked.

    ``status`` is the answer's, 0 where there was none; ``problem``: the answer is a problem (RFC 9457), as a gateway's
    are, and not what a proxy on the way made up.
    """

    def __init__(self, url: str, status: int, detail: str, *, problem: bool = False) -> None:
        super().__init__(f"{url}: {detail}")
        self.url, self.status, self.detail, self.problem = url, status, detail, problem
