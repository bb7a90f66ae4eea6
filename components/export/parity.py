"""How far a bundle's answers are from the judged artefact's: measured in the runtime and the process that give them.

The bundle is asked by its own package, in a process where Cohobate is not imported, so that what is measured is what
its users get. Answers of a quantised model may hang on what else is in the batch: each size of batch is compared with
the judged artefact asked in batches of that size.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from components.contracts.errors import ArtifactError
from components.contracts.records import SoftLabel, Token
from components.export.manifest import Defer
from components.student.card import StudentCard
from components.student.parity import BATCHES, parity
from components.student.runtime import CHUNK, Reply, Student

Told = dict[str, Any]
"""An answer of a bundle, as its package writes it into JSON."""

Ask = Callable[[Sequence[bytes], Sequence[int]], list[list[Told]]]
"""Asks a bundle about payloads, once in batches of each size."""

SECONDS = 1_800
"""How long a bundle may take for all its answers."""

MOST = 1_000
"""Rows that are compared."""

SIZES = (*BATCHES, CHUNK)
"""Sizes of batches that they are compared in."""

IN_HALVES, HALVES_SIZES = 64, (1, 32)
"""Rows and sizes of batches in which halves are reckoned in halves, which is done in NumPy and takes long."""

OPENED = """
import cohobate_student
student = cohobate_student.load(folder)
def answer(payloads):
    said = student.predict_each(payloads)
    return [a.as_dict() if isinstance(a, cohobate_student.Answer) else {"error": str(a)} for a in said]
"""
"""Python that makes of ``folder`` the function ``answer``, by a bundle's own package."""

ASKING = """
import base64, json, sys
folder, sizes = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, folder)
told, sys.stdout = sys.stdout, sys.stderr  # what a runtime prints is no answer
payloads = [base64.b64decode(line) for line in sys.stdin.buffer.read().splitlines()]
{opened}
for size in sizes:
    for first in range(0, len(payloads), size):
        for one in answer(payloads[first : first + size]):
            told.write(json.dumps(one) + "\\n")
"""
"""The whole of the process that asks."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """At one size of ``batch``, over ``rows`` inputs.

    ``gap``: share of labels that differ, of tagging of the texts whose spans do or of the tokens whose tag does,
    whichever is larger; ``largest``: the largest difference of a probability, or of a value in scales;
    ``variation``: the mean total variation; ``novelty``: the mean difference of p-values, None where none is told;
    ``defer``: share of answers of which only one says ``defer``.
    """

    batch: int
    rows: int
    gap: float
    largest: float
    variation: float
    novelty: float | None
    defer: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The file ``parity.json``.

    ``how``: what was asked, in which runtime; ``rows``: inputs that it was asked; ``gap``: the worst of all; None
    without rows. ``halves``: the same graph where halves are reckoned in halves (:meth:`Target.ask_in_halves`), over
    fewer inputs; empty where nothing reckons so.
    """

    how: str
    runtime: str
    precision: str
    rows: int
    gap: float | None
    limit: float | None
    batches: tuple[Compared, ...]
    halves: tuple[Compared, ...] = ()


def in_a_process(folder: Path, opened: str = OPENED) -> Ask:
    """Ask the bundle in a folder in a process of its own, which ``opened`` opens it in."""

    def ask(payloads: Sequence[bytes], sizes: Sequence[int]) -> list[list[Told]]:
        lines, n = b"\n".join(base64.b64encode(p) for p in payloads), len(payloads)
        script = ASKING.replace("{opened}", opened)
        command = [sys.executable, "-B", "-P", "-W", "ignore", "-c", script, str(folder), json.dumps(list(sizes))]
        done = subprocess.run(command, input=lines, capture_output=True, check=False, timeout=SECONDS, cwd=folder)
        told = [msgspec.json.decode(line, type=Told) for line in done.stdout.splitlines()]
        if done.returncode or len(told) != n * len(sizes):
            said = done.stderr.decode(errors="replace").strip().splitlines()
            why = said[-1] if said else f"it ended with {done.returncode}"
            raise ArtifactError(str(folder), f"does not answer in a process of its own: {why}")
        return [told[n * i : n * (i + 1)] for i in range(len(sizes))]

    return ask


def compare(
    judged: Student,
    ask: Ask,
    payloads: Sequence[bytes],
    defer: Defer,
    *,
    most: int = MOST,
    sizes: Sequence[int] = SIZES,
) -> tuple[Compared, ...]:
    """Compare at each size of batch, over ``most`` of the payloads that chance takes; empty without payloads.

    Raises:
        ArtifactError: the bundle does not answer, or refuses an input that the artefact answers.

    """
    if not payloads:
        return ()
    order = np.random.default_rng(0).permutation(len(payloads))[:most].tolist()
    some = [payloads[i] for i in order]
    return tuple(
        _compared(size, _replies(judged, some, size), theirs, judged.card, defer)
        for size, theirs in zip(sizes, ask(some, sizes), strict=True)
    )


def _replies(judged: Student, payloads: Sequence[bytes], size: int) -> list[Reply]:
    return [r for first in range(0, len(payloads), size) for r in judged.reply(payloads[first : first + size])]


def _compared(batch: int, mine: Sequence[Reply], theirs: Sequence[Told], card: StudentCard, defer: Defer) -> Compared:
    said = [_soft(told, card) for told in theirs]
    _require_the_same_tokens(mine, said)
    known = parity([reply.soft for reply in mine], said)
    if known is None:
        raise ValueError("nothing to compare")
    pairs = list(zip(mine, theirs, strict=True))
    apart = [abs(a.novelty - t["novelty"]) for a, t in pairs if a.novelty is not None and t.get("novelty") is not None]
    return Compared(
        batch=batch,
        rows=len(mine),
        gap=max(known.gap, _tags_apart([reply.soft for reply in mine], said)),
        largest=known.largest,
        variation=known.variation,
        novelty=sum(apart) / len(apart) if apart else None,
        defer=sum(_defers(a, defer) != t["defer"] for a, t in pairs) / len(pairs),
    )


def _soft(told: Told, card: StudentCard) -> SoftLabel:
    if told.get("error") is not None:
        raise ArtifactError("bundle", f"refuses an input that the artefact answers: {told['error']}")
    if card.task == "tagging":
        return SoftLabel(task="tagging", space=card.space, tokens=msgspec.convert(told["tokens"], tuple[Token, ...]))
    soft = told["soft_label"]
    if card.task == "regression":
        return SoftLabel(task="regression", space=card.space, value=soft["value"], scale=soft["scale"])
    if card.task == "embedding":
        return SoftLabel(task="embedding", space=card.space, vector=tuple(soft["vector"]), scale=soft["scale"])
    return SoftLabel(task=card.task, space=card.space, distribution=soft)


def _require_the_same_tokens(mine: Sequence[Reply], theirs: Sequence[SoftLabel]) -> None:
    for reply, soft in zip(mine, theirs, strict=True):
        if [(t.start, t.end) for t in reply.soft.tokens] != [(t.start, t.end) for t in soft.tokens]:
            raise ArtifactError("bundle", "splits a text into other tokens than the artefact does")


def _tags_apart(mine: Sequence[SoftLabel], theirs: Sequence[SoftLabel]) -> float:
    """Share of tokens whose tag differs: spans may be the same where the mark of a tag is not."""
    pairs = [(a, b) for x, y in zip(mine, theirs, strict=True) for a, b in zip(x.tokens, y.tokens, strict=True)]
    return sum(a.tag != b.tag for a, b in pairs) / max(1, len(pairs))


def _defers(reply: Reply, limits: Defer) -> bool:
    novel = limits.novelty is not None and reply.novelty is not None and reply.novelty <= limits.novelty
    return reply.soft.confidence < limits.below or novel


def worst(found: Sequence[Compared]) -> float | None:
    """The largest gap of all sizes; None of none."""
    return max((c.gap for c in found), default=None)
