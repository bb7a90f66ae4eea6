"""A teacher of sets of classes behind the OpenAI chat-completions form: one boolean for each class, in a JSON object.

The answer is asked for as structured output (``response_format`` of the type ``json_schema``): an object with a
required boolean for each class and nothing else. Where the value of a class begins, the probabilities of the tokens
that begin ``true`` and ``false`` there are its own: the chance that the input has the class, given what was said of the
classes before it. An array of the classes that it has would show only the chance of those that were named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from components.contracts.errors import RecordError, TeacherError
from components.contracts.records import SoftLabel, Task
from components.teachers.contract import Outcome, identity_digest
from components.teachers.logprobs import Position
from components.teachers.openai_chat import ChatTeacher, Completion

SYSTEM = (
    "Say for each of these classes whether the input has it; it may have several, or none. Answer with a JSON object "
    "that has a boolean for each class, and with nothing else: {classes}"
)

SPARE_TOKENS = 8
"""Of an answer, beside its classes: braces, spaces, an end."""

BLANK = b" \t\r\n"
"""What JSON allows between its parts."""


class ChatSetTeacher(ChatTeacher):
    """A chat model that says which classes a text has.

    Options are those of :class:`components.teachers.openai_chat.ChatTeacher` but ``answers`` and ``case_sensitive``.
    ``max_outside``: probability outside ``true`` and ``false`` at any class from which an answer is an error, or, with
    ``on_outside: letter``, a dead letter. ``max_tokens``: of the whole object; left out: enough for it.

    Raises:
        ConfigError: an option is wrong.
        UnavailableError: the server does not answer.
        TeacherError: it reports no ``logprobs``.

    """

    task: Task = "multilabel"

    def __init__(
        self,
        url: str,
        model: str,
        space: str,
        classes: Sequence[str],
        *,
        system: str = SYSTEM,
        max_tokens: int | None = None,
        body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        names = [str(name) for name in classes]
        longest = sum(len(json.dumps(name).encode()) + SPARE_TOKENS for name in names) + SPARE_TOKENS
        wanted = {"response_format": schema(names)} | dict(body or {})
        super().__init__(
            url, model, space, classes, system=system, max_tokens=max_tokens or longest, body=wanted,
            case_sensitive=True, **options,
        )  # fmt: skip
        self.digest = identity_digest({"kind": "openai_sets", "of": self.digest})

    def _soft(self, completion: Completion, text: str) -> Outcome:
        try:
            found = chances(self._positions(completion), self.classes)
        except ValueError as error:
            cut = "it was cut off, raise max_tokens: " if completion.choices[0].finish_reason == "length" else ""
            raise TeacherError(self.name, f"answered no object of booleans: {cut}{error}") from error
        outside = max(1.0 - has - lacks for has, lacks in found)
        self._note_outside(outside)
        if outside > self.max_outside:
            worst = min(range(len(found)), key=lambda i: sum(found[i]))
            detail = (
                f"puts {outside:.3f} of its probability of {self.classes[worst]!r} outside true and false (max_outside "
                f"is {self.max_outside}): use a server that keeps to response_format"
            )
            if self.on_outside == "error":
                raise TeacherError(self.name, detail)
            return RecordError("outside_classes", f"teacher {self.name} {detail}")
        return SoftLabel.multilabel(self.space, self.classes, [has / (has + lacks) for has, lacks in found])


def schema(classes: Sequence[str]) -> dict[str, Any]:
    """The form of an answer, as structured outputs want it: https://platform.openai.com/docs/guides/structured-outputs.

    >>> schema(["a"])["json_schema"]["schema"]["properties"]
    {'a': {'type': 'boolean'}}
    """
    form = {
        "type": "object",
        "properties": {name: {"type": "boolean"} for name in classes},
        "required": list(classes),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "classes", "strict": True, "schema": form}}


def chances(positions: Sequence[Position], classes: Sequence[str]) -> list[tuple[float, float]]:
    """The probabilities of ``true`` and of ``false`` at the value of each class.

    Raises:
        ValueError: the answer has no value of a class, or a position's probabilities are none.

    """
    starts, written = [], b""
    for position in positions:
        starts.append(len(written))
        written += position.taken.raw
    found = []
    for name in classes:
        value = _value(written, name)
        place = max(i for i, start in enumerate(starts) if start <= value)
        before = written[starts[place] : value].rstrip(BLANK)  # what the token has of the key before it
        has = lacks = 0.0
        for raw, probability in positions[place].candidates().items():
            rest = raw.lstrip(BLANK) if not before else raw
            if not rest.startswith(before):
                continue
            begun = rest[len(before) :].lstrip(BLANK)
            has += probability * begun.startswith(b"t")
            lacks += probability * begun.startswith(b"f")
        if has + lacks <= 0.0:
            raise ValueError(f"{name!r} has the value {written[value : value + 20]!r}, and no boolean was likely there")
        found.append((has, lacks))
    return found


def _value(written: bytes, name: str) -> int:
    """Where the value of a class begins."""
    for key in (json.dumps(name, ensure_ascii=False).encode(), json.dumps(name).encode()):
        if (match := re.search(re.escape(key) + rb"\s*:\s*(?=\S)", written)) is not None:
            return match.end()
    raise ValueError(f"{written.decode(errors='replace')!r:.200} says nothing of {name!r}")
