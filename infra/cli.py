"""The command ``cohobate``. Every command that reports takes ``--json``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from components.contracts.errors import CohobateError, UnavailableError
from components.contracts.reference import Reference, parse
from components.export import TARGETS
from infra.error_line import print_error
from infra.lazy import SubCommand, with_sub_commands
from infra.workloads import spec_path
from serving.workload_option import OrderedSpec, Workload, only_spec

if TYPE_CHECKING:
    from rich.console import RenderableType

    from components.contracts.settings import Settings
    from infra.status import Report

WATCH_SECONDS = 2.0
"""How often ``status --watch`` draws again."""

EXPORTS = ", ".join(TARGETS)
"""What ``export --to`` knows."""

SUB_COMMANDS = (
    SubCommand("pipeline", "pipelines.cli", "Compile, run, install, submit and schedule the Kubeflow pipelines."),
    SubCommand("rollout", "serving.cli", "Watch and steer rollouts."),
    SubCommand("edge", "serving.edge_cli", "Devices that answer by themselves: their code, and their bundles."),
    SubCommand("serve", "infra.serve", "The gateway as a declaration: what Ray Serve is to run."),
    SubCommand("deploy", "infra.manifests", "Manifests for Kubernetes: what a cluster would say to them."),
    SubCommand("ledger", "infra.ledger", "The append-only record of who did what to which model."),
    SubCommand("evidence", "infra.evidence.command", "Bundles that show what a version is and why it served."),
    SubCommand(
        "federate", "infra.federation.command", "Distil with others who share no inputs: soft answers to public ones."
    ),
    SubCommand("keys", "infra.keys", "Whose signatures of students, snapshots and evidence count."),
    SubCommand("workload", "infra.registry", "The registry: versions of workloads' specs with their code."),
    SubCommand("token", "infra.tokens", "Bearer tokens of the admin API."),
    SubCommand("notify", "infra.notify", "Webhooks that are told of rollouts, alarms and failures."),
    SubCommand("dlq", "infra.dlq", "Inputs that could not be labelled: why, and what becomes of them."),
    SubCommand("review", "infra.reviews", "Answer the questions that the teacher leaves to people."),
    SubCommand("teacher", "infra.teacher", "Watch the teachers, and decide about one that changed."),
    SubCommand("budget", "infra.budget", "What labelling costs: the present hour and day of UTC."),
    SubCommand("gate", "infra.gate", "Judge files as the platform would."),
    SubCommand("history", "infra.history", "Look at a history before it is labelled."),
)
"""What is imported when it is asked for, and not before."""

app = typer.Typer(
    name="cohobate",
    cls=with_sub_commands(SUB_COMMANDS),
    help="Continual distillation: keep a small student as good as its teacher while the traffic changes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
SpecList = Annotated[
    list[str] | None,
    typer.Option("--spec", help="A spec file, or the name of a built-in workload. Repeat for several. [files]"),
]


@app.callback()
def settings(
    home: Annotated[Path | None, typer.Option(help="Folder of the embedded platform. [.cohobate]")] = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="host:port of a Kafka to use instead of the embedded broker.")
    ] = None,
    database_url: Annotated[str | None, typer.Option(help="SQLAlchemy URL of the control database.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow tracking URI.")] = None,
    artifact_root: Annotated[str | None, typer.Option(help="fsspec URI for snapshots, students and reports.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Address of a Ray cluster to join.")] = None,
) -> None:
    """Options here override the environment (COHOBATE_<NAME>), for this command and all that it starts."""
    given = {
        "HOME": home.resolve() if home else None,
        "BOOTSTRAP_SERVERS": bootstrap_servers,
        "DATABASE_URL": database_url,
        "TRACKING_URI": tracking_uri,
        "ARTIFACT_ROOT": artifact_root,
        "RAY_ADDRESS": ray_address,
    }
    os.environ.update({f"COHOBATE_{name}": str(value) for name, value in given.items() if value is not None})


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="The workload's name: small letters, digits and hyphens.")],
    modality: Annotated[
        str,
        typer.Option(
            help="A payload: text, table, bytes, image, audio; or a task: regression, multilabel, tagging, embedding."
        ),
    ] = "text",
    into: Annotated[Path | None, typer.Option(help="Folder to write into. [./NAME]")] = None,
) -> None:
    """Write a workload to start from: its spec, a teacher to put your model into, and a sample history."""
    from infra.init import next_steps, write_workload

    typer.echo(next_steps(write_workload(name, modality, into or Path(name))))


@app.command()
def up(spec: SpecList = None) -> None:
    """Start the platform on this machine, in the background: broker, gateway, and each workload's workers.

    On one that runs already, take up changed spec files: see 'cohobate apply'.
    """
    from rich.markup import escape

    from components.contracts.settings import Settings
    from infra.stack import up as start
    from infra.state import read_state

    console = Console()
    running = read_state(Settings())
    if spec and running is not None and running.alive and running.ready:
        for one in spec:
            take_up(one, as_json=False)
        return
    with console.status("starting") as status:
        specs = [spec_path(s) for s in spec or ["files"]]
        state = start(Settings(), specs, lambda s: status.update(escape(f"waiting for {s}")))  # a line of a log
    console.print(f"[green]up[/]: gateway {state.gateway}, Kafka {state.kafka}, pid {state.pid}")
    if state.embedded_broker:
        console.print("the embedded broker's records are kept on disk: 'cohobate down' and 'up' go on with them")


def take_up(spec: str, *, as_json: bool, reason: str = "") -> None:
    """Take up a changed spec on the platform that runs, and say what that did."""
    import msgspec

    from components.contracts.errors import NotFoundError
    from components.contracts.settings import Settings
    from components.contracts.spec import load_spec
    from infra.changes import apply as take
    from infra.changes import told
    from infra.state import read_state

    settings = Settings()
    state = read_state(settings)
    if state is None or not state.alive or not state.ready:
        raise UnavailableError("platform", str(settings.home), "it does not run: 'cohobate up' starts it")
    source = spec_path(spec)
    if (name := load_spec(source).name) not in state.workloads:
        remedy = (
            f"the platform runs {', '.join(state.workloads)}: one more takes 'cohobate down', and 'cohobate up' with "
            "the specs of all"
        )
        raise NotFoundError("workload", name, remedy)
    changes = take(settings, source, state.pid, reason)
    typer.echo(msgspec.json.encode(changes).decode() if as_json else "\n".join(told(changes, running=True)))


@app.command()
def apply(
    spec: Annotated[str, typer.Argument(help="The changed spec file of a workload that runs.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the registry and the ledger.")] = "",
    as_json: Json = False,
) -> None:
    """Take up a changed spec while the platform runs; what cannot be is refused, and then nothing of it is taken up."""
    take_up(spec, as_json=as_json, reason=reason)


@app.command()
def down() -> None:
    """Stop the platform of this home and everything that it started."""
    from components.contracts.settings import Settings
    from infra.stack import down as stop

    typer.echo("stopped" if stop(Settings()) else "nothing was running")


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 unless the schema is new.")
    ] = False,
    backup: Annotated[
        Path | None, typer.Option(help="Where the backup goes. [beside an SQLite file; PostgreSQL needs a place]")
    ] = None,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Make none: there is one of this moment.")] = False,
) -> None:
    """Bring the control database to this version's schema, after a backup; stop what runs of the old version first."""
    from components.contracts.settings import Settings, mask
    from infra import migrate as schema

    url = Settings().control_url
    if check:
        typer.echo(f"{mask(url)} is at revision {schema.check(url).found}, the newest")
        return
    found, saved = schema.migrate(url, backup, without_backup=no_backup)
    if found.state == "newest":
        typer.echo(f"{mask(url)} is at revision {found.newest} already")
        return
    typer.echo(f"{mask(url)}: from {found.found or 'nothing'} to {found.newest}{f'; backup: {saved}' if saved else ''}")


@app.command()
def status(
    workload: Annotated[str | None, typer.Option("--workload", help="This workload alone.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is known, however long.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again every 2 s, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show each workload's state, who serves and since when, lag, the last alarm, and what to press: one screen."""
    import time

    from components.contracts.settings import Settings

    if as_json and watch:
        raise typer.BadParameter("--json prints one document: leave --watch out")
    settings, console = Settings(), Console()
    if as_json:
        import msgspec

        typer.echo(json.dumps(msgspec.to_builtins(_status(settings, workload)), indent=2))
        return
    from infra.status_screen import screen
    from infra.status_screen import watch as keep_drawing

    def draw() -> RenderableType:
        return screen(_status(settings, workload), time.time(), console.width, all_=everything)

    if watch:
        keep_drawing(draw, console, lambda: time.sleep(WATCH_SECONDS))
    else:
        console.print(draw(), highlight=False)


def _status(settings: Settings, workload: str | None) -> Report:
    from infra.status import read

    return read(settings, workload)


@app.command()
def export(
    version: Annotated[str, typer.Argument(help="A version's number, or an alias: champion, candidate, previous.")],
    to: Annotated[str, typer.Option("--to", help=f"What it is for: {EXPORTS}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; must not exist yet.")],
    workload: Annotated[
        str | None, typer.Option(help="Its workload, by the version of its spec that is in force, in place of --spec.")
    ] = None,
    spec: Annotated[
        str | None, typer.Option(help="Spec file or built-in workload. [the platform's only one, else files]")
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, float16 or int8. [the target's first]")] = "",
    key: Annotated[
        str, typer.Option(help="Private key that signs: a PEM file or a KMS' URI. [COHOBATE_WORKLOAD_SIGNING_KEY]")
    ] = "",
    public_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Public key (PEM) of a key that a URI names.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a version as a bundle that answers raw input elsewhere; exit code 4: it would answer otherwise there."""
    from infra.export import write

    if workload is not None and spec is not None:
        raise typer.BadParameter("--workload and --spec name the same: leave one out")
    if workload is not None:
        spec = str(Reference(workload))
    source = spec_path(spec or only_spec())
    write(version, to, output, source, precision, key, public_key, as_json)


@app.command("verify-export")
def verify_export(
    bundle: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A folder of 'cohobate export'.")],
    public_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Public key (PEM) of who signed it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a bundle's files by its manifest and, with a public key, who signed it: no platform, no network."""
    from infra.export import check

    check(bundle, public_key, as_json)


@app.command()
def mcp(
    workload: Annotated[
        list[str] | None, typer.Option("--workload", help="Repeat for several. [those of the platform of this home]")
    ] = None,
    gateway: Annotated[
        str | None, typer.Option(help="The gateway's address. [that of the platform of this home]")
    ] = None,
    operator: Annotated[bool, typer.Option("--operator", help="Offer the platform's status, read-only, too.")] = False,
    port: Annotated[
        int | None, typer.Option(help="Serve over HTTP on this port of 127.0.0.1, not over standard input and output.")
    ] = None,
) -> None:
    """Offer the workloads to agents as tools of the Model Context Protocol."""
    from components.contracts.settings import Settings
    from infra.mcp_server import serve

    serve(Settings(), workload, gateway, operator=operator, port=port)


@app.command()
def console(
    browse: Annotated[bool, typer.Option("--open/--print", help="Open it in a browser, or print its address.")] = True,
) -> None:
    """Open the console of the platform that runs here, or of the one whose admin API COHOBATE_ADMIN_URL names."""
    import webbrowser

    from components.contracts.settings import Settings
    from infra.state import console_url

    url = console_url(Settings())
    typer.echo(url)
    if browse:
        webbrowser.open(url)


@app.command()
def demo(
    workload: Annotated[str, typer.Option(help="files or mail.")] = "files",
    seed: Annotated[int, typer.Option(help="Seed of the traffic's order and of the training.")] = 0,
    report: Annotated[Path, typer.Option(help="Where the machine-readable report goes.")] = Path("demo-report.json"),
    as_json: Json = False,
) -> None:
    """Run the whole loop on real input: drift, update, gate, canary, promotion, and two rollbacks."""
    from components.contracts.settings import Settings
    from infra.demo.run import run

    done = run(Settings(), workload=workload, seed=seed, report_path=report, console=Console(stderr=as_json))
    if as_json:
        typer.echo(json.dumps(done, indent=2))


@app.command()
def document(
    version: Annotated[str, typer.Argument(help="A version's number, or an alias: champion, candidate, previous.")],
    workload: Workload = "files",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", file_okay=False, help="Folder. [WORKLOAD-VERSION-documents]")
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="One kind. Repeat for several. [all]")] = None,
    spec: Annotated[
        str | None, typer.Option(help="Its spec, where it was registered without a bundle: a file, or a name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the documents of a version: cards, bill of materials, terms, regulations; and name what is left blank."""
    from components.contracts.settings import Settings
    from components.control.store import ControlStore
    from components.ledger.signatures import signer
    from components.registry.registry import Registry
    from infra.documents.facts import gather
    from infra.documents.signed import ENVELOPE, sign
    from infra.documents.write import write

    settings = Settings()
    given = spec_path(spec) if spec is not None else None
    with closing(ControlStore.open(settings.control_url)) as store:
        facts = gather(settings, Registry(settings), store, workload, version, given)
        folder = output or Path(f"{workload}-{facts.info.version}-documents")
        beside = [ENVELOPE] if signer(settings, store) is not None else None
        paths, blanks = write(facts, folder, only or (), beside=beside)
        key = sign(settings, store, facts, paths, blanks)
    if as_json:
        typer.echo(json.dumps({"files": [str(p) for p in paths], "blanks": blanks, "signed_by": key}, indent=2))
        return
    for path in paths:
        typer.echo(str(path))
    typer.echo(f"signed by {key}" if key else "not signed: COHOBATE_ARTIFACT_SIGNING_KEY names no key")
    for kind, ids in blanks.items():
        typer.echo(f"{kind}: {len(ids)} blanks for a person{': ' + ', '.join(ids) if ids else ''}")


@app.command("verify-documents")
def verify_documents(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A folder of 'cohobate document'.")],
    public_key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Public key (PEM) of who signed them.")],
) -> None:
    """Check who signed a version's documents, and that none was changed since: no platform, no network."""
    from infra.documents.signed import verify

    said = verify(folder, public_key)
    of = said.predicate
    typer.echo(
        f"{folder}: {len(said.digests)} files about {of['workload']} version {of['version']} "
        f"({of['student'][:12]}), as they were signed"
    )


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger.")],
    to: Annotated[str, typer.Option(help="Alias or version that becomes champion.")] = "previous",
    spec: OrderedSpec = "files",
    as_json: Json = False,
) -> None:
    """Make another version champion, now."""
    from components.contracts.spec import load_spec
    from serving.cli import place

    named = parse(spec)
    workload = named.workload if named is not None else load_spec(spec_path(spec)).name
    place("rollback", workload, reason, "", as_json, {"to": to})


@app.command()
def savings(
    since: Annotated[str, typer.Option(help="The period's first day (UTC), such as 2026-01-31. [7 days ago]")] = "",
    until: Annotated[str, typer.Option(help="Its last day. [today]")] = "",
    workload: Annotated[list[str] | None, typer.Option(help="Repeat for several. [all]")] = None,
    as_json: Json = False,
) -> None:
    """What the students saved in a period, from recorded facts and declared prices; what is not known is left blank."""
    from infra.savings import report, told
    from serving.cli import show

    rows = report(since, until, workload or [])
    if as_json:
        show(rows, as_json)
        return
    for row in rows:
        typer.echo(f"{row['workload']}, {row['since']} to {row['until']}; costs in the currency of the declared prices")
        for name, value in told(row).items():
            typer.echo(f"  {name:34} {value}")


@app.command()
def forget(
    key: Annotated[str, typer.Argument(help="The entity's key, as its inputs carry it.")] = "",
    workload: Workload = "files",
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger, and must not name the key.")] = "",
    signing_key: Annotated[
        str, typer.Option("--key", help="Private key that signs the proof: a PEM file, or a URI of a KMS.")
    ] = "",
    public_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Public key (PEM) of a key that a URI names.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be erased, and erase nothing.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show the orders so far, in place of giving one.")] = False,
    as_json: Json = False,
) -> None:
    """Erase an entity from every topic and store, and have the students that learnt from it made anew without it."""
    from components.contracts.attestation import signer
    from infra import forget as forgetting
    from serving.cli import show

    if listed:
        show(forgetting.orders(workload), as_json)
        return
    if dry_run:
        typer.echo(json.dumps(forgetting.look(workload, key), indent=2))
        return
    by = signer(signing_key, public_key) if signing_key else None
    done = forgetting.forget(workload, key, reason, by)
    if as_json:
        typer.echo(json.dumps(done, indent=2))
        return
    rows, records = sum(w["rows"] for w in done["windows"]), sum(done["topics"].values())
    asked = f"{done['reviews']} questions, {done.get('requests', 0)} requests"
    typer.echo(f"erased: {records} records, {rows} rows of {len(done['windows'])} windows, {asked}")
    for student in done["students"]:
        typer.echo(f"version {student['version']} had learnt from it: {student['why']}")
    for left in done["left"]:
        typer.echo(f"left: {left}")
    proof = done["proof"]
    typer.echo(f"proof{'' if proof['signed'] else ' (not signed: --key signs it)'}: {proof['uri']}")


@app.command()
def retention(
    workload: Workload = "files",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is too old, and delete nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete now what is older than the spec's retention says; the trigger does so by itself once a day."""
    from components.contracts.spec import DAY
    from infra.forget import expire

    done = expire(workload, dry=dry_run)
    if as_json:
        typer.echo(json.dumps(done, indent=2))
        return
    rows = f"{sum(done['rows'].values())} rows of {len(done['rows'])} windows"
    said = "too old" if dry_run else "deleted"
    typer.echo(f"{said}: {rows}, {done['questions']} questions, reports of {done['reports']} students")
    for topic, seconds in done["topics"].items():
        how = "without end" if seconds is None else f"for {seconds / DAY:g} days"
        typer.echo(f"{'too long' if dry_run else 'shortened'}: {topic} kept records {how}")
    if done["refused"]:
        typer.echo(f"not known: how long topics are kept: {done['refused']}")
    if done["kept"]:
        typer.echo(f"kept: {done['kept']} held-out rows that judge the champion's successors")


def run_guarded(command: Callable[[], None]) -> NoReturn:
    """Run a command; an error of ours becomes one line on stderr and exit code 1, Ctrl-C exit code 130."""
    try:
        command()
    except CohobateError as error:
        print_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def main() -> NoReturn:
    """Entry point of the console script."""
    run_guarded(app)


if __name__ == "__main__":
    main()
