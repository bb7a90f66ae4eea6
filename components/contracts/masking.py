"""Personal data in an input's texts: found, and replaced by the name of its kind, before anything is kept of the input.

It is done wherever inputs come in, so that the student and the teacher see the same text. Masking what was masked
changes nothing: ids that are made of the content, and its hash, are those of the masked text everywhere. What the
rules and the finder do not find stays: a count says what was found, and never that all was.

Where answers are places in the text (tagging), what stands for a piece is as long as the piece (:func:`kept_length`):
spans of labels, truths and answers are those of the text as it was sent, whoever has only that.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from typing import Any, NamedTuple, TypeVar

import msgspec

from components.contracts.admission import input_in
from components.contracts.errors import ConfigError, FinderError, RecordError
from components.contracts.finder import Find, Finder
from components.contracts.payload import Decode, decoder
from components.contracts.records import Input, encode, json_bytes
from components.contracts.spec import Spec
from components.contracts.spec.fields import Payload
from components.contracts.spec.masking import KINDS, Masking
from components.contracts.storage import digest_of
from components.contracts.stream_record import Record

ROUNDS = 32
"""How often a text is searched at most: again while something is found, since a placeholder may part what was not, and
rules find one of several pieces that run into each other."""

TRIES = 3
"""How often a finder has to fail on a text, and to work on another right after, until the text alone is to blame: it
may be out of order briefly."""

ADDRESS, LONGEST = re.compile(r"(?<![0-9A-Za-z_])[0-9A-Fa-f:.]{2,}(?![0-9A-Za-z_])"), 45
"""What may be an IP address, and how many characters the longest has (RFC 4291)."""


class Found(NamedTuple):
    """A piece of text of a kind, by the places of its characters: ``start`` is in it, ``end`` is not."""

    kind: str
    start: int
    end: int


class Masked(NamedTuple):
    """A payload after masking, how many pieces of each kind were found in it, and which ``masking.columns`` it has."""

    payload: bytes
    found: Mapping[str, int]
    columns: frozenset[str] = frozenset()


RULES = "datafog-core"

LEAST = 3
"""Letters of its kind that a placeholder is cut to at the least: ``[E]`` and ``[P]`` stand in texts that have none."""

NAMED = re.compile(rb"\[([A-Z0-9_]+)\]")
"""A placeholder."""

Mask = Callable[[bytes], Masked]
T = TypeVar("T")


def masker(spec: Spec) -> Mask | None:
    """What masks a workload's payloads; None where its spec asks for no masking. The same spec gives the same one.

    It raises RecordError for what is not to be kept: what the workload's decoder refuses, and ``mask_failed`` where
    there is no end of what is found. It raises FinderError where the search failed, which may be the text's fault or
    the finder's own. Neither quotes the text.

    Raises:
        ConfigError: the finder does not exist, or ``datafog-core`` is not installed.

    """
    if spec.masking is None:
        return None
    return _made(msgspec.json.encode(spec.masking), spec.payload, spec.source, spec.task == "tagging")


def known_search(spec: Spec) -> str | None:
    """A digest of what a workload's payloads are searched by: with the same one, what was masked stays as it is.

    None where that is not known: nothing is searched, or a finder's code lies beside a spec that is read from a file.
    """
    if spec.masking is None or (spec.masking.finder is not None and spec.bundle is None):
        return None
    try:
        rules = metadata.version(RULES)
    except metadata.PackageNotFoundError:
        rules = ""
    code = spec.bundle if spec.masking.finder is not None else None
    return digest_of(msgspec.json.encode([spec.masking, spec.payload, spec.task == "tagging", rules, code]))


def masked_input(spec: Spec, entry: Input) -> Input:
    """An input with its payload masked, where the spec asks for that.

    Raises:
        RecordError, FinderError, ConfigError: as for :func:`masker`.

    """
    mask = masker(spec)
    if mask is None:
        return entry
    payload = mask(entry.payload).payload
    return entry if payload == entry.payload else msgspec.structs.replace(entry, payload=payload)


def masked_record(spec: Spec, record: Record) -> tuple[Record, RecordError | None]:
    """The record of an input that a producer may have written unmasked, masked.

    Where it cannot be, it has no bytes, and the error says why: neither a label nor a dead letter keeps what was found,
    or what could not be searched.

    Raises:
        FinderError: the search failed, which may be the finder's fault.

    """
    if spec.masking is None or not record.value:
        return record, None
    try:
        entry = input_in(record.value)
        found = masked_input(spec, entry)
    except RecordError as error:
        return record._replace(value=b""), error
    return (record if found is entry else record._replace(value=encode(found))), None


def probe(spec: Spec) -> None:
    """See that the search works on a text that is nobody's.

    Raises:
        FinderError: it does not.

    """
    if spec.masking is not None:
        keeps = spec.task == "tagging"
        _text(msgspec.json.encode(spec.masking), spec.source, keeps).whole("a text that is nobody's")


def blamed(spec: Spec, error: FinderError, failures: int, tries: int = TRIES) -> RecordError | None:
    """Why a text is refused on which the finder just failed; None where that was not yet ``tries`` times.

    ``failures``: how often, this one included.

    Raises:
        FinderError: the finder fails on another text, too: nothing counts against this one.

    """
    probe(spec)
    if failures < tries:
        return None
    return RecordError("mask_failed", f"the finder works on others, and of this one: {error.remedy}")


def searched(spec: Spec, search: Callable[[], T], tries: int = TRIES) -> T:
    """What a search gives that is made again where it fails, until who is to blame is known.

    Raises:
        RecordError: what the search raises; ``mask_failed`` where the finder fails on this text alone.
        FinderError: the finder fails.

    """
    failures, refusal = 0, None
    while refusal is None:
        try:
            return search()
        except FinderError as error:
            failures += 1
            refusal = blamed(spec, error, failures, tries)
    raise refusal


def placeholders(spec: Spec, payloads: Iterable[bytes]) -> dict[str, int]:
    """How many placeholders of each kind stand in payloads; what callers wrote themselves counts, too."""
    if spec.masking is None:
        return {}
    kinds, keeps, counts = frozenset(spec.masking.entities), spec.task == "tagging", Counter[str]()
    for payload in payloads:
        names = [name.decode() for name in NAMED.findall(payload)]
        counts.update(_kind_of(name, kinds) if keeps else name for name in names)
    return {kind: n for kind, n in sorted(counts.items()) if kind in kinds}


def kept_length(kind: str, length: int, kinds: Collection[str]) -> str:
    """What stands for a piece of so many characters, as long as it: its placeholder with ``_`` behind the kind.

    A longer placeholder is cut, if :data:`LEAST` letters of the kind are left or more, and are none of the others'
    among ``kinds``; else all is ``_``.

    >>> kept_length("EMAIL", 10, ["EMAIL"]), kept_length("EMAIL", 5, ["EMAIL"]), kept_length("EMAIL", 4, ["EMAIL"])
    ('[EMAIL___]', '[EMA]', '____')
    """
    name = kind.ljust(length - 2, "_")[: max(0, length - 2)]
    return f"[{name}]" if _kind_of(name, kinds) == kind else "_" * length


def _kind_of(name: str, kinds: Collection[str]) -> str:
    """The kind that a placeholder of :func:`kept_length` is of, empty where that is not known."""
    whole = [kind for kind in kinds if name.startswith(kind) and not name[len(kind) :].strip("_")]
    cut = [kind for kind in kinds if len(name) >= LEAST and kind.startswith(name)]
    if whole:
        return max(whole, key=len)
    return cut[0] if len(cut) == 1 else ""


@lru_cache(maxsize=64)
def _made(masking: bytes, payload: Payload, source: str, keeps: bool) -> Mask:
    wanted = msgspec.json.decode(masking, type=Masking)
    text, read = _text(masking, source, keeps), decoder(payload, source)
    return (lambda given: text.whole(read(given))) if payload.decoder == "text" else _Json(wanted, text, read).of_bytes


@lru_cache(maxsize=64)
def _text(masking: bytes, source: str, keeps: bool) -> _Text:
    return _Text(msgspec.json.decode(masking, type=Masking), source, keeps)


class _Text:
    """Masks texts; ``keeps``: without changing the place of what is left."""

    def __init__(self, wanted: Masking, source: str, keeps: bool) -> None:
        self._kinds, self._keeps = frozenset(wanted.entities), keeps
        self._name = wanted.finder.factory if wanted.finder is not None else RULES
        rules = [k for k in wanted.entities if k in KINDS and k != "IP_ADDRESS"]
        self._finders: list[Find] = [_rules(rules)] if rules else []
        if "IP_ADDRESS" in wanted.entities:
            self._finders.append(_addresses)
        if wanted.finder is not None:
            self._finders.append(Finder(wanted.finder, source, wanted.finder_seconds))

    def whole(self, text: str) -> Masked:
        """A payload that is text."""
        counts = Counter[str]()
        return Masked(self.of(text, counts).encode(), counts)

    def of(self, text: str, counts: Counter[str]) -> str:
        """A text, masked until nothing more is found; what was found is counted."""
        searches = 0
        while spans := self._spans(text):
            if searches == ROUNDS:
                more = f"there is more to find after {ROUNDS} searches: pieces that run into each other, or a finder "
                raise RecordError("mask_failed", f"{more}that finds placeholders")
            counts.update(kind for kind, _, _ in spans)
            text, searches = self._replaced(text, spans), searches + 1
        return text

    def _spans(self, text: str) -> list[Found]:
        """What is found, in order; pieces that overlap are one, of the kind of the longest."""
        found: list[Found] = []
        for find in self._finders:
            try:
                found += [Found(str(k), int(a), int(b)) for k, a, b in find(text) if k in self._kinds]
            except FinderError:
                raise
            except Exception as error:  # whatever the rules raise: the text is not kept, and is not quoted either
                raise FinderError(RULES, f"the search raised {type(error).__name__}") from None
        if any(not 0 <= f.start < f.end <= len(text) for f in found):
            raise FinderError(self._name, "gave a place that is not in the text")
        parted: list[Found] = []
        for one in sorted(found, key=lambda f: (f.start, -f.end)):
            if not parted or one.start >= parted[-1].end:
                parted.append(one)
            elif one.end > parted[-1].end:
                last = parted[-1]
                longest = max(last, one, key=lambda f: f.end - f.start)
                parted[-1] = Found(longest.kind, last.start, one.end)
        return parted

    def _replaced(self, text: str, spans: Iterable[Found]) -> str:
        pieces, at = [], 0
        for kind, start, end in spans:
            pieces += [text[at:start], kept_length(kind, end - start, self._kinds) if self._keeps else f"[{kind}]"]
            at = end
        return "".join([*pieces, text[at:]])


class _Json:
    """Masks the texts of JSON values, which are written out again, so that no text hides behind an equal name."""

    def __init__(self, wanted: Masking, text: _Text, read: Decode) -> None:
        self._columns, self._text, self._read = frozenset(wanted.columns), text, read

    def of_bytes(self, payload: bytes) -> Masked:
        counts = Counter[str]()
        value = self._read(payload)
        try:
            return Masked(json_bytes(self._top(value, counts)), counts, self._there(value))
        except (RecursionError, ValueError) as error:
            raise RecordError("mask_failed", f"the JSON cannot be searched: {type(error).__name__}") from None

    def _there(self, value: Any) -> frozenset[str]:
        rows = value if isinstance(value, list) else [value]
        return frozenset(name for row in rows if isinstance(row, dict) for name in self._columns & row.keys())

    def _top(self, value: Any, counts: Counter[str]) -> Any:
        if not self._columns:
            return self._deep(value, counts)
        if isinstance(value, list):
            return [self._row(one, counts) for one in value]
        return self._row(value, counts)

    def _row(self, value: Any, counts: Counter[str]) -> Any:
        if not isinstance(value, dict):
            wanted = "masking.columns names fields: the payload must be an object, or a list of objects"
            raise RecordError("mask_failed", wanted)
        return {name: self._deep(v, counts) if name in self._columns else v for name, v in value.items()}

    def _deep(self, value: Any, counts: Counter[str]) -> Any:
        if isinstance(value, str):
            return self._text.of(value, counts)
        if isinstance(value, dict):
            return {name: self._deep(one, counts) for name, one in value.items()}
        return [self._deep(one, counts) for one in value] if isinstance(value, list) else value


def _addresses(text: str) -> Iterable[tuple[str, int, int]]:
    """IP addresses (RFC 791, RFC 4291), by a search that is linear in the text: what ``ipaddress`` takes for one.

    Each stands by itself, with or without a port and the full stop of a sentence; of IPv6 it has two groups or more, as
    ``::`` alone is an operator, or a line that somebody drew.
    """
    for found in ADDRESS.finditer(text):
        start, piece = found.start(), found[0].rstrip(".:") if found[0].count(":") < 2 else found[0].rstrip(".")
        for given in (piece, piece.rpartition(":")[0]):
            if len(given) <= LONGEST and len(re.findall(r"[0-9A-Fa-f]+", given)) > 1:
                try:
                    ipaddress.ip_address(given)
                except ValueError:
                    continue
                yield "IP_ADDRESS", start, start + len(given)
                break


def _rules(kinds: list[str]) -> Find:
    """What ``datafog-core`` finds of these kinds by its rules."""
    try:
        import datafog_core
    except ModuleNotFoundError as error:
        remedy = "needs the package datafog-core: pip install 'cohobate[masking]'"
        raise ConfigError("masking.entities", kinds, remedy) from error
    wanted: Any = {"entities": kinds}
    if any(kind.startswith("DE_") for kind in kinds):
        wanted["locale"] = "de"

    def find(text: str) -> Iterable[tuple[str, int, int]]:
        found = datafog_core.scan(text, wanted)
        return [(f.entity_type, f.codepoint_range.start, f.codepoint_range.end) for f in found]

    return find
