"""Spam filtering over the mail of 2002, in the order of the mails' own dates (:mod:`infra.workloads.corpus`).

One mail in five, spread over the whole year, is *gold*: the teacher's head is fitted on it, and it is never streamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.contracts.storage import digest_of, put_bytes
from components.teachers.minilm import MiniLMTeacher, fit_head
from infra.workloads.corpus import Mail, fetch, first_of_each, read_mails
from infra.workloads.source import Item, Phase, Source

GOLD_EVERY = 5
"""One mail in so many is gold."""

PREPARED = 1
"""Version of what :func:`prepare` and :func:`head_path` make: raise it with any change: it names the cached files."""

SPACE = "spam@1"
MAX_TOKENS = 64

HISTORY = 600
PER_PHASE = 650
PHASES = 4


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """The corpus in the order of time, without near-duplicates; ``dropped`` counts those."""

    stream: tuple[Mail, ...]
    gold: tuple[Mail, ...]
    dropped: int


def prepare(cache: Path) -> Prepared:
    """The corpus, read and sorted; kept in ``cache`` after the first time.

    Raises:
        UnavailableError: as for :func:`fetch`.

    """
    kept = cache / f"mail-{PREPARED}.msgpack"
    if kept.is_file():
        return msgspec.msgpack.decode(kept.read_bytes(), type=Prepared)
    mails = sorted(read_mails(fetch(cache)), key=lambda m: (m.time, m.text))
    first = [mails[i] for i in first_of_each([m.text for m in mails])]
    prepared = Prepared(
        stream=tuple(m for i, m in enumerate(first) if i % GOLD_EVERY),
        gold=tuple(first[::GOLD_EVERY]),
        dropped=len(mails) - len(first),
    )
    put_bytes(kept.resolve().as_uri(), msgspec.msgpack.encode(prepared))
    return prepared


def head_path(cache: Path) -> Path:
    """The file of the teacher's head, fitted on the gold mails if it is not there (half a minute)."""
    path = cache / f"mail-head-{PREPARED}.json"
    if not path.is_file():
        gold = prepare(cache).gold
        fit_head([m.text for m in gold], [m.truth for m in gold], path, space=SPACE, max_tokens=MAX_TOKENS)
    return path


def teacher(threads: int = 1) -> MiniLMTeacher:
    """The workload's teacher; data and head are made first where the cache has none."""
    return MiniLMTeacher(head=str(head_path(Settings().cache)), threads=threads)


def phases(stream: Sequence[Mail], *, history: int, per_phase: int) -> tuple[tuple[Item, ...], tuple[Phase, ...]]:
    """A history and :data:`PHASES` runs of mails, thinned evenly to these sizes, in the order of time.

    Raises:
        ConfigError: there are too few mails.

    """
    wanted = history + PHASES * per_phase
    if wanted > len(stream):
        raise ConfigError("per_phase", per_phase, f"{history} + {PHASES} phases of it must be at most {len(stream)}")
    chosen = [stream[i * len(stream) // wanted] for i in range(wanted)]
    starts = range(history, wanted, per_phase)
    return _items(chosen[:history]), tuple(_phase(chosen[s : s + per_phase]) for s in starts)


def _items(mails: Sequence[Mail]) -> tuple[Item, ...]:
    payloads = [m.text.encode() for m in mails]
    return tuple(
        Item(id=digest_of(p)[:24], key=m.sender, payload=p, truth=m.truth) for m, p in zip(mails, payloads, strict=True)
    )


def _phase(mails: Sequence[Mail]) -> Phase:
    first, last = (datetime.fromtimestamp(m.time, UTC).strftime("%d %b") for m in (mails[0], mails[-1]))
    return Phase(name=f"{first} to {last}", items=_items(mails))


def source(settings: Settings, *, seed: int, history: int = HISTORY, per_phase: int = PER_PHASE) -> Source:
    """The demo's inputs. Their order is that of time: ``seed`` changes nothing here.

    Raises:
        UnavailableError: the data is not in the cache and cannot be fetched.

    """
    head_path(settings.cache)
    first, later = phases(prepare(settings.cache).stream, history=history, per_phase=per_phase)
    return Source(spec=Path(__file__).with_name("mail.yaml"), history=first, phases=later)
