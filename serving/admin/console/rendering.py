"""Templates and what they are filled with. Every value is escaped: class names, reasons and errors are users' text."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from serving.admin.console.web import ROOT

HERE = Path(__file__).parent
STATIC = HERE / "static"


@cache
def static(name: str) -> str:
    """The URL of a static file; its content's digest is in it, so that a new version is never taken for an old one."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"{ROOT}/static/{name}?v={digest}"


def ago(at: float) -> Markup:
    """A moment: the time in UTC, which the page's script makes relative and keeps up to date."""
    when = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}" data-ago>{}</time>').format(
        when.isoformat(timespec="seconds"), f"{when:%Y-%m-%d %H:%M:%S} UTC"
    )


def pct(share: float) -> str:
    """A share in percent.

    >>> pct(0.0512), pct(1.0)
    ('5.12 %', '100 %')
    """
    return f"{100 * share:.3g} %"


def num(value: float) -> str:
    """A number for reading: three digits, and no exponent where it can be helped.

    >>> num(0.05123), num(1234.5), num(1e200)
    ('0.0512', '1,234', '1e+200')
    """
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def measure(value: float | str | None) -> str:
    """A measure: a number, a text as it is, or that it is unknown.

    >>> measure(0.91234), measure(None), measure("int8")
    ('0.912', 'unknown', 'int8')
    """
    return "unknown" if value is None else num(value) if isinstance(value, int | float) else value


def count(value: int | None) -> str:
    """A count.

    >>> count(1234567), count(None)
    ('1,234,567', 'unknown')
    """
    return "unknown" if value is None else f"{value:,}"


def money(value: float | None) -> str:
    """An amount; small ones with as many digits as they need.

    >>> money(1234.5), money(0.00123), money(0.0000667), money(None)
    ('1,234.50', '0.00123', '0.0000667', 'unknown')
    """
    if value is None:
        return "unknown"
    if abs(value) >= 1 or value == 0:
        return f"{value:,.2f}"
    return f"{value:.{2 - math.floor(math.log10(abs(value)))}f}".rstrip("0")


def seconds(value: float) -> str:
    """A duration.

    >>> seconds(0.0123), seconds(4.2), seconds(4000.0)
    ('12 ms', '4.2 s', '1 h 7 min')
    """
    if value < 1.0:
        return f"{1000 * value:.0f} ms"
    if value < 120.0:
        return f"{value:.3g} s"
    minutes = int(value // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def towards(evidence: float, limit: float) -> float:
    """How far evidence is on its way to a limit, in [0, 1], on the logarithmic scale on which it adds up.

    >>> towards(1.0, 20.0), towards(20.0, 20.0)
    (0.0, 1.0)
    """
    return min(1.0, max(0.0, math.log(max(evidence, 1.0)) / math.log(limit)))


def slug(text: str) -> str:
    """A word as a class of the stylesheet."""
    return text.replace(" ", "-")


ENVIRONMENT = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True, auto_reload=False,
)  # fmt: skip
ENVIRONMENT.filters |= {
    "ago": ago, "count": count, "money": money, "measure": measure, "pct": pct, "num": num, "seconds": seconds,
    "towards": towards, "slug": slug,
}  # fmt: skip
ENVIRONMENT.globals |= {"static": static, "root": ROOT}


def fill(template: str, values: Mapping[str, Any]) -> Markup:
    """A template, filled."""
    return Markup(ENVIRONMENT.get_template(template).render(**values))  # noqa: S704 - the template escapes


def fill_all(templates: Iterable[str], values: Mapping[str, Any]) -> dict[str, Markup]:
    """Parts of a page by their names: the template ``_NAME.html`` makes the element with the id ``NAME``."""
    return {name: fill(f"_{name}.html", values) for name in templates}
