"""A history's files: inputs from before the platform, with the truth where it is known.

JSON lines or Parquet, a file or a folder of parts (read in the order of their names). Each row is one input:

=================== =================================================================================================
one of these four:
``text``            the payload as text
``json``            the payload as any JSON value (Parquet: a struct or a list)
``payload_base64``  the payload's bytes in base64
``payload``         the payload's bytes: a column of bytes in Parquet, base64 where it is text
and, if you like:
``id``              the input's identity; made of the content where it is left out
``key``             the entity that it belongs to; the id where it is left out
``time``            event time, Unix seconds (Parquet: or a timestamp); now where it is left out
``consent``         the terms under which it may be labelled and trained on
``workload``        the workload's name
``synthetic``       how the payload was made up, where it was: such a row is learnt from and never judges anything
``label``           what is true of it: the class,
``value``           or, in a regression, the value
``labels``          or, of multilabel, the array of the classes, which may be empty
``spans``           or, where texts are tagged, the spans: ``{start, end, label}`` or ``[start, end, label]`` each, in
                    characters of the text, the end excluded; an empty list where there is none
``known_at``        when that became known, Unix seconds; the input's time where it is left out
``source``          who says so; ``history`` where it is left out
=================== =================================================================================================

JSON lines may also hold an ``input`` and a ``truth`` of these fields. ``payload`` as text was always base64, and is
refused where it could as well be the plain text: ``text`` and ``payload_base64`` say which it is.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import io
import time as clock
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import fsspec
import msgspec

from components.contracts.errors import ConfigError, FinderError, RecordError
from components.contracts.masking import masker
from components.contracts.payload import decoder
from components.contracts.records import SYNTHETIC_VERSION, Input, Span, Truth, content_hash, json_bytes, spans_text
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.contracts.tagging import spans_from

FORMS = ("text", "json", "payload_base64", "payload")
ABOUT_INPUT = ("id", "key", "time", "consent", "workload", "synthetic")
SAID = ("label", "value", "labels", "spans")
ABOUT_TRUTH = (*SAID, "known_at", "source")

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json")
"""What the parts of a folder are told by."""

Row = dict[str, Any]


class Historic(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a history: an input, and its truth where it is known."""

    input: Input
    truth: Truth | None = None


def history(uri: str, spec: Spec) -> Iterator[tuple[str, Historic | ConfigError]]:
    """The entries of the history at a path or URI, each with its place, in their order; or why one is none.

    Raises:
        ConfigError: a file cannot be read at all.
        ArtifactError: it does not exist.

    """
    makes = _Entries(spec)
    for part in _parts(uri):
        data = get_bytes(part)
        rows = _parquet(data, part) if part.endswith(".parquet") else _lines(data, part)
        for place, row in rows:
            try:
                yield place, makes.entry(row())
            except FinderError as error:  # it may be the finder's own fault, and then no entry is to be left out
                raise FinderError(error.address, f"{error.remedy} ({place})") from None
            except (msgspec.MsgspecError, ValueError, RecordError) as error:
                yield place, ConfigError("history", place, f"must be a historic input: {error}")


def read_history(uri: str, spec: Spec) -> list[Historic]:
    """The entries of the history at a path or URI.

    Raises:
        ConfigError: it is empty, has an entry that is not one, or one of another workload; the message names it.
        ArtifactError: it does not exist.

    """
    entries = []
    for _, entry in history(uri, spec):
        if isinstance(entry, ConfigError):
            raise entry
        entries.append(entry)
    if not entries:
        raise ConfigError("history", uri, "must have at least one entry")
    if strange := {e.input.workload for e in entries} - {spec.name}:
        raise ConfigError("history", uri, f"has inputs of {', '.join(sorted(strange))}, not only of {spec.name}")
    return entries


def _parts(uri: str) -> list[str]:
    """The file itself, or the files of a folder, hidden ones and those beginning with ``_`` left out."""
    filesystem, path = fsspec.core.url_to_fs(uri)
    if not filesystem.isdir(path):
        return [uri]
    names = sorted(str(n) for n in filesystem.find(path))
    parts = [n for n in names if n.endswith(SUFFIXES) and n.rsplit("/", 1)[-1][0] not in "._"]
    if not parts:
        raise ConfigError("history", uri, f"must be a file, or a folder with files that end in {', '.join(SUFFIXES)}")
    return [str(filesystem.unstrip_protocol(p)) for p in parts]


Made = Callable[[], Row]
"""Makes a row; raises ValueError or msgspec's errors where there is none."""


def _lines(data: bytes, uri: str) -> Iterator[tuple[str, Made]]:
    """The rows of JSON lines; blank lines and a byte order mark at the beginning are nothing."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError("history", uri, "must be UTF-8, and is UTF-16: save it as UTF-8")
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if line.strip():
            yield f"line {number} of {uri}", lambda line=line: _of_line(line)  # type: ignore[misc]


def _of_line(line: bytes) -> Row:
    found = msgspec.json.decode(line, type=dict[str, Any])
    entry, truth = found.get("input", found), found.get("truth") or {}
    if not isinstance(entry, dict) or not isinstance(truth, dict):
        raise ValueError("input and truth are objects")
    if "input" in found:
        return {**entry, "truth": truth}
    if unknown := sorted(set(entry) - {*FORMS, *ABOUT_INPUT, *ABOUT_TRUTH}):
        raise ValueError(f"there is no field {', '.join(unknown)}: see docs/history.md for those there are")
    return _parted(entry)


def _parquet(data: bytes, uri: str) -> Iterator[tuple[str, Made]]:
    """The rows of a Parquet file, in which columns of other names mean nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
    except pa.ArrowInvalid as error:
        raise ConfigError("history", uri, f"must be a Parquet file: {error}") from error
    kept = [n for n in table.column_names if n in {*FORMS, *ABOUT_INPUT, *ABOUT_TRUTH}]
    if "json" in kept and pa.types.is_string(table.schema.field("json").type):
        raise ConfigError("history", uri, "column json must hold structs: name a column of JSON text 'text'")
    for number, row in enumerate(table.select(kept).to_pylist(), start=1):
        yield f"row {number} of {uri}", lambda row=row: _parted(row)  # type: ignore[misc]


def _parted(row: Row) -> Row:
    """A row with what is about its truth apart."""
    known = {n: _plain(v) for n, v in row.items() if v is not None}
    truth = {n: known.pop(n) for n in ABOUT_TRUTH if n in known}
    return {**known, "truth": truth if any(name in truth for name in SAID) else {}}


def _plain(value: Any) -> Any:
    """A timestamp as Unix seconds (one without a zone is UTC); anything else as it is."""
    if not isinstance(value, datetime):
        return value
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


class _Entries:
    """Makes entries of rows; ids that are left out are made of the content, and of how often it came before."""

    def __init__(self, spec: Spec) -> None:
        self._spec, self._now = spec, clock.time()
        self._decode, self._mask = decoder(spec.payload, spec.source), masker(spec)
        self._seen: Counter[str] = Counter()

    def entry(self, row: Row) -> Historic:
        payload, truth = self._payload(row), row["truth"]
        if self._mask is not None:
            payload = self._mask(payload).payload
        about = {n: v for n, v in row.items() if n not in (*FORMS, "truth")}
        if not about.get("id"):
            about["id"] = self._made_id(payload)
        about = {"workload": self._spec.name, "key": about["id"], "time": self._now, **about, "payload": payload}
        if about.get("synthetic") is not None:
            about["schema"] = SYNTHETIC_VERSION
            if truth:
                raise ValueError(f"what was made up has no truth: leave out {', '.join(SAID)}")
        entry = msgspec.convert(about, type=Input)
        if not truth:
            return Historic(input=entry)
        if truth.get("spans") is not None:
            truth = {**truth, "spans": self._spans(truth["spans"], payload)}
        known = {"workload": entry.workload, "input_id": entry.id, "time": entry.time, "known_at": entry.time}
        return Historic(input=entry, truth=msgspec.convert({**known, "source": "history", **truth}, type=Truth))

    def _spans(self, given: Any, payload: bytes) -> tuple[Span, ...]:
        spans, text = spans_from(given), self._decode(payload)
        if isinstance(text, str) and spans and spans[-1].end > len(text):
            raise ValueError(
                f"the span {spans_text(spans[-1:])} ends behind the text, which has {len(text)} characters"
            )
        return spans

    def _made_id(self, payload: bytes) -> str:
        content = content_hash(payload)[:24]
        self._seen[content] += 1
        return content if self._seen[content] == 1 else f"{content}-{self._seen[content]}"

    def _payload(self, row: Mapping[str, Any]) -> bytes:
        given = [n for n in FORMS if n in row]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(FORMS)}, not {', '.join(given) or 'none'}")
        form, value = given[0], row[given[0]]
        if form == "json":
            return json_bytes(value)
        if form == "payload" and isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            raise ValueError(f"{form} is text, not {type(value).__name__}")
        if form == "text":
            return value.encode()
        return _base64(value, form) if form == "payload_base64" else self._undeclared(value)

    def _undeclared(self, text: str) -> bytes:
        """The bytes of a ``payload`` that is text: base64, where it cannot be meant as it stands.

        Raises:
            ValueError: it is no base64, or only what it spells can be decoded.

        """
        payload = _base64(text, "payload")
        if self._decodes(text.encode()) and not self._decodes(payload):
            raise ValueError("payload is base64 of what cannot be decoded: is it plain text? name it text, or "
                             "payload_base64 if it is base64")  # fmt: skip
        return payload

    def _decodes(self, payload: bytes) -> bool:
        try:
            self._decode(payload)
        except RecordError:
            return False
        return True


def _base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{name} is not base64 ({error}): plain text goes into the field text") from error
