"""Texts that Python and NumPy ship: the first sentences of what their functions and classes say of themselves."""

import importlib
import inspect
from functools import cache

MODULES = {
    "network": (
        "email.message", "email.header", "email.utils", "email.policy", "http.client", "http.cookiejar", "http.server",
        "urllib.request", "urllib.parse", "smtplib", "imaplib", "ftplib", "ssl", "socket", "socketserver", "asyncio",
        "asyncio.streams", "logging.handlers", "poplib", "xmlrpc.client", "ipaddress", "selectors",
    ),
    "numbers": (
        "numpy", "numpy.linalg", "numpy.fft", "numpy.random", "numpy.ma", "statistics", "math", "cmath", "fractions",
        "decimal", "random",
    ),
}  # fmt: skip
"""By the subject: the modules that speak of it."""

SHORTEST, LONGEST = 30, 160
"""Characters of a text."""


@cache
def texts(subject: str) -> tuple[str, ...]:
    """The different texts of a subject, in the order of their modules and names."""
    found: dict[str, None] = {}
    for name in MODULES[subject]:
        for _, value in sorted(vars(importlib.import_module(name)).items()):
            for said in (value, *(vars(value).values() if inspect.isclass(value) else ())):
                text = getattr(said, "__doc__", None) if inspect.isclass(said) or inspect.isroutine(said) else None
                if isinstance(text, str):
                    first = " ".join(text.strip().split("\n\n")[0].split())[:LONGEST]
                    if len(first) >= SHORTEST:
                        found[first] = None
    return tuple(found)
