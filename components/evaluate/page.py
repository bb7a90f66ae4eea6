"""One self-contained HTML page of an evaluation: its verdict, and plots of what it rests on."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.contracts.spec import Spec
from components.control.tables import WindowRow
from components.evaluate.evaluate import read_evidence
from components.evaluate.evidence import NEW, Evidence, Row
from components.evaluate.judge import judge
from components.evaluate.measure import REGIME, confusion, curve, known, loss, right
from components.evaluate.report import columns
from components.snapshot.students import evidence_folder
from components.snapshot.window import read
from drift.columns import Column
from drift.gate import Finding, Verdict
from drift.measured import Share

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_COLUMNS, MOST_CATEGORIES, MOST_LABELS = 30, 30, 40
"""Columns, categories and classes that are drawn: those with the most rows."""

BEFORE, NOW = "#8c8c8c", "#1f77b4"
"""Colours: grey is the reference, the champion or the teacher; blue the new window and the candidate."""

COLOURS = {"pass": "#2a7f2a", "fail": "#b02020", "missing": "#9a6a00"}

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .6rem }
tr + tr { border-top: 1px solid #ddd } td.number { font-variant-numeric: tabular-nums }
.columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)) }
@media (prefers-color-scheme: dark) { body { background: #fff } }
"""

Columns = Mapping[str, Column]


def quality_page(spec: Spec, windows: Sequence[WindowRow], digest: str) -> bytes:
    """The page of the student ``digest`` as it was judged on the newest of ``windows``.

    The reference of the columns are all older windows that are at hand.

    Raises:
        ArtifactError: the student was not judged on that window.

    """
    evidence = read_evidence(f"{evidence_folder(windows[-1])}/{digest}.jsonl")
    before = columns(spec, windows[:-1]) if len(windows) > 1 else {}
    entropies = [(f"window {w.number}", read(w.uri, w.digest)["entropy"].to_pylist()) for w in windows]
    return render(evidence, judge(evidence), before, columns(spec, windows[-1:]), entropies)


def evidence_page(evidence: Evidence, before: Columns, now: Columns) -> bytes:
    """The page of evidence alone, outside the platform; columns of reference and new window where there are any.

    The entropies of the teacher are those on the rows that were held out.
    """
    parts = {name.split("-")[-1]: rows for name, rows in evidence.sets(REGIME).items()}
    sets = {n.removeprefix(REGIME): rows for n, rows in (parts | evidence.sets(NEW)).items()}
    entropies = [
        (name, [r.teacher.entropy for r in rows if r.teacher is not None and r.teacher.entropy is not None])
        for name, rows in sets.items()
    ]
    return render(evidence, judge(evidence), before, now, entropies)


def render(
    evidence: Evidence,
    verdict: Verdict,
    before: Columns,
    now: Columns,
    entropies: Sequence[tuple[str, Sequence[float]]],
) -> bytes:
    """The page from its parts. ``entropies``: the teacher's, in nats, by window, oldest first."""
    judgement = evidence.judgement
    new = [row for row in evidence.rows if row.set == NEW]
    classes = judgement.task == "classification"
    parts = [
        ("Verdict", _verdict(verdict, judgement.notes)),
        ("Columns: reference and new window", _columns(before, now)),
        ("Entropy over time", _drawn([_entropy(evidence, entropies)])),
        ("Reliability", _drawn([_reliability(known(new))] if classes else [])),
        ("Teacher and student", _drawn([_confusion(new)] if classes else [])),
        ("Older regimes", _drawn(_forgetting(evidence))),
    ]
    title = f"{judgement.workload}: student {judgement.digest[:12]}"
    body = "".join(f"<h2>{html.escape(name)}</h2>{part or '<p>Nothing to show.</p>'}" for name, part in parts)
    head = (
        f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style><script>{_script()}</script>'
    )
    text = f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{html.escape(title)}</h1>{body}</body></html>'
    return text.encode()


def _script() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


def _drawn(figures: Sequence[go.Figure | None]) -> str:
    parts = [f.to_html(full_html=False, include_plotlyjs=False) for f in figures if f is not None]
    return "".join(parts)


def _verdict(verdict: Verdict, notes: Sequence[str]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("measure", "value", "bound", "limit", "", "more labels"))
    rows = "".join(_finding(f) for f in verdict.findings)
    said = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"<p><strong>{verdict.decision}</strong></p><table><tr>{head}</tr>{rows}</table>{said}"


def _finding(finding: Finding) -> str:
    bound = "" if finding.bound is None else f"{finding.bound:.4g} at {100 * (finding.confidence or 0):.4g} %"
    cells = [
        html.escape(finding.measure),
        "" if finding.value is None else f"{finding.value:.4g}",
        bound,
        html.escape(finding.limit),
        f'<span style="color: {COLOURS[finding.outcome]}">{finding.outcome}</span>',
        "" if finding.more is None else str(finding.more),
    ]
    return f"<tr>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>"


def _columns(before: Columns, now: Columns) -> str:
    plain = {n: c for n, c in now.items() if len(c) and (isinstance(c[0], str) or not hasattr(c[0], "__len__"))}
    figures = [_column(n, before.get(n, ()), values) for n, values in list(plain.items())[:MOST_COLUMNS]]
    return f'<div class="columns">{_drawn(figures)}</div>' if figures else ""


def _column(name: str, before: Column, now: Column) -> go.Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    texts = any(isinstance(v, str) for v in (*before, *now))
    kept = set(_frequent([*before, *now])) if texts else set()
    for label, values, colour in (("reference", before, BEFORE), ("new", now, NOW)):
        if not len(values):
            continue
        if texts:
            shares = _shares([str(v) if str(v) in kept else "(other)" for v in values])
            figure.add_bar(x=list(shares), y=list(shares.values()), name=label, marker_color=colour)
        else:
            numbers = [float(v) for v in values if v is not None and v == v]
            figure.add_histogram(x=numbers, histnorm="probability", name=label, marker_color=colour, opacity=0.6)
    return figure.update_layout(**_layout(name, height=260), barmode="group" if texts else "overlay", showlegend=False)


def _frequent(values: Sequence[Any]) -> list[str]:
    shares = _shares([str(v) for v in values])
    return sorted(shares, key=lambda name: -shares[name])[:MOST_CATEGORIES]


def _shares(values: Sequence[str]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for value in values:
        counts[value] = counts.get(value, 0.0) + 1.0 / len(values)
    return counts


def _layout(title: str, height: int = 380) -> dict[str, Any]:
    margin = {"l": 50, "r": 20, "t": 40, "b": 50}
    return {"title": {"text": title, "font": {"size": 14}}, "height": height, "margin": margin, "template": "none"}


def _entropy(evidence: Evidence, entropies: Sequence[tuple[str, Sequence[float]]]) -> go.Figure | None:
    """The teacher's mean entropy and its deciles by window; the student's on the holdouts that it was judged on."""
    import numpy as np
    import plotly.graph_objects as go

    named = [(name, np.asarray(values, dtype=np.float64)) for name, values in entropies if len(values)]
    if not named:
        return None
    names = [name for name, _ in named]
    figure = go.Figure()
    for share in (10, 90):
        figure.add_scatter(
            x=names, y=[float(np.percentile(v, share)) for _, v in named], name=f"teacher, {share} %",
            line={"color": BEFORE, "dash": "dot"},
        )  # fmt: skip
    figure.add_scatter(x=names, y=[float(v.mean()) for _, v in named], name="teacher, mean", line={"color": BEFORE})
    sets = {n.removeprefix(REGIME).split("-")[-1]: rows for n, rows in evidence.sets(REGIME).items()}
    sets[names[-1]] = evidence.sets(NEW).get(NEW, [])
    points = {n: [r.candidate.entropy for r in rows if r.candidate.entropy is not None] for n, rows in sets.items()}
    kept = {name: float(np.mean(values)) for name, values in points.items() if values}
    figure.add_scatter(x=list(kept), y=list(kept.values()), name="student, mean", mode="markers", marker_color=NOW)
    return figure.update_layout(**_layout("entropy of answers (nats)"))


def _reliability(rows: Sequence[Row]) -> go.Figure | None:
    import plotly.graph_objects as go

    bins = curve(rows)
    if not bins:
        return None
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": BEFORE, "dash": "dot"}, name="calibrated")
    figure.add_scatter(
        x=[b.confidence for b in bins], y=[b.accuracy for b in bins], mode="lines+markers", name="student",
        line={"color": NOW}, marker={"size": [6 + 30 * b.share for b in bins]},
    )  # fmt: skip
    figure.update_xaxes(title="confidence", range=[0, 1.02])
    figure.update_yaxes(title="share that is right", range=[0, 1.02])
    return figure.update_layout(**_layout("confidence and what came true; a mark's size is its share of the rows"))


def _confusion(rows: Sequence[Row]) -> go.Figure | None:
    import plotly.graph_objects as go

    asked = [row for row in rows if row.teacher is not None]
    if not asked:
        return None
    found = confusion(asked, by_teacher=True)
    names = found["labels"][:MOST_LABELS]
    matrix = [row[: len(names)] for row in found["matrix"][: len(names)]]
    figure = go.Figure(go.Heatmap(z=matrix, x=names, y=names, colorscale="Blues", text=matrix, texttemplate="%{text}"))
    figure.update_xaxes(title="student")
    figure.update_yaxes(title="teacher", autorange="reversed")
    return figure.update_layout(**_layout("labels on the new holdout", height=300 + 12 * len(names)))


def _forgetting(evidence: Evidence) -> list[go.Figure]:
    """Accuracies of candidate and champion, and the loss between them with its bounds, by regime, oldest first."""
    import plotly.graph_objects as go

    regimes = {name.removeprefix(REGIME): known(rows) for name, rows in evidence.sets(REGIME).items()}
    losses = {name: loss(evidence, rows) for name, rows in regimes.items()}
    shown = {name: lost for name, lost in losses.items() if lost is not None}
    figures = []
    if shown:
        confidence = evidence.judgement.confidence
        ends = [(m.bound("lower", confidence), m.bound("upper", confidence)) for m in shown.values()]
        values = [m.value for m in shown.values()]
        figure = go.Figure()
        figure.add_scatter(
            x=list(shown), y=values, mode="markers", marker_color=NOW, name="loss",
            error_y={"array": [u - v for (_, u), v in zip(ends, values, strict=True)],
                     "arrayminus": [v - low for (low, _), v in zip(ends, values, strict=True)]},
        )  # fmt: skip
        figure.add_hline(y=0, line={"color": BEFORE, "dash": "dot"})
        figures.append(figure.update_layout(**_layout(f"loss against the champion, bounds at {confidence:.2%} a side")))
    if regimes and evidence.judgement.task == "classification":
        figure = go.Figure()
        for name, colour in (("champion", BEFORE), ("candidate", NOW)):
            figure.add_bar(
                x=list(regimes), y=[_accuracy(rows, name) for rows in regimes.values()], name=name, marker_color=colour
            )  # fmt: skip
        figures.append(figure.update_layout(**_layout("accuracy on older regimes")))
    return figures


def _accuracy(rows: Sequence[Row], who: str) -> float | None:
    asked = [row for row in rows if getattr(row, who) is not None]
    if not asked:
        return None
    return Share(
        hits=tuple(right(getattr(row, who), row.truth) for row in asked), weights=tuple(row.weight for row in asked)
    ).value
