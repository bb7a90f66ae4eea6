"""The sub-command ``cohobate gate replay``: a recorded verdict, had again from its evidence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.contracts.errors import ConfigError
from infra.gate_command import EXIT_ERROR
from infra.workloads import spec_path

if TYPE_CHECKING:
    from drift.gate import Verdict

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

EXITS = {"promote": 0, "reject": 1, "hold": 2}
"""Exit codes: pass, fail, not enough data."""


def replay(
    evidence: Annotated[str, typer.Argument(help="An evaluation's evidence (JSON lines): a path or a URI.")],
    spec: Annotated[str | None, typer.Option(help="Spec whose limits are tried on this evidence.")] = None,
    as_json: Json = False,
) -> None:
    """Judge recorded evidence again: exits 0 for promote, 1 for reject, 2 for not enough data.

    Exits 3 where the file is not evidence, or the recorded verdict is not, byte for byte, the one that it leads to.
    """
    from components.contracts.spec import load_spec
    from components.evaluate.judge import replay as recompute

    done = recompute(read_lines(evidence), load_spec(spec_path(spec)).limits if spec else None)
    said: dict[str, Any] = done.verdict.as_dict() | {"recorded": done.recorded, "same": done.same}
    typer.echo(json.dumps(said, indent=2) if as_json else _text(done.verdict, done.same))
    raise typer.Exit(EXIT_ERROR if done.same is False else EXITS[done.verdict.decision])


def read_lines(evidence: str) -> list[bytes]:
    """The lines of a file of evidence, by its path or the URI that ``cohobate status --json`` names.

    Raises:
        ConfigError: it cannot be read.
        UnavailableError: the object store does not give it.

    """
    from components.contracts.errors import ArtifactError
    from components.contracts.storage import get_bytes

    try:
        return get_bytes(evidence).splitlines()
    except (ArtifactError, OSError) as error:
        what = "No such file or directory" if isinstance(error, ArtifactError) else error.strerror
        raise ConfigError("evidence", evidence, f"must be a file that can be read: {what}") from error


def _text(verdict: Verdict, same: bool | None) -> str:
    note = {None: [], True: ["as recorded"], False: ["NOT as recorded"]}[same]
    return "\n".join([verdict.decision, *(f"  {reason}" for reason in verdict.reasons), *note])
