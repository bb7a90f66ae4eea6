"""What edges (:mod:`serving.edge`) ask a gateway: who serves, the bundles of those versions, and to take records.

Who serves is read from the control database for each edge that asks, not from what this replica has followed: of two
replicas one may be behind, and an edge would go back to a version that was rolled back.

A prediction of an edge is no evidence for or against a version in a rollout: it comes hours late, from a split of its
own. It travels in the header :data:`HEADER` of its input's record. Each input has its id, so that what is sent twice
is labelled and counted once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from components.contracts.admission import check_consent
from components.contracts.errors import ArtifactError, UnavailableError
from components.contracts.masking import TRIES
from components.contracts.records import encode
from components.contracts.sampling import audited
from components.contracts.storage import get_bytes
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore
from serving.gateway.answering import Gateway
from serving.gateway.bodies import Bodies
from serving.gateway.confirmed import Confirmed, ToSend
from serving.gateway.post import JSON, Call, Pairs, Post, json_response
from serving.gateway.pressure import Pressure
from serving.gateway.wire import RETRY_AFTER, Accepted, Item, Key, Name, RequestError, Terms, decoded
from serving.gateway.wire import encode as written

HEADER = "edge"
"""Of an input's record: the prediction that an edge gave for it, as JSON."""

UNDER_WAY = 8
"""Requests of edges with records that one replica takes at once: each waits for the broker."""


RECORD_BYTES = 12_288
"""Of a record beside its payload: names, terms and the prediction, whose label of 3,072 numbers has 8 KB."""


class EdgePrediction(msgspec.Struct, kw_only=True):
    """What an edge answered; ``digest`` is that of the version's judged artefact."""

    request_id: Name
    model_version: str
    digest: str
    arm: Literal["champion", "candidate"]
    label: str
    confidence: float
    novelty: float | None = None
    defer: bool = False
    latency_ms: float


class EdgeRecord(msgspec.Struct, kw_only=True):
    """An input that an edge has answered, at ``time`` (Unix seconds); ``payload``: its bytes in base64."""

    id: Name
    key: Key
    time: Annotated[float, Meta(gt=0)]
    payload: str
    consent: Terms | None = None
    prediction: EdgePrediction


class EdgeRecords(msgspec.Struct):
    """Several records, each taken or refused on its own."""

    records: Annotated[list[EdgeRecord], Meta(min_length=1)]


class EdgeTaken(msgspec.Struct):
    """What became of records, in their order."""

    records: list[Accepted]


class EdgeVersion(msgspec.Struct, kw_only=True):
    """A version that serves."""

    version: str
    digest: str


class EdgeConsent(msgspec.Struct, kw_only=True):
    """Under which terms an edge may keep and send an input (spec: ``consent``)."""

    required: bool
    allowed: tuple[str, ...]


class EdgeDecision(msgspec.Struct, kw_only=True):
    """Who serves. ``lease_seconds``: for how long ``weight``, and ``guard_below``, are stood for from now on."""

    workload: str
    revision: int
    champion: EdgeVersion | None
    candidate: EdgeVersion | None
    weight: float
    lease_seconds: float
    guard_below: float | None
    consent: EdgeConsent


_records = msgspec.json.Decoder(EdgeRecords)


def bundle_uri(artifacts: str, workload: str, digest: str) -> str:
    """Where the packed bundle of a version lies, by the digest of its judged artefact."""
    return f"{artifacts}/edge/{workload}/{digest}.tar"


class Edges:
    """What one replica answers the edges of one workload. ``artifacts``: the artifact root."""

    def __init__(self, gateway: Gateway, store: ControlStore, artifacts: str) -> None:
        self.gateway, self._store, self._artifacts = gateway, store, artifacts
        self._stream = Confirmed(gateway.spec, gateway.telemetry.broker)
        self._clock: Callable[[], float] = store.clock

    async def decision(self, _: Request) -> Response:
        """Who serves, as the control database has it."""
        spec = self.gateway.spec
        try:
            revision, intent = await asyncio.to_thread(self._store.intent, spec.name)
        except SQLAlchemyError as error:
            detail = "the control database does not answer: ask again"
            raise RequestError(503, "not_confirmed", detail, RETRY_AFTER) from error
        return json_response(decided(intent, revision, spec.name, self._clock(), self._terms()))

    def _terms(self) -> EdgeConsent:
        consent = self.gateway.spec.consent
        return EdgeConsent(required=consent.required, allowed=consent.allowed)

    async def bundle(self, request: Request) -> Response:
        """The packed bundle of a version."""
        digest = request.path_params["digest"]
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise RequestError(404, "no_bundle", "a bundle is named by 64 hexadecimal digits")
        uri = bundle_uri(self._artifacts, self.gateway.spec.name, digest)
        try:
            data = await asyncio.to_thread(get_bytes, uri)
        except ArtifactError as error:
            detail = f"the version {digest[:12]} has none: 'cohobate export' it, and 'cohobate edge publish' that"
            raise RequestError(404, "no_bundle", detail) from error
        except UnavailableError as error:
            raise RequestError(503, "not_confirmed", "the artifact store does not answer", RETRY_AFTER) from error
        return Response(data, media_type="application/x-tar")

    async def take(self, body: bytes, _: Call) -> tuple[bytes, Pairs]:
        """Put records on the stream; answered when it has them all, with what was refused among them."""
        given = decoded(_records.decode, body).records
        most = self.gateway.spec.serve.max_batch
        if len(given) > most:
            raise RequestError(413, "too_many_inputs", f"a batch has at most {most} records")
        return written(EdgeTaken(await self._stream.take(given, self._made, "records of an edge"))), JSON

    def _made(self, record: EdgeRecord) -> tuple[str, ToSend]:
        """The input's id, and its record for the stream, as the gateway itself would have published the input.

        Raises:
            RecordError: the labeler would refuse it.

        """
        spec = self.gateway.spec
        item = Item(key=record.key, time=record.time, consent=record.consent, payload=record.payload)
        payload = self.gateway.content_of(item, TRIES)  # an edge does not keep what is refused
        self.gateway.check_finite(self.gateway.decode(payload))
        entry = self.gateway.input_of(item, record.id, payload, self._clock())
        check_consent(entry.consent, spec.consent)
        waited_for = record.prediction.defer or audited(spec.name, record.id, spec.serve.audit_share)
        topic = spec.topic("inputs.urgent" if waited_for else "inputs")
        return entry.id, ToSend(topic, entry.key, encode(entry), {HEADER: written(record.prediction)})

    def close(self) -> None:
        """Release the connection to the stream."""
        self._stream.close()

    def routes(self) -> list[Route]:
        """Where edges ask."""
        serve, payload = self.gateway.spec.serve, self.gateway.spec.payload
        bodies = Bodies(serve.max_batch * (2 * payload.max_bytes + RECORD_BYTES), serve.request_seconds)
        take = Post(self.gateway, "edge", bodies, self.take, Pressure(UNDER_WAY))
        return [
            Route("/v1/edge/decision", self.decision),
            Route("/v1/edge/bundles/{digest}", self.bundle),
            Route("/v1/edge/records", take, methods=["POST"]),
        ]


def decided(intent: Intent, revision: int, workload: str, now: float, terms: EdgeConsent) -> EdgeDecision:
    """The intent as an edge is told of it: a candidate that answers nothing, or in shadow alone, is not named."""
    champion, guard = intent.champion, intent.guard
    guarded = guard is not None and champion is not None and guard.digest == champion.digest
    serves = intent.weight_at(now) > 0.0 and not intent.shadow
    return EdgeDecision(
        workload=workload,
        revision=revision,
        champion=_version(champion),
        candidate=_version(intent.candidate) if serves else None,
        weight=intent.weight_at(now) if serves else 0.0,
        lease_seconds=max(0.0, intent.lease_until - now),
        guard_below=guard.defer_below if guarded and guard is not None else None,
        consent=terms,
    )


def _version(model: ModelRef | None) -> EdgeVersion | None:
    return None if model is None else EdgeVersion(version=model.version, digest=model.digest)


TYPES: Sequence[type] = (EdgeDecision, EdgeRecords, EdgeTaken)
"""What goes over HTTP."""
