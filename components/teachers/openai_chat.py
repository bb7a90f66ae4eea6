"""A teacher behind the OpenAI chat-completions form (OpenAI, vLLM, llama.cpp, SGLang, TGI, ...): its token
probabilities become a distribution over the classes, see :mod:`components.teachers.logprobs`.
"""  # noqa: D205

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from components.contracts.errors import ConfigError, RecordError, TeacherError
from components.contracts.records import SoftLabel, Task
from components.contracts.spec import class_names
from components.teachers import logprobs
from components.teachers.contract import Outcome, TeacherChangedError, check_texts, identity_digest, soft_labels
from components.teachers.http import Endpoint, Http, RefusedError, Remote
from components.teachers.logprobs import Position, class_mass

SYSTEM = "You are a classifier. Answer with exactly one of these words and nothing else: {classes}"
PROMPT = "{text}"

PROBE = "This is a test."
"""The text of the call at start, which finds out what the server reports of itself."""

WRITE = (
    "You write realistic inputs for a text classifier with the classes {classes}. Answer with a JSON array of strings "
    "and nothing else."
)
ASK = (
    "Write {count} different inputs of the class {kind}, each as a user would send it, of different length and wording."
)
"""The messages that ask for examples of a class."""

EXAMPLE_TOKENS = 80
"""How long an example that is asked for may be, on average."""

TOP_LOGPROBS = 20
"""The most that OpenAI reports; servers of one's own may report more."""

CHARACTERS_PER_TOKEN = 3
"""For the estimate before a request: English has four, code and other languages less."""

OVERHEAD_TOKENS = 16
"""Roles and separators around a system and a user message: three or four tokens each, and some for the answer's."""

LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
"""What servers call the limit of an answer's length. OpenAI's newer models refuse the first with 400 and an error that
names the second; many other servers know the first alone."""

FILTERED = "content_filter"
"""Why an answer ended that a server's filter cut off."""

INPUT_STATUS = (400, 413, 422)
"""Codes by which a server refuses the input (too long, filtered), not the caller."""


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _LogProbs(msgspec.Struct):
    content: list[Position] | None = None


class _Choice(msgspec.Struct):
    logprobs: _LogProbs | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(msgspec.Struct):
    """A server's answer."""

    model: str
    choices: list[_Choice]
    system_fingerprint: str | None = None
    usage: _Usage | None = None

    @property
    def refused(self) -> str:
        """Why this answer is none, which the model or a filter kept back; empty where neither did."""
        for choice in self.choices:
            if choice.message is not None and choice.message.refusal:
                return f"refused to answer: {choice.message.refusal:.200}"
            if choice.finish_reason == FILTERED:
                return f"has its answer cut off by a filter (finish_reason {FILTERED})"
        return ""


class ChatTeacher(Remote):
    """A chat model as a classifier of texts.

    ``url`` up to and with ``/v1``; ``model`` as the server names it. ``system`` and ``prompt`` are the messages;
    ``{classes}`` and ``{text}`` in them are replaced, other braces are left alone. ``answers`` maps classes to what the
    model shall write for them where that is not the name: short words that begin with different tokens are best.
    ``max_outside``: probability outside the classes from which an answer is an error, or, with ``on_outside: letter``,
    a dead letter for that one input. ``max_tokens``: how far an answer is followed where first tokens are shared.
    The latter is sent under this name, or as ``max_completion_tokens`` where ``body`` has that or the server asks for
    it. ``max_characters``: where a text is cut. ``body``: more fields of the request (``seed``,
    ``chat_template_kwargs``).
    ``pin_fingerprint``: whether ``system_fingerprint`` is part of the digest; servers behind a balancer may report
    several. ``on_change``: ``error`` labels nothing once the server reports another model or fingerprint;
    ``report`` goes on and shows it in :attr:`changed`, so that the caller can quarantine. Prices per million tokens, in
    any one currency. ``http``: see :class:`components.teachers.http.Http`.

    The digest covers the model and fingerprint that the server reports, the messages, the label space, and all options
    that decide an answer; the URL is not part of it.

    Raises:
        ConfigError: an option is wrong.
        UnavailableError: the server does not answer.
        TeacherError: it reports no ``logprobs``.

    """

    task: Task = "classification"

    def __init__(
        self,
        url: str,
        model: str,
        space: str,
        classes: Sequence[str],
        *,
        system: str = SYSTEM,
        prompt: str = PROMPT,
        answers: Mapping[str, str] | None = None,
        case_sensitive: bool = False,
        max_outside: float = 0.1,
        on_outside: Literal["error", "letter"] = "error",
        max_tokens: int = 4,
        top_logprobs: int = TOP_LOGPROBS,
        max_characters: int = 20_000,
        body: Mapping[str, Any] | None = None,
        name: str = "",
        size_bytes: int = 0,
        pin_fingerprint: bool = True,
        on_change: Literal["error", "report"] = "error",
        price_per_million_prompt_tokens: float = 0.0,
        price_per_million_answer_tokens: float = 0.0,
        http: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.space, self.classes, self.size_bytes = name or model, space, class_names(classes), size_bytes
        self.max_outside, self.on_outside, self.on_change = max_outside, on_outside, on_change
        self._case_sensitive, self._max_characters, self._pinned = case_sensitive, max_characters, pin_fingerprint
        self._prices = price_per_million_prompt_tokens, price_per_million_answer_tokens
        self._prompt = prompt
        self._check_options()
        self._answers = logprobs.answers(self.classes, answers or {}, case_sensitive)
        self._system = system.replace("{classes}", ", ".join((answers or {}).get(c, c) for c in self.classes))
        self._fields = {
            "model": model, "temperature": 0, "max_tokens": max_tokens, "n": 1, "stream": False, "logprobs": True,
            "top_logprobs": top_logprobs, **(body or {}),
        }  # fmt: skip
        if LIMIT_FIELDS[1] in self._fields:
            del self._fields[LIMIT_FIELDS[0]]
        self._limit_field = next(name for name in LIMIT_FIELDS if name in self._fields)
        self._max_tokens = int(self._fields[self._limit_field])
        self._endpoint = Endpoint(self.name, url, Http.of(http))
        self._lock = threading.Lock()
        self._used = {"prompt_tokens": 0, "answer_tokens": 0, "outside": 0}
        self.outside_mass = 0.0
        self.changed: dict[str, Any] | None = None
        self.reported = self._start()
        self.digest = identity_digest(
            {
                "kind": "openai_chat", "reported": self.reported, "system": self._system, "prompt": prompt,
                "answers": self._answers, "case_sensitive": case_sensitive, "max_characters": max_characters,
                "fields": self._fields, "space": space, "classes": list(self.classes),
            }
        )  # fmt: skip

    def _check_options(self) -> None:
        if "{text}" not in self._prompt:
            raise ConfigError("prompt", self._prompt, "must have {text} where the input goes")
        if len(set(self.classes)) < 2:
            raise ConfigError("classes", self.classes, "must be at least two different names")
        for field, value, allowed in (
            ("on_outside", self.on_outside, ("error", "letter")),
            ("on_change", self.on_change, ("error", "report")),
        ):
            if value not in allowed:
                raise ConfigError(field, value, f"must be one of {', '.join(allowed)}")
        if not 0 <= self.max_outside < 1:
            raise ConfigError("max_outside", self.max_outside, "must be at least 0 and below 1")

    def label(self, payloads: Sequence[str]) -> list[SoftLabel]:
        """Soft labels of texts.

        Raises:
            TeacherError: an answer is not a distribution over the classes, or the server refuses an input.
            TeacherChangedError: the server reports another model or fingerprint.
            UnavailableError: the server does not answer.

        """
        return soft_labels(self.name, self.outcomes(payloads))

    def outcomes(self, payloads: Sequence[str]) -> list[Outcome]:
        """As :meth:`label`, with a dead letter for an input that the server refuses.

        Its reasons: ``teacher_refused`` (too long, filtered, declined by the model), ``outside_classes`` (with
        ``on_outside: letter``).
        """
        check_texts(self.name, payloads)
        return self._endpoint.each(self._outcome, payloads)

    def examples(self, kind: str, count: int, seed: int) -> list[str]:
        """See :func:`components.teachers.contract.examples`: one request, answered at temperature 1.

        Raises:
            TeacherError: the answer is no JSON array of texts.

        """
        classes = ", ".join(self.classes)
        messages = [
            {"role": "system", "content": WRITE.replace("{classes}", classes)},
            {"role": "user", "content": ASK.replace("{count}", str(count)).replace("{kind}", kind)},
        ]
        fields = {"temperature": 1, "seed": seed, self._limit_field: EXAMPLE_TOKENS * count}
        try:
            completion = self._completion(messages, fields)
        except RefusedError as error:
            raise TeacherError(self.name, f"refuses to write examples of {kind}: {error.detail}") from error
        if completion.refused:
            raise TeacherError(self.name, f"was asked for examples of {kind} and {completion.refused}")
        if len(completion.choices) != 1:
            raise TeacherError(self.name, f"answered {len(completion.choices)} choices, not one: remove n from body")
        choice = completion.choices[0]
        text = (choice.message.content if choice.message else None) or ""
        try:
            found = msgspec.json.decode(text.strip(), type=list[str])
        except msgspec.MsgspecError as error:
            cut = "it was cut off: " if choice.finish_reason == "length" else ""
            detail = (
                f"was asked for examples of {kind} as a JSON array of strings and answered {text!r:.200} "
                f"({cut}{error}): take a larger model, or student.data_free.method: search or noise"
            )
            raise TeacherError(self.name, detail) from error
        return [text for text in (t.strip()[: self._max_characters] for t in found) if text]

    def cost(self, payloads: Sequence[str]) -> float:
        """The most that labelling these can cost: a token has at least one byte."""
        prompt_price, answer_price = self._prices
        most = sum(len(json.dumps(self._messages(p), ensure_ascii=False).encode()) + OVERHEAD_TOKENS for p in payloads)
        longest = len(payloads) * self._max_tokens
        return (most * prompt_price + longest * answer_price) / 1e6

    def state(self) -> dict[str, Any]:
        """The endpoint's state with tokens, money spent, the largest mass outside the classes, and the identity."""
        with self._lock:
            prompt_price, answer_price = self._prices
            spent = (self._used["prompt_tokens"] * prompt_price + self._used["answer_tokens"] * answer_price) / 1e6
            return self._endpoint.state() | {
                "prompt_tokens_total": self._used["prompt_tokens"],
                "answer_tokens_total": self._used["answer_tokens"],
                "outside_total": self._used["outside"],
                "outside_mass": self.outside_mass,
                "spent_total": spent,
                "reported": dict(self.reported),
                "changed": self.changed,
            }

    def _start(self) -> dict[str, Any]:
        """What the server reports of itself, and whether it reports ``logprobs`` at all."""
        with self._endpoint.closed_on_error():
            completion = self._complete(PROBE)
            self._positions(completion)
            return self._reported(completion)

    def _outcome(self, text: str) -> Outcome:
        try:
            completion = self._complete(text)
        except RefusedError as error:
            if error.status not in INPUT_STATUS:
                raise
            return RecordError("teacher_refused", error.detail)
        self._compare(self._reported(completion))
        if completion.refused:
            return RecordError("teacher_refused", f"teacher {self.name} {completion.refused}")
        return self._soft(completion, text)

    def _soft(self, completion: Completion, text: str) -> Outcome:
        """What an answer says of its input, a text."""
        try:
            mass = class_mass(self._positions(completion), self._answers, self._case_sensitive)
        except ValueError as error:
            raise TeacherError(self.name, f"answered log probabilities that are none: {error}") from error
        inside = math.fsum(mass.values())
        outside = max(0.0, 1.0 - inside)
        self._note_outside(outside)
        if outside > self.max_outside:
            return self._too_far_outside(outside, completion)
        return SoftLabel.of(self.space, self.classes, [mass[c] / inside for c in self.classes])

    def _note_outside(self, outside: float) -> None:
        with self._lock:
            self.outside_mass = max(self.outside_mass, outside)
            self._used["outside"] += outside > self.max_outside

    def _too_far_outside(self, outside: float, completion: Completion) -> RecordError:
        first = self._positions(completion)[0]
        detail = (
            f"puts {outside:.3f} of its probability outside the classes (max_outside is {self.max_outside}); it began "
            f"with {first.token!r}: make the prompt ask for one of {', '.join(self._answers.values())}"
        )
        if self.on_outside == "error":
            raise TeacherError(self.name, detail)
        return RecordError("outside_classes", f"teacher {self.name} {detail}")

    def _messages(self, text: str) -> list[dict[str, str]]:
        asked = self._prompt.replace("{text}", text[: self._max_characters])
        return [{"role": "system", "content": self._system}, {"role": "user", "content": asked}]

    def _complete(self, text: str) -> Completion:
        return self._completion(self._messages(text), {})

    def _completion(self, messages: list[dict[str, str]], other: Mapping[str, Any]) -> Completion:
        """The server's answer to messages; ``other``: fields of this request that differ from what is declared."""
        characters = sum(len(m["content"]) for m in messages)
        asked = characters // CHARACTERS_PER_TOKEN + OVERHEAD_TOKENS
        longest = int(other.get(self._limit_field, self._max_tokens))
        estimate = asked + longest
        answer = self._post(messages, estimate, other)
        try:
            completion = msgspec.convert(answer, Completion)
        except msgspec.ValidationError as error:
            raise TeacherError(self.name, f"answered no chat completion: {error}; does url end in /v1?") from error
        usage = completion.usage or _Usage()  # what the server does not report was used as estimated
        prompt_tokens = asked if usage.prompt_tokens is None else usage.prompt_tokens
        answer_tokens = longest if usage.completion_tokens is None else usage.completion_tokens
        self._endpoint.settle(estimate, prompt_tokens + answer_tokens)
        with self._lock:
            self._used["prompt_tokens"] += prompt_tokens
            self._used["answer_tokens"] += answer_tokens
        return completion

    def _post(self, messages: list[dict[str, str]], estimate: int, other: Mapping[str, Any]) -> Any:
        """The answer's JSON; once more where the server wants another name for the limit of its length.

        The digest knows the fields by the names that they were declared with: the server's word for it decides nothing.
        """
        old, new = LIMIT_FIELDS
        request = self._request(messages, other)
        try:
            return self._endpoint.post("chat/completions", request, tokens=estimate)
        except RefusedError as error:
            if error.status != 400 or new not in error.detail or old not in request:
                raise
            self._limit_field = new
        return self._endpoint.post("chat/completions", self._request(messages, other), tokens=estimate)

    def _request(self, messages: list[dict[str, str]], other: Mapping[str, Any]) -> dict[str, Any]:
        named = [(self._limit_field if n in LIMIT_FIELDS else n, v) for n, v in (*self._fields.items(), *other.items())]
        fields = dict(named)
        return fields | {"messages": messages}

    def _positions(self, completion: Completion) -> list[Position]:
        if len(completion.choices) != 1:
            raise TeacherError(self.name, f"answered {len(completion.choices)} choices, not one: remove n from body")
        found = completion.choices[0].logprobs
        if found is None or not found.content or not found.content[0].top_logprobs:
            raise TeacherError(self.name, "reports no top_logprobs: use a model and server that do, or switch them on")
        return found.content

    def _reported(self, completion: Completion) -> dict[str, Any]:
        reported: dict[str, Any] = {"model": completion.model}
        return reported | ({"system_fingerprint": completion.system_fingerprint} if self._pinned else {})

    def _compare(self, found: dict[str, Any]) -> None:
        if found == self.reported:
            return
        self.changed = found
        if self.on_change == "error":
            raise TeacherChangedError(self.name, self.reported, found)
