"""The journal of a rollout, from which its decisions can be replayed: JSON lines, each written with what it led to.

While a rollout is under way its lines are in the control database, so that a controller on another host goes on with
them. When it has ended they become one file at the artifact root, whose digest is in the ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from itertools import islice

import fsspec

from components.contracts.errors import ArtifactError, NotFoundError
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.store import ControlStore, JournalLine
from serving.rollout.replay import Line, encode_line

log = logging.getLogger(__name__)


def uri_of(artifacts: str, workload: str, rollout: str) -> str:
    """Where the journal of an ended rollout is."""
    return f"{artifacts}/{workload}/rollouts/{rollout}.jsonl"


class Journal:
    """The journal of one rollout. ``lines``: how many its durable state knows of; ``uri``: where its file goes.

    Of a rollout that had ended and goes on, the lines come back from the file.
    """

    def __init__(self, store: ControlStore, uri: str, rollout: str, lines: int) -> None:
        self._store, self.uri, self._rollout, self.lines = store, uri, rollout, lines
        self._published = 0
        if lines and next(store.journal(rollout), None) is None:
            try:
                texts = get_bytes(uri).decode().splitlines()[:lines]
            except ArtifactError:
                texts = []
            store.keep_journal(rollout, (JournalLine(n, text) for n, text in enumerate(texts, start=1)))
            if len(texts) < lines:
                log.warning("%s has %d lines of %d: its rollout cannot be replayed", uri, len(texts), lines)

    def next(self, line: Line) -> JournalLine:
        """The line that comes next; it counts once it was written with the state that it led to."""
        return JournalLine(self.lines + 1, encode_line(line).decode())

    def publish(self) -> str:
        """Write all lines to the file; returns its SHA-256 (hex). Again writes the same.

        Raises:
            UnavailableError: the artifact store does not take it.

        """
        data = "".join(f"{line.text}\n" for line in self._store.journal(self._rollout)).encode()
        put_bytes(self.uri, data)
        self._published = self.lines
        return digest_of(data)

    def retire(self) -> None:
        """Leave the lines to the file."""
        if self._published != self.lines:
            self.publish()
        self._store.keep_journal(self._rollout, ())


def read(store: ControlStore, uri: str, rollout: str, after: int = 0, offset: int = 0) -> Generator[bytes]:
    """The lines of a journal after the first ``after``, which are ``offset`` bytes long in its file; none: no line.

    Of a rollout under way they are in the database, of one that has ended in the file.
    """
    found = False
    for line in store.journal(rollout, after):
        found = True
        yield line.text.encode()
    if not found:
        try:
            with fsspec.open(uri, "rb") as file:
                file.seek(offset)
                yield from (line.rstrip(b"\n") for line in file)
        except FileNotFoundError:
            return


def journal_of(store: ControlStore, artifacts: str, rollout: str) -> Iterator[bytes]:
    """The lines of a rollout's journal.

    Raises:
        NotFoundError: there is no such rollout, or nothing is left of its journal.

    """
    of = store.workload_of(rollout)
    for workload in [of] if of else store.workloads():  # a certificate's journal has no rollout
        lines = read(store, uri_of(artifacts, workload, rollout), rollout)
        if first := list(islice(lines, 1)):
            yield from first
            yield from lines
            return
    raise NotFoundError("journal of a rollout", rollout, "name a file, or a rollout of 'cohobate rollout list'")
