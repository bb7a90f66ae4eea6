"""Inputs that a student learns from without their labels: the newest of the workload's traffic, frozen beside a window.

What is held out stays out: no input is taken whose content would be held out were it labelled, that is in the audit
slice of a window, or that is nearly equal to one of these.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components.contracts.admission import check_consent
from components.contracts.errors import RecordError
from components.contracts.masking import masked_input, searched
from components.contracts.payload import decoder
from components.contracts.records import Input, content_hash, decode
from components.contracts.spec import Spec
from components.contracts.spec.references import folder_of
from components.contracts.storage import digest_of, files, get_bytes, put_bytes
from components.control.forgettings import Forgotten
from components.control.tables import WindowRow
from components.label.history_file import read_history
from components.snapshot.holdout import kept_shares, standing
from components.snapshot.leaks import SIDES, held_out
from components.snapshot.table import parquet_bytes
from components.snapshot.window import opened
from components.stream.contract import Broker, Record, TopicPartition

if TYPE_CHECKING:
    import pyarrow as pa


LEAST_READ = 1_000
"""Records of a partition that are read together, at least: each time takes a connection."""


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """Payloads, newest first, and the SHA-256 of the file that holds them (empty: there are none)."""

    payloads: list[bytes]
    digest: str = ""


NONE = Unlabelled(payloads=[])


def unlabelled(
    spec: Spec, windows: Sequence[WindowRow], broker: Broker, artifacts: str, forgotten: Forgotten
) -> Unlabelled:
    """The unlabelled inputs of an update on ``windows``.

    Frozen when a version of the spec asks for them first, so that every variant, and an update that is made again,
    learns from the same:
    at most ``student.unlabelled_rows`` different contents of the topic of inputs, read back until there are as many,
    and then of the histories that ``student.unlabelled`` names, that the terms of consent allow and the decoder takes;
    none of an entity from before it was ``forgotten``.

    Raises:
        ConfigError: a history is missing, or has an entry that is none.
        UnavailableError: the stream does not answer, or (FinderError) personal data cannot be looked for.

    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    asked = digest_of(f"{spec.digest}{spec.bundle or ''}".encode())[:16]
    stem = f"{artifacts}/{spec.name}/unlabelled/{windows[-1].digest}-{asked}"
    if found := sorted(files(f"{stem}*.parquet")):
        data = get_bytes(found[0])
    else:
        payloads = list(_kept(spec, windows, broker, forgotten))
        data = parquet_bytes(pa.table({"payload": pa.array(payloads, pa.binary())}))
        put_bytes(f"{stem}-{digest_of(data)[:16]}.parquet", data)  # by its content: two variants may freeze at once
    payloads = pq.read_table(io.BytesIO(data))["payload"].to_pylist()
    return Unlabelled(payloads=payloads, digest=digest_of(data)) if payloads else NONE


def _kept(spec: Spec, windows: Sequence[WindowRow], broker: Broker, forgotten: Forgotten) -> Iterator[bytes]:
    decoded, out = decoder(spec.payload, spec.source), held_out(spec, _standing(windows))
    seen: set[str] = set()
    left = spec.student.unlabelled_rows
    for found, timed in _inputs(spec, broker):
        content = content_hash(found.payload)
        until = forgotten.until(found.key)
        if content in seen or found.time <= until or (not timed and until > -math.inf):
            continue
        try:
            if found.synthetic is None:
                check_consent(found.consent, spec.consent)
            payload = decoded(found.payload)
        except RecordError:
            continue
        seen.add(content)
        if not out(content, payload):
            yield found.payload
            left -= 1
            if not left:
                return


def _standing(windows: Sequence[WindowRow]) -> Iterator[pa.Table]:
    kept = kept_shares(windows)
    for window in windows:
        with opened(window.uri, window.digest) as frozen:
            for table in frozen.tables(SIDES):
                yield standing(table, kept[window.number])


def _place(uri: str, spec: Spec) -> str:
    return uri if "://" in uri else str(Path(folder_of(spec.source)) / uri)


def _backwards(broker: Broker, place: TopicPartition, end: int, rows: int) -> Iterator[Record]:
    """The records of a partition before ``end``, newest first, of which ``rows`` are read together."""
    while end > 0:
        start = max(0, end - rows)
        found: list[Record] = []
        with contextlib.closing(broker.consumer([place.topic], start={place: start}, partitions=[place])) as consumer:
            while consumer.positions()[place] < end:
                found += [r for r in consumer.poll(timeout=0.2) if r.offset < end]
            begun = consumer.resets > 0  # the broker has none as old as the start
        yield from sorted(found, key=lambda r: (r.timestamp, r.offset), reverse=True)
        end = 0 if begun else start


def _inputs(spec: Spec, broker: Broker) -> Iterator[tuple[Input, bool]]:
    """The inputs of the topic, newest first, and then the entries of the histories; whether their time is known.

    Entries of a history need not tell it, and have that of the reading then.
    """
    topic = spec.topic("inputs")
    broker.ensure_topics([topic], spec.partitions)
    with contextlib.closing(broker.consumer([topic], start="latest")) as consumer:
        ends = consumer.ends()
    rows = max(spec.student.unlabelled_rows, LEAST_READ)
    places = [_backwards(broker, place, end, rows) for place, end in ends.items()]
    for record in heapq.merge(*places, key=lambda r: r.timestamp, reverse=True):
        with contextlib.suppress(RecordError):
            yield searched(spec, partial(masked_input, spec, decode(Input, record.value))), True
    for uri in spec.student.unlabelled:
        for entry in read_history(_place(uri, spec), spec):
            yield entry.input, False
