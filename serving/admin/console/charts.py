"""Charts as SVG, drawn here: lines over time, with a title and a description for who cannot see them.

Colours and strokes are classes of the stylesheet, so that a chart follows dark and light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
from markupsafe import Markup

WIDTH, HEIGHT = 320, 120
LEFT, RIGHT, TOP, BOTTOM = 40, 6, 8, 18
"""The room around the plot: for the scale, and for times below it."""

Point = tuple[float, float | None]
"""A time (Unix seconds) and a value; None where nothing was seen."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line. ``style`` is the stylesheet's class: ``champion``, ``candidate``, ``limit``, ``value``."""

    name: str
    style: str
    points: Sequence[Point]


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    unit: str = "",
    top: float | None = None,
    name: str = "chart",
    marks: Sequence[float] = (),
) -> Markup:
    """Lines over time from zero up to ``top``, or to the highest value; empty where there is nothing to draw.

    ``unit``: ``%`` shows shares as percentages, any other text stands behind the numbers. ``name`` makes ids unique.
    ``marks``: times of alarms, each an upright line where it is in the span.
    """
    values = [v for line in lines for _, v in line.points if v is not None]
    times = [t for line in lines for t, _ in line.points]
    if not values or not times:
        return Markup("")
    first, last = min(times), max(times)
    highest = max(values) if top is None else top
    highest = highest or (0.01 if unit == "%" else 1.0)

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((at - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - min(value / highest, 1.0))

    drawn = Markup("").join(
        Markup('<polyline class="line {}" points="{}"/>').format(line.style, part)
        for line in lines
        for part in _parts(line.points, x, y)
    )
    drawn += Markup("").join(
        Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(x(at), TOP, HEIGHT - BOTTOM)
        for at in marks
        if first <= at <= last
    )
    told = "; ".join(f"{line.name} now {_number(_last(line.points), unit)}" for line in lines)
    alarms = sum(first <= at <= last for at in marks)
    told += f"; {alarms} alarms" if alarms else ""
    scale = Markup("").join(
        Markup(
            '<line class="rule" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
            '<text x="{}" y="{:.1f}" class="scale">{}</text>'
        ).format(LEFT, WIDTH - RIGHT, y(v), y(v), LEFT - 4, y(v) + 3, _number(v, unit))
        for v in (0.0, highest)
    )  # fmt: skip
    legend = Markup("").join(
        Markup('<span class="key {}"><span aria-hidden="true" class="swatch"></span>{} {}</span>').format(
            line.style, line.name, _number(_last(line.points), unit)
        )
        for line in lines
    )
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d"><title id="{}-t">{}</title>'
        '<desc id="{}-d">{}</desc>{}{}<text x="{}" y="{}" class="span">{}</text></svg><p class="keys">{}</p></figure>'
    ).format(
        title, WIDTH, HEIGHT, name, name, name, title, name, told, scale, drawn, WIDTH - RIGHT, HEIGHT - 5,
        _span(last - first), legend,
    )  # fmt: skip


def _parts(points: Sequence[Point], x: Callable[[float], float], y: Callable[[float], float]) -> Iterator[str]:
    """The unbroken stretches of a line; a single point is drawn as a short dash."""
    part: list[str] = []
    for at, value in [*points, (0.0, None)]:
        if value is not None:
            part.append(f"{x(at):.1f},{y(value):.1f}")
        elif part:
            if len(part) == 1:
                px, py = part[0].split(",")
                part.append(f"{float(px) + 2:.1f},{py}")
            yield " ".join(part)
            part = []


def _last(points: Sequence[Point]) -> float | None:
    return next((v for _, v in reversed(points) if v is not None), None)


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "unknown"
    if unit == "%":
        return f"{100 * value:.3g} %"
    return f"{value:.3g} {unit}".strip()


def _span(seconds: float) -> str:
    """How long a chart is."""
    for size, name in ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
