"""Why a client has no answer."""

from __future__ import annotations

from serving.gateway.wire import Answered, Problem


class ClientError(Exception):
    """There is no answer, or none that may be used."""


class RefusedError(ClientError):
    """The gateway refused the request, or one input of it; the same again is refused again. ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.title}: {problem.detail}")
        self.problem = problem


class UnavailableError(ClientError):
    """No answer came within the deadline, however often it was asked. ``retry_after``: seconds, where it was told."""

    def __init__(self, what: str, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class DeferredError(ClientError):
    """The student is not sure enough, and its answer was not to be taken then; ``answer`` has it all the same."""

    def __init__(self, answer: Answered) -> None:
        super().__init__(f"input {answer.id} is deferred: {answer.defer_reason}")
        self.answer = answer
