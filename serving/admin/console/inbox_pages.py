"""The routes of the inbox: alarms, a changed teacher, questions to people, and dead letters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from components.contracts.errors import CohobateError, ConfigError, UnavailableError
from components.contracts.signing import Signer
from components.control.alarms import MOST_HOURS, NOTE_CHARACTERS, acknowledge, silence
from components.control.order_client import REASON_CHARACTERS
from components.control.teachers import Verdict, decide
from components.control.tokens import allows
from components.dead_letters.letters import Filter, read_letters
from components.dead_letters.replay import drop, replay
from components.review import reviews
from components.stream.contract import Broker
from serving.admin.console.console import Console
from serving.admin.console.inbox import LETTERS, inbox, letters, question
from serving.admin.console.web import ROOT, checked_fields, checked_form, session_of
from serving.admin.dependencies import caller, require_role
from serving.admin.problems import Refused

log = logging.getLogger(__name__)

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Key = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,64}$")]
Decided = Annotated[str, Path(pattern="^(accept|reject)$")]

FIRST = 20
"""Questions of which the first is asked and the others are counted."""


def add(app: FastAPI, console: Console) -> None:
    """Add the routes."""
    _alarms(app, console)
    _questions(app, console)
    _letters(app, console)


def _operates(request: Request) -> bool:
    return allows(session_of(request).identity.role, "operator")


def _reason(text: str) -> str:
    if not 1 <= len(text.strip()) <= REASON_CHARACTERS:
        raise ConfigError("reason", text[:40], f"must say why in 1 to {REASON_CHARACTERS} characters: it is recorded")
    return text.strip()


async def _do(console: Console, request: Request, workload: str, work: Callable[[], Any]) -> Any:
    """Have an operator's work about a workload done, in a thread."""
    console.limit(session_of(request))

    def begin() -> Any:
        require_role(request, "operator")
        console.needs.require(workload)
        return work()

    return await run_in_threadpool(begin)


def _alarms(app: FastAPI, console: Console) -> None:
    store = console.store

    @app.get("/inbox")
    def inbox_page(request: Request) -> Response:
        """What waits for a person."""
        values = {
            "here": "/inbox", "inbox": inbox(store), "workloads": store.workloads(), "operates": _operates(request),
            "note_characters": NOTE_CHARACTERS, "most_hours": MOST_HOURS, "reason_characters": REASON_CHARACTERS,
        }  # fmt: skip
        return console.page(request, "inbox.html", values)

    @app.post("/w/{workload}/alarms/{alarm}")
    async def acknowledge_alarm(request: Request, workload: Name, alarm: Number) -> Response:
        """Say that one has seen an alarm."""
        form = await checked_form(request)
        who = caller(request).actor
        await _do(console, request, workload, lambda: acknowledge(store, workload, alarm, who, form.get("note", "")))
        console.hub.poke("workload", workload)
        return RedirectResponse(f"{ROOT}/inbox", status_code=303)

    @app.post("/w/{workload}/silence")
    async def silence_alarms(request: Request, workload: Name) -> Response:
        """Hear nothing of a kind of alarms for a time."""
        form = await checked_form(request)
        who = caller(request).actor

        def work() -> None:
            try:
                hours = float(form.get("hours", ""))
            except ValueError as error:
                raise ConfigError("hours", form.get("hours", "")[:40], "must be a number") from error
            silence(store, workload, form.get("kind", ""), hours, who, form.get("note", ""))

        await _do(console, request, workload, work)
        return RedirectResponse(f"{ROOT}/inbox", status_code=303)

    @app.post("/w/{workload}/teacher/{verdict}")
    async def decide_about_teacher(request: Request, workload: Name, verdict: Decided) -> Response:
        """Accept or reject a teacher that changed; its labels are moved after the answer, which may take a while."""
        form = await checked_form(request)
        chosen: Verdict = "accept" if verdict == "accept" else "reject"

        def work() -> Callable[[], None]:
            if console.pipelines is None:
                raise Refused(404, "not_found", "no teacher is decided about from here")
            spec, reason = console.pipelines.spec(workload), _reason(form.get("reason", ""))
            secret = console.settings.secret("label_signing_key")
            signer = Signer(secret) if secret is not None else None
            incident = decide(store, workload, chosen, caller(request).actor, reason)

            def settle_it() -> None:
                from components.teacher_watch.settle import settle

                try:
                    settle(spec, console.broker(), store, incident.id, signer=signer)
                except CohobateError as error:
                    log.warning("%s: incident %d is not settled yet: %s", workload, incident.id, error)

            return settle_it

        after = await _do(console, request, workload, work)
        return RedirectResponse(f"{ROOT}/inbox", status_code=303, background=BackgroundTask(after))


def _questions(app: FastAPI, console: Console) -> None:
    store = console.store

    @app.get("/w/{workload}/questions")
    def questions_page(request: Request, workload: Name) -> Response:
        """The oldest question that waits, to be answered by a key."""
        console.needs.require(workload)
        waiting = reviews.waiting(store, workload, FIRST)
        values = {
            "workload": workload, "sub": "/questions", "waiting": len(waiting), "most": FIRST,
            "question": question(waiting[0]) if waiting else None, "operates": _operates(request),
        }  # fmt: skip
        return console.page(request, "questions.html", values)

    @app.post("/w/{workload}/questions/{key}")
    async def answer(request: Request, workload: Name, key: Key) -> Response:
        """Answer a question, and go on to the next."""
        form = await checked_form(request)

        def work() -> None:
            try:
                confidence = float(form.get("confidence", "1"))
            except ValueError as error:
                raise ConfigError("confidence", form["confidence"][:40], "must be a number") from error
            who, label = caller(request).actor, form.get("label", "")
            reviews.answer(store, console.broker(), workload, key, label, who, confidence)

        try:
            await _do(console, request, workload, work)
        except UnavailableError as error:
            kept = f"The answer is kept, and is published with the next one: {error}"
            raise Refused(503, "unavailable", kept) from error
        return RedirectResponse(f"{ROOT}/w/{workload}/questions", status_code=303)


def _letters(app: FastAPI, console: Console) -> None:
    store = console.store

    def page(request: Request, workload: str, status: int = 200, **more: Any) -> Response:
        values = {
            "workload": workload, "sub": "/letters", "letters": letters(store, console.broker(), workload),
            "most": LETTERS, "operates": _operates(request), "reason_characters": REASON_CHARACTERS, "problem": "",
            "done": (), **more,
        }  # fmt: skip
        return console.page(request, "letters.html", values, status=status)

    @app.get("/w/{workload}/letters")
    def letters_page(request: Request, workload: Name) -> Response:
        """The newest dead letters."""
        console.needs.require(workload)
        return page(request, workload)

    @app.post("/w/{workload}/letters")
    async def decide_about_letters(request: Request, workload: Name) -> Response:
        """Replay or drop the letters that were ticked."""
        fields = await checked_fields(request)
        form, names = dict(fields), frozenset(value for name, value in fields if name == "letter")

        def work() -> Response:
            if not names:
                return page(request, workload, 422, problem="Tick the letters that are meant.")
            try:
                why = _reason(form.get("reason", ""))
            except ConfigError as error:
                return page(request, workload, 422, problem=str(error))
            broker: Broker = console.broker()
            meant = read_letters(broker, workload, Filter(names=names))
            who = caller(request).actor
            if form.get("do") == "drop":
                done = list(drop(store, workload, meant, actor=who, why=why))
            else:
                done = list(replay(store, broker, workload, meant, actor=who, why=why))
            told = [(one.letter.name, one.result, one.detail) for one in done]
            return page(request, workload, done=told)

        answer: Response = await _do(console, request, workload, work)
        return answer
