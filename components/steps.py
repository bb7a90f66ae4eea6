"""The steps of the pipelines as plain functions of strings: what a Kubeflow component's body calls.

A component finds its platform by the environment (:class:`~components.contracts.settings.Settings`) and its workload
by the path of the spec.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.records import Input, Truth, encode
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.student.card import StudentCard

ORDER_SECONDS = 60.0
"""How long a pipeline waits for the rollout controller to carry out its order."""


class Historic(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a history file: an input, and its truth where it is known."""

    input: Input
    truth: Truth | None = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A distilled student on its way through a pipeline: where its artifacts lie, and what was measured so far."""

    uri: str
    digest: str
    float_uri: str
    card: StudentCard
    parity_gap: float
    metrics: dict[str, float]
    history: tuple[float, ...]
    decision: str = "hold"
    measurements: dict[str, float | None] = {}
    verdict: dict[str, Any] = {}
    confusion: dict[str, Any] = {}
    report_html_uri: str = ""

    @property
    def score(self) -> tuple[bool, float]:
        """What the better of two variants has more of: a verdict to promote, then agreement (or less error)."""
        error = self.measurements.get("rmse")
        quality = self.measurements.get("agreement") if error is None else -error
        return self.decision == "promote", float("-inf") if quality is None else quality


def history_lines(data: bytes) -> Iterator[Historic]:
    """The lines of a history file (JSON lines; payloads in base64).

    Raises:
        ConfigError: a line is not a historic input; the message names it.
    """
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            yield msgspec.json.decode(line, type=Historic)
        except msgspec.MsgspecError as error:
            raise ConfigError("history", f"line {number}", f"must be a historic input: {error}") from error


def label_history(spec_path: str, history_uri: str) -> int:
    """Put a history on the workload's topics and label it; returns how many inputs it holds.

    The labeler of the platform may be at work on the same topic: whichever comes first labels an input, and this
    waits until all of the history is labelled or a dead letter.

    Raises:
        UnavailableError: the labels did not all come in time.
    """
    from components.stream import open_broker
    from components.stream.contract import read_to_end

    spec, settings = load_spec(spec_path), Settings()
    broker = open_broker(settings)
    broker.ensure_topics(spec.topics, partitions=spec.partitions)
    lines = list(history_lines(get_bytes(history_uri)))
    producer = broker.producer()
    for line in lines:
        producer.send(spec.topic("inputs"), line.input.key, encode(line.input))
        if line.truth is not None:
            producer.send(spec.topic("truth"), line.truth.input_id, encode(line.truth))
    producer.close()
    waiting = {line.input.id for line in lines}
    consumer = broker.consumer([spec.topic("labels"), spec.topic("inputs.dlq")])
    deadline = time.monotonic() + 60.0 + len(lines)
    while waiting and time.monotonic() < deadline:
        for record in read_to_end(consumer):
            waiting.discard(_input_id(record.topic, record.value))
        time.sleep(0.2)
    consumer.close()
    if waiting:
        raise UnavailableError(
            "labeler", spec.name, f"{len(waiting)} inputs of the history are not labelled; does it run?"
        )
    return len(lines)


def _input_id(topic: str, value: bytes) -> str:
    from components.contracts.errors import RecordError
    from components.contracts.records import DeadLetter, Label, decode

    if topic.endswith(".labels"):
        return decode(Label, value).input.id
    try:
        return decode(Input, decode(DeadLetter, value).value).id
    except RecordError:
        return ""


def take_snapshot(spec_path: str) -> tuple[int, str]:
    """Freeze what is new; returns the window's rows and digest, 0 and an empty text when nothing is new."""
    from components.snapshot.window import freeze
    from components.stream import open_broker

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore(settings.control_url)
    window = freeze(spec, open_broker(settings), store, settings.artifacts, now=time.time())
    store.close()
    return (window.rows, window.digest) if window else (0, "")


def distil(spec_path: str, variant: str, fresh: bool) -> Candidate:
    """Train a student on all windows: from the champion, or a ``fresh`` one of the named variant (empty: the first).

    Raises:
        ConfigError: the spec has no such variant.
    """
    from components.distill.train import distill

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore(settings.control_url)
    named = {v.name: v for v in spec.student.variants}
    if variant and variant not in named:
        raise ConfigError("variant", variant, f"the spec of {spec.name} has {', '.join(named)}")
    parent = None if fresh else champion(store, spec)
    done = distill(
        spec,
        store.windows(spec.name),
        variant=named[variant] if variant else spec.student.variants[0],
        parent=parent,
        artifacts=settings.artifacts,
        seed=spec.seed,
    )
    store.close()
    return Candidate(
        uri=done.uri,
        digest=done.digest,
        float_uri=done.float_uri,
        card=done.card,
        parity_gap=done.parity_gap,
        metrics=done.metrics,
        history=done.history,
    )


def champion(store: ControlStore, spec: Spec) -> ModelRef | None:
    """The version that serves, from the durable intent."""
    return store.intent(spec.name)[1].champion


def judge(spec_path: str, candidate: Candidate) -> Candidate:
    """Evaluate a candidate's artifact and put the gate's verdict on it."""
    from components.evaluate.evaluate import evaluate

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore(settings.control_url)
    done = evaluate(
        spec,
        candidate.uri,
        candidate.digest,
        candidate.float_uri,
        windows=store.windows(spec.name),
        champion=champion(store, spec),
        artifacts=settings.artifacts,
        store=store,
    )
    store.close()
    return msgspec.structs.replace(
        candidate,
        decision=done.verdict.decision,
        measurements=dict(done.measurements),
        verdict=done.verdict.as_dict(),
        confusion=done.confusion,
        report_html_uri=done.report_html_uri,
    )


def register(spec_path: str, candidate: Candidate) -> str:
    """Register a judged candidate with its lineage and give it the alias ``candidate``; returns its version."""
    from components.ledger.ledger import append
    from components.registry.registry import Registry

    spec, settings = load_spec(spec_path), Settings()
    registry, store = Registry(settings), ControlStore(settings.control_url)
    measured = {k: v for k, v in candidate.measurements.items() if v is not None}
    model = registry.register(
        spec,
        candidate.uri,
        candidate.digest,
        candidate.card,
        verdict=candidate.verdict,
        metrics={**candidate.metrics, **measured},
        params={"variant": candidate.card.variant, "spec": spec.digest, "seed": str(spec.seed)},
    )
    registry.set_alias(spec.name, "candidate", model.version)
    detail = {"version": model.version, "digest": model.digest, "verdict": candidate.decision}
    append(store, spec.name, settings.actor, "register", detail)
    store.close()
    return model.version


def order(spec_path: str, verb: str, reason: str, key: str, args: dict[str, Any]) -> str:
    """Place an order with the rollout controller and wait for its outcome; the same ``key`` places it once.

    Raises:
        ConfigError: there is no reason.
        UnavailableError: it was refused, or no controller took it in time.
    """
    if not reason.strip():
        raise ConfigError("reason", reason, "must say why: it goes into the ledger")
    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore(settings.control_url)
    row = store.await_order(store.order(spec.name, verb, settings.actor, reason, args, key=key), ORDER_SECONDS)
    store.close()
    if not row.ok:
        outcome = row.outcome or f"no controller took the order in {ORDER_SECONDS:.0f} s; is the platform up?"
        raise UnavailableError(f"order to {verb}", spec.name, outcome)
    return str(row.outcome)
