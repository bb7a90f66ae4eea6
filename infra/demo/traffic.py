"""The demo's client: sends inputs to the gateway over HTTP and remembers every answer.

Fresh inputs are sent once, in order, and are what accuracy is reported on. The client asks as a user would: where the
student is not sure, whoever it defers to may answer. While a rollout needs requests, inputs
that were sent before are sent again under other keys, as clients that try again would: they count as requests only,
and the labeler, which knows their ids, labels none of them twice.
"""

from __future__ import annotations

import base64
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec

from components.contracts.records import Truth, encode
from components.contracts.spec import Spec
from components.stream.contract import Producer
from infra.workloads.source import Item

TIMEOUT_SECONDS = 10.0
REPEAT_CLIENTS = 2
"""Threads that repeat inputs while a rollout is under way: two keep one core busy, so that the rest can work."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh input and what the gateway answered; ``label`` is None where the request failed.

    ``deferred``: not the student's answer, but of whoever it defers to; ``at``: when the answer came (Unix seconds).
    """

    index: int
    phase: str
    item: Item
    label: str | None
    version: str | None
    arm: str | None
    deferred: bool = False
    at: float = 0.0


class Traffic:
    """The client of one workload's gateway."""

    def __init__(self, spec: Spec, gateway: str, producer: Producer, *, truth_delay: int, seed: int) -> None:
        self.spec, self.url = spec, f"{gateway}/{spec.name}/v1/predict"
        self.answers: list[Answered] = []
        self.requests = 0
        self.failed = 0
        self.errors: list[str] = []
        self._producer, self._truth_delay = producer, truth_delay
        self._random = random.Random(seed)  # noqa: S311 - repeats traffic, guards nothing
        self._client = httpx.Client(timeout=TIMEOUT_SECONDS)
        self._lock = threading.Lock()
        self._repeating = threading.Event()
        self._closed = threading.Event()
        self._truths = 0
        self._pool = ThreadPoolExecutor(REPEAT_CLIENTS, thread_name_prefix="repeat")
        for _ in range(REPEAT_CLIENTS):
            self._pool.submit(self._repeat)

    def send(self, phase: str, item: Item) -> None:
        """Send one fresh input, keep the answer, and publish the truth of the input ``truth_delay`` before it."""
        answer = self._post(item, item.key, item.id, allow_defer=True)
        self.answers.append(
            Answered(
                index=len(self.answers),
                phase=phase,
                item=item,
                label=answer.get("label"),
                version=answer.get("model_version"),
                arm=answer.get("arm"),
                deferred=answer.get("answered_by") in ("expert", "teacher"),
                at=time.time(),
            )
        )
        self._publish_truths(len(self.answers) - self._truth_delay)

    @property
    def repeating(self) -> bool:
        """Whether inputs are being repeated."""
        return self._repeating.is_set()

    def repeat(self, on: bool) -> None:
        """Start or stop repeating inputs."""
        (self._repeating.set if on else self._repeating.clear)()

    def close(self) -> None:
        """Publish the truths that are still due and stop the clients."""
        self._closed.set()
        self._repeating.set()
        self._pool.shutdown(wait=True)
        self._publish_truths(len(self.answers))
        self._producer.flush()
        self._client.close()

    def _publish_truths(self, until: int) -> None:
        while self._truths < until:
            publish_truth(self._producer, self.spec, self.answers[self._truths].item, known_at=time.time())
            self._truths += 1

    def _repeat(self) -> None:
        while not self._closed.is_set():
            if not self._repeating.wait(0.2) or self._closed.is_set() or not self.answers:
                continue
            with self._lock:
                recent = self.answers[-200:]
                item, key = self._random.choice(recent).item, f"repeat-{self._random.randrange(10**9)}"
            self._post(item, key, item.id)

    def _post(self, item: Item, key: str, input_id: str, *, allow_defer: bool = False) -> dict[str, Any]:
        one = {"id": input_id, "key": key, "payload": base64.b64encode(item.payload).decode()}
        body = {"inputs": [one], "allow_defer": allow_defer}
        try:
            response = self._client.post(self.url, json=body)
            response.raise_for_status()
            answer: dict[str, Any] = response.json()["predictions"][0]
            error = None if answer.get("error") is None else str(answer["error"])
        except (httpx.HTTPError, KeyError, IndexError, ValueError) as failure:
            answer, error = {}, f"{type(failure).__name__}: {failure}"
        with self._lock:
            self.requests += 1
            if error is not None:
                self.failed += 1
                self.errors.append(error)
        return answer


def publish_truth(producer: Producer, spec: Spec, item: Item, known_at: float) -> None:
    """Publish the truth of an item, as a person or a later event would."""
    truth = Truth(
        workload=spec.name, input_id=item.id, time=known_at, known_at=known_at, source="demo", label=item.truth
    )
    producer.send(spec.topic("truth"), item.id, encode(truth))


def wait_for(
    condition: Callable[[], bool], seconds: float, what: str, poll: float = 0.2, also: Callable[[], None] | None = None
) -> None:
    """Wait until ``condition`` holds.

    Raises:
        TimeoutError: it did not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}: see the logs of the platform")
        if also is not None:
            also()
        time.sleep(poll)


def share(flags: Sequence[bool]) -> float | None:
    """Share of true flags; None of none."""
    return sum(flags) / len(flags) if flags else None
