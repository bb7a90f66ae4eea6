"""The producer of the run: distinct inputs all the time, and some of everything that needs care.

That is: poison, content that was there before under another id, inputs that are delivered a second time under the
same id (as by a producer that crashed before it heard of its success), inputs whose callers wait, and inputs with an
answer that nobody may take for the teacher's: by another teacher, about another input, or none at all, and wrong.
"""

import random
import threading
import time
from collections import deque
from typing import Any, NamedTuple

import msgspec

from components.contracts.given import ANSWER, Given, headers_of
from components.contracts.records import Input, SoftLabel, content_hash, encode
from tests.chaos.teacher import CLASSES, SPACE, SteeredTeacher, answer

POISON_SHARE = 0.05
REPEAT_SHARE = 0.05
AGAIN_SHARE = 0.03
URGENT_SHARE = 0.1
FORGED_SHARE = 0.05
ENTITIES = 40
"""Keys of inputs, enough to reach every partition."""

AGAIN_AFTER = 3
"""How many inputs wait to be delivered again: at a share of 0.03 each comes about a hundred inputs later."""

DELIVERY_MS = 300_000
"""How long the producer tries to deliver one input: far longer than a broker is down."""


class Sent(NamedTuple):
    """One input on its way: ``answer`` as in :class:`~tests.chaos.verdict.Produced`."""

    id: str
    answer: str | None
    future: Any


def said(soft: SoftLabel) -> str:
    """A soft label as text, for comparison."""
    return f"{soft.space} " + " ".join(f"{c}={p:.6f}" for c, p in sorted(soft.distribution.items()))


class Feed(threading.Thread):
    """Publishes ``rate`` inputs a second until :meth:`finish`. ``sent`` are the inputs, ``again`` second deliveries.

    It uses an idempotent kafka-python producer of its own, so that nothing under test stands between the list of
    what was produced and the broker. The id of each record is in its header ``id``.
    """

    def __init__(self, address: str, workload: str, rate: float, seed: int) -> None:
        super().__init__(name="feed", daemon=True)
        self.sent: list[Sent] = []
        self.again: list[Any] = []
        self.failure: BaseException | None = None
        self._address, self._workload, self._rate = address, workload, rate
        self._dice = random.Random(seed)
        self._texts: list[str] = []
        self._again: deque[dict[str, Any]] = deque()
        self._done = threading.Event()

    def run(self) -> None:
        from kafka import KafkaProducer

        try:
            producer = KafkaProducer(
                bootstrap_servers=self._address,
                acks="all",
                enable_idempotence=True,
                linger_ms=5,
                retry_backoff_ms=50,
                reconnect_backoff_max_ms=500,
                delivery_timeout_ms=DELIVERY_MS,
                max_block_ms=DELIVERY_MS,
                allow_auto_create_topics=False,
            )
            started, number = time.monotonic(), 0
            while not self._done.wait(max(0.0, started + number / self._rate - time.monotonic())):
                self._publish(producer, number)
                number += 1
            producer.close(timeout=DELIVERY_MS / 1000)
        except BaseException as error:  # the run asks for it when it ends, and fails with it
            self.failure = error

    def _publish(self, producer: Any, number: int) -> None:
        id_ = f"i{number:07d}"
        value, expected = self._poison(id_) if self._dice.random() < POISON_SHARE else self._input(id_)
        urgent = self._dice.random() < URGENT_SHARE
        record = {
            "topic": f"{self._workload}.inputs.urgent" if urgent else f"{self._workload}.inputs",
            "key": f"entity-{self._dice.randrange(ENTITIES)}".encode(),
            "value": value,
            "headers": [("id", id_.encode()), *(self._forged(id_) if self._dice.random() < FORGED_SHARE else ())],
        }
        if expected is not None and self._dice.random() < AGAIN_SHARE:
            self._again.append(record)
        self.sent.append(Sent(id_, expected, producer.send(**record)))
        if len(self._again) > AGAIN_AFTER:
            self.again.append(producer.send(**self._again.popleft()))

    def _input(self, id_: str) -> tuple[bytes, str]:
        repeat = self._texts and self._dice.random() < REPEAT_SHARE
        text = self._dice.choice(self._texts[-2_000:]) if repeat else f"text of {id_}"
        self._texts.append(text)
        return encode(self._entry(id_, text.encode())), said(answer(text))

    def _forged(self, id_: str) -> list[tuple[str, bytes]]:
        """An answer that is not the teacher's to this input; it says something that the teacher never says."""
        wrong = SoftLabel.of(SPACE, CLASSES, [1.0, 0.0, 0.0])
        content = content_hash((self._texts[-1] if self._texts else "").encode())
        by = f"{SteeredTeacher.name}@{SteeredTeacher.digest}"
        given = Given(
            workload=self._workload, input_id=id_, content=content, teacher=by, soft=wrong, answered_at=time.time()
        )  # fmt: skip
        kind = self._dice.choice(("nothing", "another teacher", "another input", "another content", "another space"))
        changed: dict[str, dict[str, Any]] = {
            "another teacher": {"teacher": by + "#1"},
            "another input": {"input_id": id_ + "0"},
            "another content": {"content": content_hash(b"other")},
            "another space": {"soft": SoftLabel.of("steered@2", CLASSES, [1.0, 0.0, 0.0])},
        }
        if kind == "nothing":
            return [(ANSWER, b"\xc1 no answer")]
        return list(headers_of(msgspec.structs.replace(given, **changed[kind])).items())

    def _poison(self, id_: str) -> tuple[bytes, None]:
        kind = self._dice.choice(("garbage", "empty", "not text", "oversize", "future", "another workload"))
        name = id_.encode()
        if kind == "garbage":
            return b"\xc1 not a record " + name, None
        if kind == "future":
            return encode(self._entry(id_, name, time=time.time() + 10 * 86_400)), None
        if kind == "another workload":
            return encode(self._entry(id_, name, workload="other")), None
        payload = {"empty": b"", "not text": b"\xff" + name, "oversize": name * 200}[kind]
        return encode(self._entry(id_, payload)), None

    def _entry(self, id_: str, payload: bytes, **changes: Any) -> Input:
        fields: dict[str, Any] = {"workload": self._workload, "time": time.time(), "consent": "training"} | changes
        return Input(id=id_, key="entity", payload=payload, **fields)

    def finish(self) -> list[Sent]:
        """Stop publishing and wait until the broker has everything; what was sent, delivered or not."""
        self._done.set()
        self.join()
        if self.failure is not None:
            raise self.failure
        return self.sent
