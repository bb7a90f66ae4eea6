"""One self-contained HTML page of an evaluation: its verdict, and charts of what it rests on.

It runs no script and fetches nothing, so that the same bytes are the pipeline's artefact, a page of the console, and a
file.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from components.contracts.records import NAMED
from components.contracts.spec import Spec
from components.control.tables import WindowRow
from components.evaluate import charts, spans
from components.evaluate.charts import figure
from components.evaluate.evaluate import read_evidence
from components.evaluate.evidence import NEW, Evidence, Row
from components.evaluate.judge import judge
from components.evaluate.measure import REGIME, bounded, confusion, curve, forgotten, measures
from components.evaluate.report import columns
from components.evaluate.sets import per_class
from components.evaluate.share import known, right
from components.evaluate.spans import f1, kinds
from components.snapshot.window import read
from components.steps import evidence_of
from drift.columns import Column
from drift.gate import Finding, Measurement, Verdict
from drift.measured import Share, Side

MOST_COLUMNS = 30
"""Columns that are drawn: the first ones."""

STYLE = """
:root { color-scheme: light dark; --pass: #2a7f2a; --fail: #b02020; --missing: #8a5a00; --line: #ddd }
@media (prefers-color-scheme: dark) { :root { --pass: #6cc56c; --fail: #ff8080; --missing: #e0b050; --line: #444 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #222; background: #fff }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #16191d } }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .6rem }
tr + tr { border-top: 1px solid var(--line) } td.number { font-variant-numeric: tabular-nums }
.pass { color: var(--pass) } .fail { color: var(--fail) } .missing { color: var(--missing) }
.columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem }
.scroll { overflow-x: auto }
figure { margin: 0 0 1.5rem } figcaption { font-weight: 600; margin-bottom: .3rem; overflow-wrap: anywhere }
svg { max-width: 100%; height: auto } svg text { font-family: system-ui, sans-serif }
.key::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .3em }
.before::before { background: #8c8c8c } .now::before { background: #2f86c8 }
"""

LEGEND = '<p><span class="key before">reference</span> &nbsp; <span class="key now">new window</span></p>'

Columns = Mapping[str, Column]

SIDES: tuple[Side, Side] = ("lower", "upper")


def quality_page(spec: Spec, windows: Sequence[WindowRow], digest: str) -> bytes:
    """The page of the student ``digest`` as it was judged on the newest of ``windows``.

    The reference of the columns are all older windows that are at hand.

    Raises:
        ArtifactError: the student was not judged on that window.

    """
    evidence = read_evidence(evidence_of(windows[-1], digest))
    before = columns(spec, windows[:-1]) if len(windows) > 1 else {}
    entropies = [(f"window {w.number}", _entropies(w)) for w in windows]
    return render(evidence, judge(evidence), before, columns(spec, windows[-1:]), entropies)


def _entropies(window: WindowRow) -> list[float]:
    """Of the teacher on a window's traffic."""
    table = read(window.uri, window.digest)
    rows = zip(table["entropy"].to_pylist(), table["synthetic"].to_pylist(), strict=True)
    return [entropy for entropy, made_up in rows if made_up is None]


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
    classes, tags = judgement.task == "classification", judgement.task == "tagging"
    found = measures(evidence) if judgement.groups or judgement.task == "embedding" else {}
    parts = [
        ("Verdict", _verdict(verdict, judgement.notes)),
        ("Columns: reference and new window", _columns(before, now)),
        ("Entropy over time", _entropy(evidence, entropies)),
        ("Reliability", _reliability(known(new)) if judgement.task in NAMED else ""),
        *([("Spans", _spans(evidence, new))] if tags else []),
        ("Teacher and student", _confusion(new) if classes else ""),
        *([("Classes", _classes(evidence, new))] if judgement.task == "multilabel" else []),
        *([("Vectors", _vectors(evidence, found))] if judgement.task == "embedding" else []),
        ("Older regimes", _forgetting(evidence)),
        *([("Groups", _groups(evidence, found))] if judgement.groups else []),
    ]
    title = f"{judgement.workload}: student {judgement.digest[:12]}"
    body = "".join(f"<h2>{html.escape(name)}</h2>{part or '<p>Nothing to show.</p>'}" for name, part in parts)
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{view}<title>{html.escape(title)}</title><style>{STYLE}</style>'
    text = f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{html.escape(title)}</h1>{body}</body></html>'
    return text.encode()


def _verdict(verdict: Verdict, notes: Sequence[str]) -> str:
    heads = ("measure", "value", "bound", "limit", "outcome", "more labels")
    said = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"<p><strong>{verdict.decision}</strong></p>{_table(heads, map(_finding, verdict.findings))}{said}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells in HTML, under a row of heads where there are any."""
    head = f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in heads)}</tr>" if heads else ""
    body = "".join(f"<tr>{''.join(f'<td class=number>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}{body}</table></div>'


def _finding(finding: Finding) -> list[str]:
    bound = "" if finding.bound is None else f"{finding.bound:.4g} at {100 * (finding.confidence or 0):.4g} %"
    return [
        html.escape(finding.measure),
        "" if finding.value is None else f"{finding.value:.4g}",
        bound,
        html.escape(finding.limit),
        f'<span class="{finding.outcome}">{finding.outcome}</span>',
        "" if finding.more is None else str(finding.more),
    ]


def _told(measure: Measurement, confidence: float, absent: str = "too few rows") -> str:
    found = bounded(measure)
    if found is None or not math.isfinite(found.value):
        return absent
    ends = [found.bound(side, confidence) for side in SIDES]
    return f"{found.value:.4g} ({ends[0]:.4g} to {ends[1]:.4g})"


def _classes(evidence: Evidence, new: Sequence[Row]) -> str:
    """Of each class precision, recall and F1 against the truth on the new holdout, with bounds on both sides."""
    confidence = evidence.judgement.confidence
    rows = [
        [
            html.escape(of.name), str(of.rows),
            *(_told(share, confidence) for share in (of.precision, of.recall)), f"{of.f1:.4g}",
        ]
        for of in per_class(new)
    ]  # fmt: skip
    if not rows:
        return ""
    table = _table(("class", "rows that have it", "precision", "recall", "F1"), rows)
    return f"<p>bounds at {confidence:.2%} a side</p>{table}"


def _groups(evidence: Evidence, found: Mapping[str, Measurement]) -> str:
    """Of each group what was measured, and the largest difference between any two, with bounds on both sides."""
    confidence = evidence.judgement.confidence
    kinds = ("accuracy", "agreement", "deferral") if evidence.judgement.task in NAMED else (
        "agreement", "deferral")  # fmt: skip
    parts = []
    for by, compared in evidence.judgement.groups.items():
        rows = [
            [html.escape(name),
             *(f"{found[f'{count}[{by}={name}]']:.0f}" for count in ("group_rows", "group_truth_rows")),
             *(_told(found[f"group_{kind}[{by}={name}]"], confidence) for kind in kinds)]
            for name in compared.names
        ]  # fmt: skip
        rows.append(["largest gap", "", "", *(_told(found[f"{kind}_gap[{by}]"], confidence) for kind in kinds)])
        outside = f"{found[f'ungrouped_rows[{by}]']:.0f} rows are of no group"
        title = html.escape(f"{by}: bounds at {confidence:.2%} a side; {outside}")
        parts.append(f"<h3>{title}</h3>{_table(('group', 'rows', 'with truth', *kinds), rows)}")
    return "".join(parts)


def _spans(evidence: Evidence, new: Sequence[Row]) -> str:
    """Precision, recall and F1 of the candidate's spans against truth, and F1 of champion and teacher, by kind."""
    rows, confidence = known(new), evidence.judgement.confidence
    if not rows:
        return ""
    heads = ("kind", "texts", "true", "precision", "recall", "F1", "champion's F1", "teacher's F1")
    lines = []
    for kind in (None, *kinds(rows)):
        found = f1(evidence, rows, spans.candidate, spans.truth, kind)
        counts = spans.counted(rows, spans.candidate, spans.truth, kind)
        both, said, true = (sum(c[i] * row.weight for c, row in zip(counts, rows, strict=True)) for i in range(3))
        others = [f1(evidence, rows, side, spans.truth, kind) for side in (spans.champion, spans.teacher)]
        lines.append([
            html.escape(kind or "all"), str(sum(c.true + c.said > 0 for c in counts)), str(sum(c.true for c in counts)),
            *(f"{both / of:.4g}" if of else "" for of in (said, true)),
            _told(found, confidence, "too few texts"),
            *("" if f is None else f"{f.value:.4g}" for f in others),
        ])  # fmt: skip
    told = f"spans by exact boundaries and kind, on texts with truth; bounds at {confidence:.2%} a side"
    return f"<p>{html.escape(told)}</p>{_table(heads, lines)}"


def _vectors(evidence: Evidence, found: Mapping[str, Measurement]) -> str:
    """How near the student's vectors are to the teacher's, and what they find of what the teacher's do, with bounds."""
    judgement = evidence.judgement
    confidence, nearest = judgement.confidence, f"{judgement.neighbours} nearest, of {judgement.searched} others,"
    names = {
        "cosine": "mean cosine to the teacher's vector",
        "recall": f"share of the teacher's {nearest} that are the student's nearest",
        "rank_correlation": "rank correlation of the others by nearness",
        "cosine_loss": "fall of the mean cosine below the champion's",
        "recall_loss": "fall of that share below the champion's",
    }
    absent = "too few rows, or no champion"
    rows = [[html.escape(what), _told(found[name], confidence, absent)] for name, what in names.items()]
    return f"<p>Bounds at {confidence:.2%} a side.</p>{_table((), rows)}"


def _columns(before: Columns, now: Columns) -> str:
    plain = {n: c for n, c in now.items() if len(c) and (isinstance(c[0], str) or not hasattr(c[0], "__len__"))}
    shown = sorted(list(plain.items())[:MOST_COLUMNS], key=lambda item: isinstance(item[1][0], str))  # tall ones last
    drawn = [figure(n, charts.column(n, before.get(n, ()), c)) for n, c in shown]
    return f'{LEGEND}<div class="columns">{"".join(drawn)}</div>' if any(drawn) else ""


def _entropy(evidence: Evidence, entropies: Sequence[tuple[str, Sequence[float]]]) -> str:
    """The teacher's entropies by window, and the student's on the holdouts that it was judged on."""
    names = [name for name, values in entropies if len(values)]
    sets = {n.removeprefix(REGIME).split("-")[-1]: rows for n, rows in evidence.sets(REGIME).items()}
    if names:
        sets[names[-1]] = evidence.sets(NEW).get(NEW, [])
    points = {n: [r.candidate.entropy for r in rows if r.candidate.entropy is not None] for n, rows in sets.items()}
    student = {name: math.fsum(values) / len(values) for name, values in points.items() if values}
    return figure("entropy of answers (nats)", charts.entropy(entropies, student))


def _reliability(rows: Sequence[Row]) -> str:
    drawn = charts.reliability(curve(rows))
    return figure("confidence and what came true; a mark's size is its share of the rows", drawn)


def _confusion(rows: Sequence[Row]) -> str:
    asked = [row for row in rows if row.teacher is not None]
    if not asked:
        return ""
    found = confusion(asked, by_teacher=True)
    return figure("labels on the new holdout", charts.confusion(found["labels"], found["matrix"]))


def _forgetting(evidence: Evidence) -> str:
    """Accuracies of candidate and champion, and the loss between them with its bounds, by regime, oldest first."""
    older = {name.removeprefix(REGIME): rows for name, rows in evidence.sets(REGIME).items()}
    regimes, losses = {n: known(r) for n, r in older.items()}, {n: forgotten(evidence, r) for n, r in older.items()}
    shown = {name: lost for name, lost in losses.items() if lost is not None}
    drawn = ""
    if shown:
        confidence = evidence.judgement.confidence
        ends = [(m.bound("lower", confidence), m.bound("upper", confidence)) for m in shown.values()]
        chart = charts.losses(list(shown), [m.value for m in shown.values()], ends)
        drawn += figure(f"loss against the champion, bounds at {confidence:.2%} a side", chart)
    if regimes and evidence.judgement.task in NAMED:
        sides = {who: [_accuracy(rows, who) for rows in regimes.values()] for who in ("champion", "candidate")}
        drawn += figure("accuracy on older regimes", charts.accuracies(list(regimes), sides))
    return drawn


def _accuracy(rows: Sequence[Row], who: str) -> float | None:
    asked = [row for row in rows if getattr(row, who) is not None]
    if not asked:
        return None
    return Share(
        hits=tuple(right(getattr(row, who), row.truth) for row in asked), weights=tuple(row.weight for row in asked)
    ).value
