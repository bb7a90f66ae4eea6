"""A document as JSON, Markdown and HTML. HTML runs no script and fetches nothing."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from infra.documents.document import Document, Statement
from infra.documents.facts import told

STYLE = """
:root { color-scheme: light dark } body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem } table { border-collapse: collapse } th, td { text-align: left; padding: .2rem .7rem .2rem 0;
  vertical-align: top; overflow-wrap: anywhere } dt { font-weight: 600; margin-top: .8rem } dd { margin: 0 }
.blank { border-left: .3rem solid #b06000; padding-left: .6rem } .absent { opacity: .8 } small { opacity: .75 }
"""

BLANK = "To be filled by a person: "


def as_json(document: Document) -> bytes:
    """The document with the blanks by their ids."""
    whole = msgspec.to_builtins(document)
    return msgspec.json.format(msgspec.json.encode({**whole, "blanks": [s.id for s in document.blanks]})) + b"\n"


def _head(document: Document) -> list[str]:
    at = datetime.fromtimestamp(document.made_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return [f"{document.workload}, version {document.version}, student {document.digest}", f"Made {at}.", document.note]


SPECIAL = re.compile(r"([\\`*_\[\]|#~])")


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def as_markdown(document: Document) -> bytes:
    """The document in GitHub's Markdown."""
    lines = [f"# {_md(document.title)}", ""]
    for text in _head(document):
        lines += [_md(text), ""]
    for section in document.sections:
        lines += [f"## {_md(section.title)}", ""]
        for statement in section.statements:
            lines += [f"**{_md(statement.title)}** ({_md(statement.id)})", "", *_md_value(statement), ""]
            if statement.evidence:
                lines += [f"Rests on: {_md(', '.join(statement.evidence))}", ""]
    lines += ["## What a person must fill", ""]
    lines += [f"- {_md(s.id)}: {_md(s.title)}: {_md(s.fill)}" for s in document.blanks] or ["Nothing."]
    return ("\n".join(lines) + "\n").encode()


def _md_value(statement: Statement) -> list[str]:
    value = statement.value
    if statement.state == "blank":
        return [f"{BLANK}{_md(statement.fill)}"]
    if not isinstance(value, tuple):
        return [_md(told(value))]
    if isinstance(value[0], str):
        return [f"- {_md(str(one))}" for one in value]
    names = _names(statement)
    rows = [[told(row.get(name, "")) for name in names] for row in value if isinstance(row, dict)]
    return [
        f"| {' | '.join(map(_md, names))} |", f"|{'---|' * len(names)}",
        *(f"| {' | '.join(map(_md, row))} |" for row in rows),
    ]  # fmt: skip


def _names(statement: Statement) -> list[str]:
    rows = [row for row in statement.value if isinstance(row, dict)] if isinstance(statement.value, tuple) else []
    return list(dict.fromkeys(name for row in rows for name in row))


def as_html(document: Document) -> bytes:
    """The document as one page."""
    e = html.escape
    parts = [f"<h1>{e(document.title)}</h1>", *(f"<p>{e(text)}</p>" for text in _head(document))]
    for section in document.sections:
        parts.append(f"<h2>{e(section.title)}</h2><dl>")
        for s in section.statements:
            rests = f"<br><small>Rests on: {e(', '.join(s.evidence))}</small>" if s.evidence else ""
            name = f'<dt id="{e(s.id)}">{e(s.title)} <small>{e(s.id)}</small></dt>'
            parts.append(f'{name}<dd class="{s.state}">{_html_value(s)}{rests}</dd>')
        parts.append("</dl>")
    blanks = "".join(f'<li><a href="#{e(s.id)}">{e(s.title)}</a>: {e(s.fill)}</li>' for s in document.blanks)
    parts.append(f"<h2>What a person must fill</h2>{f'<ul>{blanks}</ul>' if blanks else '<p>Nothing.</p>'}")
    head = f'<meta charset="utf-8"><title>{e(document.title)}</title><style>{STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return f'<!doctype html><html lang="en"><head>{head}{view}</head><body>{"".join(parts)}</body></html>\n'.encode()


def _html_value(statement: Statement) -> str:
    e, value = html.escape, statement.value
    if statement.state == "blank":
        return f"{BLANK}{e(statement.fill)}"
    if not isinstance(value, tuple):
        return e(told(value))
    if isinstance(value[0], str):
        return "<ul>" + "".join(f"<li>{e(str(one))}</li>" for one in value) + "</ul>"
    names = _names(statement)
    head = "".join(f"<th>{e(name)}</th>" for name in names)
    rows = "".join(
        "<tr>" + "".join(f"<td>{e(told(row.get(name, '')))}</td>" for name in names) + "</tr>"
        for row in value if isinstance(row, dict)
    )  # fmt: skip
    return f"<table><tr>{head}</tr>{rows}</table>"


FORMATS: dict[str, Callable[[Document], bytes]] = {"json": as_json, "md": as_markdown, "html": as_html}
