"""The sub-command ``cohobate dlq``: dead letters, listed, shown, replayed and dropped."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from components.contracts.errors import ConfigError, NotFoundError
from components.contracts.settings import Settings
from components.stream import open_broker
from serving.workload_option import Workload

if TYPE_CHECKING:
    from components.control.store import ControlStore
    from components.dead_letters.letters import Filter, Letter, Status
    from components.dead_letters.replay import Outcome
    from components.dead_letters.verdicts import Verdicts

    Chosen = tuple[int, Iterator[Letter]]


app = typer.Typer(help="Inputs that could not be labelled: why, and what becomes of them.", no_args_is_help=True)

PREVIEW_BYTES = 400
"""How much of a value ``show`` prints as text; ``--json`` has all of it."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[LETTER]...", help="topic-partition@offset, or partition@offset.")
]
Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Only letters of this reason; repeat for more.")]
Errors = Annotated[list[str] | None, typer.Option("--error", help="Only this exception's class; repeat for more.")]
Topic = Annotated[str | None, typer.Option(help="Only records of this topic.")]
Partition = Annotated[int | None, typer.Option(min=0, help="Only records of this partition.")]
Offsets = Annotated[
    str | None, typer.Option("--offsets", help="Only records with these offsets: FIRST:LAST, either may be empty.")
]
Since = Annotated[str | None, typer.Option(help="Only letters refused at or after this time (ISO 8601; UTC).")]
Until = Annotated[str | None, typer.Option(help="Only letters refused at or before this time (ISO 8601; UTC).")]
InputId = Annotated[str | None, typer.Option("--input", help="Only the input with this id, where it can be decoded.")]
All = Annotated[bool, typer.Option("--all", help="Every open letter; needed where no letter and no filter is given.")]


def offsets(text: str | None) -> tuple[int | None, int | None]:
    """The inclusive bounds that ``FIRST:LAST`` names; one number alone is both.

    Raises:
        ConfigError: it does not have that form.

    """
    if text is None:
        return None, None
    first, colon, last = text.partition(":")
    try:
        bounds = int(first) if first else None, int(last) if last else None
    except ValueError:
        raise ConfigError("offsets", text, "must have the form FIRST:LAST") from None
    return bounds if colon else (bounds[0], bounds[0])


def seconds(field: str, text: str | None) -> float | None:
    """A time in Unix seconds; one without a zone is in UTC.

    Raises:
        ConfigError: it is not an ISO 8601 time.

    """
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(field, text, "must be an ISO 8601 time such as 2026-01-31T12:00") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _filter(
    workload: str,
    names: list[str] | None,
    reasons: list[str] | None,
    errors: list[str] | None,
    topic: str | None,
    partition: int | None,
    offset_range: str | None,
    since: str | None,
    until: str | None,
    input_id: str | None,
) -> Filter:
    from components.dead_letters.letters import Filter

    first, last = offsets(offset_range)
    return Filter(
        names=frozenset(name if "-" in name else f"{workload}.inputs-{name}" for name in names or ()),
        reasons=frozenset(reasons or ()),
        errors=frozenset(errors or ()),
        topic=topic,
        partition=partition,
        first_offset=first,
        last_offset=last,
        since=seconds("since", since),
        until=seconds("until", until),
        input_id=input_id,
    )


def _store() -> ControlStore:
    from components.control.store import ControlStore

    return ControlStore.open(Settings().control_url)


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def summary(letter: Letter, known: Verdicts) -> dict[str, Any]:
    """A letter without its bytes, as ``list --json`` prints it."""
    dead, verdict = letter.dead, known.get(letter.key)
    return {
        "letter": letter.name,
        "status": known.status(letter.key),
        "reason": dead.reason,
        "error": dead.error,
        "detail": dead.detail,
        "input": letter.input_id,
        "at": dead.at,
        "attempts": dead.attempts,
        "bytes": len(dead.value),
        "cut": letter.cut,
        "decision": {"by": verdict.actor, "at": verdict.at, "why": verdict.why} if verdict else None,
    }


@app.command("list")
def list_(
    workload: Workload = "files",
    status: Annotated[str | None, typer.Option(help="open, replaying, replayed or dropped.")] = None,
    reason: Reasons = None,
    error: Errors = None,
    topic: Topic = None,
    partition: Partition = None,
    offset_range: Offsets = None,
    since: Since = None,
    until: Until = None,
    input_id: InputId = None,
    as_json: Json = False,
) -> None:
    """List dead letters, oldest first of each partition, and what was decided about them."""
    from components.dead_letters.letters import Status, read_letters
    from components.dead_letters.replay import verdicts

    wanted = _filter(workload, None, reason, error, topic, partition, offset_range, since, until, input_id)
    if status not in (None, *get_args(Status)):
        raise ConfigError("status", status, "must be open, replaying, replayed or dropped")
    known = verdicts(_store(), workload)
    letters = read_letters(open_broker(Settings()), workload, wanted)
    rows = [summary(x, known) for x in letters if status in (None, known.status(x.key))]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _print_list(rows, Console())


def _print_list(rows: list[dict[str, Any]], console: Console) -> None:
    counts = Counter(row["reason"] for row in rows)
    table = Table(title=f"{len(rows)} dead letters", caption=", ".join(f"{n} {r}" for r, n in counts.most_common()))
    for column in ("letter", "status", "reason", "error", "input", "refused at", "attempts", "bytes", "detail"):
        table.add_column(column, overflow="fold", justify="right" if column in ("attempts", "bytes") else "left")
    for row in rows:
        size = f"{row['bytes']}+" if row["cut"] else str(row["bytes"])
        shown = (row["letter"], row["status"], row["reason"], row["error"], row["input"] or "", _when(row["at"]))
        table.add_row(*map(escape, (*shown, str(row["attempts"]), size, row["detail"])))
    console.print(table)


@app.command()
def show(
    letter: Annotated[str, typer.Argument(help="topic-partition@offset, or partition@offset.")],
    workload: Workload = "files",
    as_json: Json = False,
) -> None:
    """Show one letter with its bytes, headers and the decision about it."""
    from components.dead_letters.letters import read_letters
    from components.dead_letters.replay import verdicts

    wanted = _filter(workload, [letter], None, None, None, None, None, None, None, None)
    found = next(read_letters(open_broker(Settings()), workload, wanted), None)
    if found is None:
        raise _unknown("".join(wanted.names), workload)
    dead = found.dead
    report = summary(found, verdicts(_store(), workload)) | {
        "key": None if dead.key is None else base64.b64encode(dead.key).decode(),
        "headers": {name: base64.b64encode(value).decode() for name, value in dead.headers.items()},
        "digest": dead.digest,
        "value": None if dead.tombstone else base64.b64encode(dead.value).decode(),
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print_letter(found, report, Console())


def _unknown(name: str, workload: str) -> NotFoundError:
    return NotFoundError("dead letter", name, f"list them with 'cohobate dlq list --workload {workload}'")


def _print_letter(letter: Letter, report: dict[str, Any], console: Console) -> None:
    table = Table(show_header=False, title=letter.name)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name in ("status", "reason", "error", "detail", "input", "attempts", "bytes", "cut", "digest", "decision"):
        table.add_row(name, escape(str(report[name])))
    table.add_row("refused at", _when(letter.dead.at))
    table.add_row("key", escape(repr(letter.dead.key)))
    for header, value in letter.dead.headers.items():
        table.add_row(f"header {escape(header)}", escape(repr(value)))
    preview = "none: a tombstone" if letter.dead.tombstone else repr(letter.dead.value[:PREVIEW_BYTES])
    table.add_row("value", escape(preview))
    console.print(table)


def _chosen(workload: str, wanted: Filter, statuses: Sequence[Status], everything: bool) -> Chosen:
    """How many letters are meant, and the letters: those named, or those with one of ``statuses`` that a filter takes.

    Raises:
        ConfigError: nothing was named, filtered or asked for.
        NotFoundError: a letter that was named does not exist.

    """
    from components.dead_letters.letters import Filter, read_letters
    from components.dead_letters.replay import verdicts

    if wanted == Filter() and not everything:
        raise ConfigError("letters", None, "name letters, give a filter, or --all")
    known = verdicts(_store(), workload)
    broker = open_broker(Settings())

    def read() -> Iterator[Letter]:
        found = read_letters(broker, workload, wanted)
        return (x for x in found if wanted.names or known.status(x.key) in statuses)

    names = [letter.name for letter in read()]
    if missing := wanted.names - set(names):
        raise _unknown(", ".join(sorted(missing)), workload)
    return len(names), read()


@app.command("replay")
def replay_(
    letters: Names = None,
    why: Annotated[str, typer.Option(help="Why; it goes into the ledger.")] = "replayed by hand",
    workload: Workload = "files",
    everything: All = False,
    again: Annotated[bool, typer.Option("--again", help="Also letters that were replayed or dropped before.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.01, help="At most so many letters a second.")] = None,
    reason: Reasons = None,
    error: Errors = None,
    topic: Topic = None,
    partition: Partition = None,
    offset_range: Offsets = None,
    since: Since = None,
    until: Until = None,
    input_id: InputId = None,
    as_json: Json = False,
) -> None:
    """Publish the original records once more; a letter is replayed once, unless --again says otherwise."""
    from components.dead_letters.letters import Status
    from components.dead_letters.replay import replay

    wanted = _filter(workload, letters, reason, error, topic, partition, offset_range, since, until, input_id)
    settings = Settings()
    total, chosen = _chosen(workload, wanted, get_args(Status) if again else ("open", "replaying"), everything)
    done = replay(
        _store(), open_broker(settings), workload, chosen, actor=settings.actor, why=why, again=again, rate=rate
    )  # fmt: skip
    _report(done, total, as_json)


@app.command("drop")
def drop_(
    why: Annotated[str, typer.Option(help="Why nobody needs them; it goes into the ledger.")],
    letters: Names = None,
    workload: Workload = "files",
    everything: All = False,
    reason: Reasons = None,
    error: Errors = None,
    topic: Topic = None,
    partition: Partition = None,
    offset_range: Offsets = None,
    since: Since = None,
    until: Until = None,
    input_id: InputId = None,
    as_json: Json = False,
) -> None:
    """Decide that letters are not replayed; they stay readable until the topic's retention passes them."""
    from components.dead_letters.replay import drop

    wanted = _filter(workload, letters, reason, error, topic, partition, offset_range, since, until, input_id)
    total, chosen = _chosen(workload, wanted, ("open",), everything)
    _report(drop(_store(), workload, chosen, actor=Settings().actor, why=why), total, as_json)


def _report(outcomes: Iterable[Outcome], total: int, as_json: bool) -> None:
    """Print what came of each letter, with progress on stderr, and exit with 1 if any was refused or failed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    done: list[dict[str, str]] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("letters", total=total)
        for outcome in outcomes:
            done.append({"letter": outcome.letter.name, "result": outcome.result, "detail": outcome.detail})
            progress.advance(task)
    if as_json:
        typer.echo(json.dumps(done, indent=2))
    else:
        counts = Counter(row["result"] for row in done)
        table = Table(title=", ".join(f"{n} {r}" for r, n in counts.items()) or "no letter was chosen")
        for column in ("letter", "result", "detail"):
            table.add_column(column, overflow="fold")
        for row in done:
            table.add_row(*map(escape, row.values()))
        Console().print(table)
    raise typer.Exit(1 if any(row["result"] in ("refused", "failed") for row in done) else 0)
