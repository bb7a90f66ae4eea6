"""What libraries say of their own doings at INFO, kept for whoever asks for DEBUG."""

from __future__ import annotations

import logging
from typing import Literal

LogLevel = Literal["INFO", "DEBUG"]


def hush(library: str, level: LogLevel) -> None:
    """Let a library's logger say warnings and what is worse, unless ``level`` or the process's own logging is at DEBUG.

    A level that somebody has given the logger stays.
    """
    logger = logging.getLogger(library)
    if logger.level == logging.NOTSET and level != "DEBUG" and not logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.WARNING)
