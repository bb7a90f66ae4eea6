"""The charts of an evaluation's page, drawn by Matplotlib as SVG that stands in the page itself: no script, no file.

Titles are the page's, above the chart; text is text, in the page's own colour, so that it is found, read aloud, and
right on dark and on light.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from drift.columns import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CATEGORIES, MOST_LABELS = 30, 40
"""Categories of a column and classes that are drawn: those with the most rows."""

MOST_CHARACTERS = 40
"""Of a name; a longer one loses its middle, visibly."""

BINS = 30
"""Of a histogram, the same for both sides."""

BEFORE, NOW = "#8c8c8c", "#2f86c8"
"""Colours: grey is the reference, the champion or the teacher; blue the new window and the candidate."""

INK = "#0a0b0d"
"""Stands for the page's colour of text until the SVG is written."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a class's name is one
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def figure(title: str, chart: str) -> str:
    """A chart in the page, with its title above it."""
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{chart}</figure>" if chart else ""


@contextmanager
def _drawn(says: str, width: float, height: float) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on, of a size in inches, and a list that holds the SVG afterwards. ``says``: for who cannot see."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    done: list[str] = []
    with mpl.rc_context({**STYLE, "svg.hashsalt": says}):
        made = Figure(figsize=(width, height))
        yield made.subplots(), done
        file = io.StringIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of glyphs that the font which measures texts does not have; browsers do
            made.savefig(file, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    done.append(_inlined(file.getvalue(), says))


def _inlined(text: str, says: str) -> str:
    """The SVG as a part of a page: without prolog, metadata, and names that nothing refers to."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL).replace(INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(says)}" ', 1)


def _named(name: Any) -> str:
    text = str(name)
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]}…{text[-half + 1 :]}"


def column(name: str, before: Column, now: Column) -> str:
    """The distribution of a column in the reference and in the new window."""
    sides = [(label, values, colour) for label, values, colour in
             (("reference", before, BEFORE), ("new window", now, NOW)) if len(values)]  # fmt: skip
    if any(isinstance(v, str) for v in (*before, *now)):
        return _categories(name, sides)
    return _histogram(name, sides)


def _categories(name: str, sides: Sequence[tuple[str, Column, str]]) -> str:
    shares = [_shares(values) for _, values, _ in sides]
    total = {n: sum(side.get(n, 0.0) for side in shares) for side in shares for n in side}
    kept = sorted(total, key=lambda n: (-total[n], n))[:MOST_CATEGORIES]
    others = [max(0.0, 1.0 - sum(side.get(n, 0.0) for n in kept)) for side in shares]
    names = [*kept, "(other)"] if len(total) > len(kept) else kept
    thick = 0.8 / len(sides)
    with _drawn(f"{name} by category", 3.2, 0.5 + 0.2 * len(names)) as (axes, done):
        for number, ((label, _, colour), side, other) in enumerate(zip(sides, shares, others, strict=True)):
            values = [side.get(n, 0.0) for n in kept] + [other] * (len(names) - len(kept))
            axes.barh([y + thick * number for y in range(len(names))], values, thick, color=colour, label=label)
        axes.set_yticks([y + thick * (len(sides) - 1) / 2 for y in range(len(names))], [_named(n) for n in names])
        axes.invert_yaxis()
        axes.set_xlabel("share of rows")
    return done[0]


def _shares(values: Column) -> dict[str, float]:
    counts: dict[str, float] = {}
    for value in values:
        counts[str(value)] = counts.get(str(value), 0.0) + 1.0 / len(values)
    return counts


def _histogram(name: str, sides: Sequence[tuple[str, Column, str]]) -> str:
    import numpy as np

    known = [[float(v) for v in values if v is not None and math.isfinite(float(v))] for _, values, _ in sides]
    pooled = [v for values in known for v in values]
    if not pooled:
        return ""
    edges = _edges(min(pooled), max(pooled))
    with _drawn(f"{name}: histogram", 3.2, 1.9) as (axes, done):
        for values, (_, _, colour) in zip(known, sides, strict=True):
            if values:
                shares = np.histogram(values, edges)[0] / len(values)
                axes.stairs(shares, edges, fill=True, color=colour, alpha=0.6)
        axes.set_ylabel("share of rows")
    return done[0]


def _edges(low: float, high: float) -> Any:
    """Edges of :data:`BINS` bins; where the values differ in their last bits only, of a width of one around them."""
    import numpy as np

    around = 0.5 * max(1.0, abs(low) * 1e-6)
    if high - low < around * 1e-6:
        low, high = low - around, high + around
    return np.linspace(low, high, BINS + 1)


def entropy(windows: Sequence[tuple[str, Sequence[float]]], student: Mapping[str, float]) -> str:
    """The teacher's mean entropy and its deciles by window; the student's on the holdouts that it was judged on."""
    import numpy as np

    named = [(name, np.asarray(values, dtype=np.float64)) for name, values in windows if len(values)]
    if not named:
        return ""
    with _drawn("entropy of answers by window", 8.0, 3.0) as (axes, done):
        names = [name for name, _ in named]
        low, high = ([float(np.percentile(v, share)) for _, v in named] for share in (10, 90))
        axes.fill_between(range(len(names)), low, high, color=BEFORE, alpha=0.25, label="teacher, 10 to 90 %")
        axes.plot(range(len(names)), [float(v.mean()) for _, v in named], "o-", color=BEFORE, label="teacher, mean")
        known = [n for n in names if n in student]
        axes.plot([names.index(n) for n in known], [student[n] for n in known], "D", color=NOW, label="student, mean")
        _by_name(axes, names)
        axes.set_ylabel("entropy (nats)")
        axes.legend()
    return done[0]


def reliability(bins: Sequence[Any]) -> str:
    """Confidence and what came true, by bin of :func:`components.evaluate.measure.curve`."""
    if not bins:
        return ""
    with _drawn("share that is right by confidence", 4.5, 4.0) as (axes, done):
        axes.plot([0, 1], [0, 1], ":", color=BEFORE, label="calibrated")
        confidences, accuracies = [b.confidence for b in bins], [b.accuracy for b in bins]
        axes.plot(confidences, accuracies, "-", color=NOW, label="student")
        axes.scatter(confidences, accuracies, s=[20 + 400 * b.share for b in bins], color=NOW, alpha=0.7)
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="confidence", ylabel="share that is right")
        axes.legend(loc="upper left")
    return done[0]


def confusion(labels: Sequence[str], matrix: Sequence[Sequence[float]]) -> str:
    """Rows by what the teacher and the student say; a pair that never came is blank."""
    from matplotlib import colormaps

    names, blues = labels[:MOST_LABELS], colormaps["Blues"]
    most = max((float(n) for row in matrix for n in row), default=0.0) or 1.0
    side = 0.6 + 0.3 * len(names)
    with _drawn("labels of the teacher and of the student", side, side) as (axes, done):
        for y, row in enumerate(matrix[: len(names)]):
            for x, count in enumerate(row[: len(names)]):
                if count:
                    dark = count > most / 2
                    axes.add_patch(_cell(x, y, blues(0.15 + 0.85 * count / most), agrees=x == y))
                    axes.text(x, y, f"{count:g}", ha="center", va="center", color="#ffffff" if dark else "#111111")
        shown = [_named(name) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=90)
        axes.set_yticks(range(len(names)), shown)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="student", ylabel="teacher")
        axes.grid(color=BEFORE, alpha=0.2, linewidth=0.5)
    return done[0]


def _cell(x: int, y: int, colour: Any, *, agrees: bool) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=colour, edgecolor=BEFORE if agrees else "none")


def losses(names: Sequence[str], values: Sequence[float], bounds: Sequence[tuple[float, float]]) -> str:
    """A loss by regime with its bounds, oldest first."""
    with _drawn("loss against the champion by regime", 8.0, 2.8) as (axes, done):
        axes.axhline(0.0, color=BEFORE, linestyle=":")
        around = [[v - low for (low, _), v in zip(bounds, values, strict=True)],
                  [high - v for (_, high), v in zip(bounds, values, strict=True)]]  # fmt: skip
        axes.errorbar(range(len(names)), values, yerr=around, fmt="o", color=NOW, capsize=4)
        _by_name(axes, names)
        axes.set_ylabel("loss")
    return done[0]


def accuracies(names: Sequence[str], sides: Mapping[str, Sequence[float | None]]) -> str:
    """Accuracies by regime, oldest first, of ``champion`` and ``candidate``."""
    with _drawn("accuracy by regime", 8.0, 2.8) as (axes, done):
        for number, (label, colour) in enumerate((("champion", BEFORE), ("candidate", NOW))):
            shown = [(x, v) for x, v in enumerate(sides[label]) if v is not None]
            axes.bar([x + 0.4 * number for x, _ in shown], [v for _, v in shown], 0.4, color=colour, label=label)
        _by_name(axes, names, shift=0.2)
        axes.set(ylim=(0, 1.02), ylabel="accuracy")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return done[0]


def _by_name(axes: Axes, names: Sequence[str], shift: float = 0.0) -> None:
    long = sum(map(len, names)) > 90
    axes.set_xticks(
        [x + shift for x in range(len(names))], [_named(n) for n in names],
        rotation=45 if long else 0, ha="right" if long else "center",
    )  # fmt: skip
