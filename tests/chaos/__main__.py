"""``python -m tests.chaos --kills 200 --broker-kills 10 --seed 0``: the last line is the verdict."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live

from tests.chaos import apache
from tests.chaos.conduct import Run, bound
from tests.chaos.report import Report, summary, table

PLAIN_SECONDS = 10.0
"""How often progress is printed where there is no terminal."""


def progress(run: Run) -> str:
    """The run in one line."""
    at = " ".join("-" if not s.running else "*" if s.busy else "+" for s in run.slots)
    report = run.report
    return (
        f"{run.phase} {report.chaos_seconds:.0f}/{run.deadline:.0f} s  kills {report.killed}/{report.planned}"
        f"  broker {'up' if run.kafka.up else 'down'} (killed {report.broker_kills})  labelers {at}"
        f"  produced {len(run.feed.sent)}  accounted {run.accounted}"
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="kill -9 of labelers")
    parser.add_argument("--broker-kills", type=int, default=10, help="kill -9 of the broker")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same schedule")
    parser.add_argument("--rate", type=float, default=60.0, help="inputs published per second")
    parser.add_argument(
        "--seconds", type=float, help="longest time of killing; without it 8 a kill and 30 a broker kill"
    )
    parser.add_argument("--keep", type=Path, help="folder (new) for logs and the broker's data, kept afterwards")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of tables")
    options = parser.parse_args(argv)
    if reason := apache.missing():
        sys.stderr.write(f"{reason}\n")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options.seconds = seconds = options.seconds or bound(options.kills, options.broker_kills)
    console = Console(stderr=True)
    console.print(
        f"{options.kills} kills, {options.broker_kills} of the broker: at most {seconds:.0f} s and draining",
        soft_wrap=True,
    )
    with tempfile.TemporaryDirectory(prefix="cohobate-chaos-") as temporary:
        folder = options.keep or Path(temporary)
        report, places = _watched(folder, options, console)
    if options.json:
        values = msgspec.to_builtins(report) | {"verdict": report.verdict._asdict(), "last_line": report.last_line}
        sys.stdout.write(msgspec.json.encode(values).decode() + "\n")
    else:
        Console().print(table(report, places))
        sys.stdout.write("\n".join([*summary(report), report.last_line]) + "\n")
    return 0 if report.good else 1


def _watched(folder: Path, options: argparse.Namespace, console: Console) -> tuple[Report, tuple[str, ...]]:
    printed = 0.0
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(run: Run) -> None:
            nonlocal printed
            if console.is_terminal:
                live.update(progress(run), refresh=True)
            elif time.monotonic() - printed > PLAIN_SECONDS:
                printed = time.monotonic()
                console.print(progress(run), soft_wrap=True)

        wanted = (options.seed, options.kills, options.broker_kills, options.rate, options.seconds)
        run = Run(folder, *wanted, show)
        return run.run(), run.places


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
