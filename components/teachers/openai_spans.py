"""A teacher of spans behind the OpenAI chat-completions form: the mentions of a text, each with its kind, as JSON.

The answer is asked for as structured output (``response_format`` of the type ``json_schema``): a list of mentions, each
as it is written in the text, in its order, with a kind of the enumeration. A model cannot count characters, so that
places are found here (:func:`places_of`). Where the value of a kind begins, the probabilities of the tokens there are
its own: how the model would divide this mention among the kinds. Of what it did not name it tells nothing: that is in
no span for certain, and whoever needs doubt there takes a token classifier.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect, bisect_left, insort
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal

import msgspec

from components.contracts.errors import ConfigError, RecordError, TeacherError
from components.contracts.records import OUTSIDE, SoftLabel, Task, Token
from components.contracts.spec import class_names
from components.contracts.tagging import Place, aligned
from components.student.tagging import TOKEN
from components.teachers import logprobs
from components.teachers.contract import Outcome, identity_digest
from components.teachers.logprobs import Position, class_mass
from components.teachers.openai_chat import ChatTeacher, Completion

SYSTEM = (
    "Find all mentions of these kinds in the input: {kinds}. Answer with a JSON object that lists them in the order of "
    "the text, one that occurs several times as often as it does, each exactly as it is written there and with its "
    "kind. Mentions do not overlap. Where there is none the list is empty."
)

BLANK = b" \t\r\n"
"""What JSON allows between its parts."""

LITERAL = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
"""A text of JSON."""

NAMING = re.compile(rb"[ \t\r\n]*:")
"""What stands behind a text that is a key."""


class _Mention(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    label: str


class _Mentions(msgspec.Struct, forbid_unknown_fields=True):
    entities: list[_Mention]


class ChatSpanTeacher(ChatTeacher):
    """A chat model that finds spans in texts.

    ``kinds``: of spans; its tags are ``O``, and ``B-`` and ``I-`` of each. ``system`` may have ``{kinds}``. The other
    options are those of :class:`components.teachers.openai_chat.ChatTeacher` but ``answers`` and ``case_sensitive``.
    ``max_tokens``: of the whole answer. An answer that was cut off, that names what is not in the text or another kind,
    or has more than ``max_outside`` of the probability of a kind outside the kinds, is a dead letter of its input, or
    with ``on_outside: error`` an error. Text behind ``max_characters`` is in no span.

    Raises:
        ConfigError: an option is wrong.
        UnavailableError: the server does not answer.
        TeacherError: it reports no ``logprobs``.

    """

    task: Task = "tagging"

    def __init__(
        self,
        url: str,
        model: str,
        space: str,
        kinds: Sequence[str],
        *,
        system: str = SYSTEM,
        max_tokens: int = 1_024,
        on_outside: Literal["error", "letter"] = "letter",
        body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.kinds = class_names(kinds, "kinds")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ConfigError("kinds", self.kinds, "must be different names of kinds of spans, at least one")
        for kind in self.kinds:
            if kind == OUTSIDE or json.dumps(kind, ensure_ascii=False) != f'"{kind}"':
                allowed = f"is no name of a kind of span: not {OUTSIDE}, and without quotes, backslashes and line ends"
                raise ConfigError("kinds", kind, allowed)
        ended = {kind: f'{kind}"' for kind in self.kinds}  # PERCENT begins with PER, and is not it
        self._written = logprobs.answers(self.kinds, ended, case_sensitive=True)
        self._left_out = 0
        super().__init__(
            url, model, space, [OUTSIDE, *(f"{mark}-{kind}" for kind in self.kinds for mark in "BI")],
            system=system.replace("{kinds}", ", ".join(self.kinds)), max_tokens=max_tokens, on_outside=on_outside,
            body={"response_format": schema(self.kinds)} | dict(body or {}), case_sensitive=True, **options,
        )  # fmt: skip
        self.digest = identity_digest({"kind": "openai_spans", "kinds": list(self.kinds), "of": self.digest})

    def _soft(self, completion: Completion, text: str) -> Outcome:
        positions, seen = self._positions(completion), text[: self._max_characters]
        choice = completion.choices[0]
        written = (choice.message.content if choice.message else None) or ""  # tokens may have an end of their own
        if choice.finish_reason == "length":
            return self._unreadable("was cut off: raise max_tokens")
        try:
            mentions = msgspec.json.decode(written, type=_Mentions).entities
            shares = [class_mass(some, self._written, case_sensitive=True) for some in values(positions, "label")]
            if len(shares) != len(mentions):
                raise ValueError(f"{len(shares)} kinds of {len(mentions)} mentions")
        except (msgspec.MsgspecError, ValueError) as error:
            detail = f"answered no list of mentions, {written!r:.200}: {error}"
            raise TeacherError(self.name, f"{detail}; use a server that keeps to response_format") from error
        worst = max((1.0 - math.fsum(mass.values()) for mass in shares), default=0.0)
        self._note_outside(max(0.0, worst))
        other = next((m.label for m in mentions if m.label not in self.kinds), None)
        if other is not None:
            return self._unreadable(
                f"names the kind {other!r:.80}, which is none of {', '.join(self.kinds)}: use a server that keeps to "
                "response_format"
            )
        if worst > self.max_outside:
            return self._unreadable(
                f"puts {worst:.3f} of the probability of a kind outside {', '.join(self.kinds)} (max_outside is "
                f"{self.max_outside}): use a server that keeps to response_format"
            )
        try:
            places = places_of(seen, [m.text for m in mentions])
        except ValueError as error:
            return self._unreadable(str(error))
        with self._lock:
            self._left_out += places.count(None)
        found = sorted(
            ((place, mass) for place, mass in zip(places, shares, strict=True) if place is not None),
            key=lambda one: one[0],
        )
        return _by_word(self.space, seen, found)

    def state(self) -> dict[str, Any]:
        """The chat teacher's, with the mentions that found no place of their own in their text."""
        with self._lock:
            left_out = self._left_out
        return super().state() | {"left_out_total": left_out}

    def _unreadable(self, detail: str) -> RecordError:
        if self.on_outside == "error":
            raise TeacherError(self.name, detail)
        return RecordError("unreadable_answer", f"teacher {self.name} {detail}")


def schema(kinds: Sequence[str]) -> dict[str, Any]:
    """The form of an answer, as structured outputs want it: https://platform.openai.com/docs/guides/structured-outputs.

    >>> schema(["PER"])["json_schema"]["schema"]["properties"]["entities"]["items"]["properties"]
    {'text': {'type': 'string'}, 'label': {'type': 'string', 'enum': ['PER']}}
    """

    def form(**properties: Any) -> dict[str, Any]:
        required = list(properties)
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    mention = form(text={"type": "string"}, label={"type": "string", "enum": list(kinds)})
    whole = form(entities={"type": "array", "items": mention})
    return {"type": "json_schema", "json_schema": {"name": "mentions", "strict": True, "schema": whole}}


def places_of(text: str, mentions: Sequence[str]) -> list[Place | None]:
    """Where mentions stand in a text, each by the first of its occurrences that is free.

    They are looked for behind the mention before, then from the beginning; as whole words, where it occurs as such,
    and with any space where it has one; one that is a part of others after all of those. None: it occurs only where
    other mentions are, or is named once more than it occurs.

    >>> places_of("Ann reads Ann's annual report", ["Ann", "Ann", "report"])
    [(0, 3), (10, 13), (23, 29)]

    Raises:
        ValueError: one does not occur in the text.

    """
    names = [" ".join(mention.split()) for mention in mentions]
    free = _occurrences(text, mentions)
    around = {name: sum(name != other and name in other for other in free) for name in free}
    found: list[Place | None] = [None] * len(names)
    taken: list[Place] = []
    placed: list[int] = []
    for i in sorted(range(len(names)), key=lambda i: around[names[i]]):
        before = bisect(placed, i)
        behind = (found[placed[before - 1]] or (0, 0))[1] if before else 0
        found[i] = place = _first_free(free[names[i]], taken, behind)
        if place is None:
            free[names[i]] = []  # nor will there be one
        else:
            insort(taken, place)
            insort(placed, i)
    return found


def _occurrences(text: str, mentions: Sequence[str]) -> dict[str, list[Place]]:
    """Where each of the mentions, named with single spaces, occurs: as whole words, where there are such."""
    words = [m.span() for m in TOKEN.finditer(text)]
    starts, ends = {start for start, _ in words}, {end for _, end in words}
    found: dict[str, list[Place]] = {}
    for mention in dict.fromkeys(mentions):
        parts = mention.split()
        written = r"\s+".join(map(re.escape, parts))
        every = [m.span(1) for m in re.finditer(f"(?=({written}))", text)] if written else []
        if not every:
            raise ValueError(f"names {mention!r:.80}, which is not in the text")
        found[" ".join(parts)] = [place for place in every if place[0] in starts and place[1] in ends] or every
    return found


def _first_free(places: Sequence[Place], taken: Sequence[Place], behind: int) -> Place | None:
    """The first of the places from ``behind`` on, else of all, that shares nothing with those that are taken."""
    at = bisect_left(places, (behind, 0))
    for place in chain(islice(places, at, None), islice(places, at)):
        after = bisect(taken, place)
        clear = after == len(taken) or place[1] <= taken[after][0]
        if clear and (not after or taken[after - 1][1] <= place[0]):
            return place
    return None


def values(positions: Sequence[Position], key: str) -> list[list[Position]]:
    """Of each value of a ``key`` in a JSON of objects of texts the positions from where the text begins.

    What the first token has of the JSON before it is left out, of it and of the candidates in its place; candidates
    that begin otherwise are left out whole.
    """
    starts, written = [], b""
    for position in positions:
        starts.append(len(written))
        written += position.taken.raw
    found, before, wanted = [], b"", json.dumps(key).encode()
    for literal in LITERAL.finditer(written):
        is_key = NAMING.match(written, literal.end()) is not None
        if before == wanted and not is_key:
            place = max(i for i, start in enumerate(starts) if start <= literal.start() + 1)
            led = written[starts[place] : literal.start() + 1]
            found.append([_without(led, positions[place]), *positions[place + 1 :]])
        before = literal[0] if is_key else b""
    return found


def _without(led: bytes, position: Position) -> Position:
    """A position without what its tokens begin with, ``led``."""

    def rest(token: logprobs.Token) -> logprobs.Token | None:
        raw, begun = (token.raw.lstrip(BLANK), led.lstrip(BLANK)) if led else (token.raw, led)
        if not raw.startswith(begun):
            return None
        cut = raw[len(begun) :]
        return logprobs.Token(cut.decode(errors="replace"), token.logprob, list(cut))

    taken = rest(position.taken) or position.taken
    others = [one for one in map(rest, position.top_logprobs or ()) if one is not None]
    return Position(token=taken.token, logprob=taken.logprob, utf8=taken.utf8, top_logprobs=others)


def _by_word(space: str, text: str, found: Sequence[tuple[Place, Mapping[str, float]]]) -> SoftLabel:
    """The soft label of a text's words; ``found``: mentions in the order of the text, with the kinds' probabilities."""
    spans = []
    for (start, end), mass in found:
        inside = math.fsum(mass.values())
        kinds = {f"B-{kind}": p / inside for kind, p in mass.items() if p > 0.0}
        spans.append(Token(start=start, end=end, distribution=kinds))
    mentions = SoftLabel(task="tagging", space=space, tokens=tuple(spans))
    places = [m.span() for m in TOKEN.finditer(text)]
    words = [
        Token(start=start, end=end, distribution=dict(shares))
        for (start, end), shares in zip(places, aligned(mentions, places), strict=True)
    ]
    return SoftLabel(task="tagging", space=space, tokens=tuple(words))
