"""The descriptors of a text, the columns that its drift is watched on."""

from __future__ import annotations

import math
import re

LINK = re.compile(r"https?://", re.IGNORECASE)


def describe_text(payload: str, head: int) -> dict[str, float | str]:
    """The descriptors of a text; all but its length are of its first ``head`` characters."""
    text, n = payload[:head], max(len(payload[:head]), 1)
    return {
        "log_chars": math.log1p(len(payload)),
        "links": float(len(LINK.findall(text))),
        "exclamations": float(min(text.count("!"), 20)),
        "upper_share": sum(c.isupper() for c in text) / n,
        "digit_share": sum(c.isdigit() for c in text) / n,
        "space_share": sum(c.isspace() for c in text) / n,
        "non_ascii_share": sum(ord(c) > 127 for c in text) / n,
    }
