"""Files of inputs in one request: JSON Lines or Parquet in, the same out, a line or row for each input, in order.

A file is taken whole before its first answer goes out, since a client that sends all before it reads would wait for a
server that waits for it. It is answered in parts of ``serve.max_batch`` inputs, as less urgent than a single request
(RFC 9218: ``u=6`` unless the header ``Priority`` says otherwise): each part waits until the replica has room for it and
for what is published of it. What finds none for ``serve.request_seconds`` is refused in its place in the answer.

Parquet has one of the columns ``payload`` (bytes), ``text`` and ``json`` (structs or lists), and may have ``id``,
``key``, ``time`` (Unix seconds or a timestamp) and ``consent``; others mean nothing. The answer's has those of
:data:`COLUMNS` and :data:`OF_TASK`.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET
from starlette.types import Receive, Scope, Send

from serving.gateway.answering import Gateway
from serving.gateway.bodies import Bodies
from serving.gateway.managed import LINES, line, media_type
from serving.gateway.post import refusal, require_champion, respond
from serving.gateway.pressure import urgency_of
from serving.gateway.wire import Answered, Item, Problem, Raw, RequestError, lines

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = "application/vnd.apache.parquet"
"""Media type of Parquet (IANA, 2024)."""

URGENCY = b"u=6"
"""Of a file whose request names none."""

IN_MEMORY = 1 << 20
"""Bytes of a file from which on it is kept on disk while it is answered."""

LOOK_SECONDS = 0.05
"""How often it is looked whether there is room for the next part."""

FORMS = ("payload", "text", "json")

JSON = ("spans", "tokens")
"""Fields of an answer of tagging, as texts of JSON; null where there is no answer."""

COLUMNS = (
    *(n for n in Answered.__struct_fields__ if n not in ("error", *JSON)), "error", "error_status", "error_detail",
)  # fmt: skip
"""Columns of an answer in Parquet: its fields, ``soft_label`` as a map, its error as code, status and reason."""

OF_TASK: Mapping[str, tuple[str, ...]] = {"embedding": ("vector",), "tagging": JSON}
"""The columns that follow those for a task; ``vector`` is a list of numbers, which the map is without."""

Part = Sequence[Item | RequestError]
"""Inputs, or why one of them is none."""


class Files:
    """The ASGI endpoint of one workload."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, serve = gateway, gateway.spec.serve
        self._seconds, self._size = serve.request_seconds, serve.max_batch
        self._bodies = Bodies(serve.file_bytes, serve.request_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one file; a failure after the first answers ends the response without its end."""
        headers, started = dict(scope["headers"]), False
        try:
            with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
                await self._bodies.spool(headers, receive, file)
                kind = _kind(headers)
                task = self._gateway.spec.task
                out: _Lines | _Table = _Table(task) if _wants_parquet(headers, kind) else _Lines()
                parts = _lines(file, self._size) if kind == "lines" else _rows(file, self._size)
                while (part := await asyncio.to_thread(next, parts, None)) is not None:
                    written = out.write(await self._answered(part, headers, started))
                    if not started:
                        await send({"type": "http.response.start", "status": 200, "headers": out.headers})
                        started = True
                    await send({"type": "http.response.body", "body": written, "more_body": True})
                if not started:
                    raise RequestError(422, "invalid_request", "there is no input in the file")
                await send({"type": "http.response.body", "body": out.end()})
        except RequestError as error:
            if started:
                raise
            await respond(send, *refusal(error.problem, error.headers, scope["path"]))

    async def _answered(self, part: Part, headers: Mapping[bytes, bytes], started: bool) -> list[Answered]:
        """The answers to a part. What no answer has gone out before is refused as a whole, by its status."""
        urgency = urgency_of(headers.get(b"priority", URGENCY))
        refused = {n: e for n, e in enumerate(part) if isinstance(e, RequestError)}
        items = [item for item in part if not isinstance(item, RequestError)]
        try:
            await self._enter(urgency)
        except RequestError as error:
            if not started:
                raise
            return [_refused(e if isinstance(e, RequestError) else error) for e in part]
        try:
            answers = iter(await self._gateway.predict(items, urgency=urgency))
        finally:
            self._gateway.pressure.leave()
        return [_refused(refused[n]) if n in refused else next(answers) for n in range(len(part))]

    async def _enter(self, urgency: int) -> None:
        """Come in when there is room for a part.

        Raises:
            RequestError: there was none for ``serve.request_seconds``, or there is no champion.

        """
        until = asyncio.get_running_loop().time() + self._seconds
        while self._gateway.telemetry.crowded and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(LOOK_SECONDS)
        while True:
            require_champion(self._gateway)
            try:
                self._gateway.pressure.enter(urgency)
                return
            except RequestError:
                if asyncio.get_running_loop().time() >= until:
                    raise
                await asyncio.sleep(LOOK_SECONDS)


def _refused(error: RequestError) -> Answered:
    return Answered(id="", request_id="", error=error.problem)


def _kind(headers: Mapping[bytes, bytes]) -> str:
    kind = media_type(headers.get(b"content-type", b""))
    if kind in LINES:
        return "lines"
    if kind != PARQUET:
        raise RequestError(415, "media_type", f"a file is {LINES[1]} or {PARQUET}, not {kind or 'of no type'!r}")
    return "parquet"


def _wants_parquet(headers: Mapping[bytes, bytes], kind: str) -> bool:
    accepted = media_type(headers.get(b"accept", b"*/*"))
    return kind == "parquet" if accepted in ("*/*", "") else accepted == PARQUET


def _lines(file: IO[bytes], size: int) -> Iterator[Part]:
    part: list[Item | RequestError] = []
    for number, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            part.append(line(number, text).items[0])
        except RequestError as error:
            part.append(error)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _rows(file: IO[bytes], size: int) -> Iterator[Part]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        given = [n for n in FORMS if n in table.schema_arrow.names]
        if len(given) != 1:
            detail = f"the columns must have exactly one of {', '.join(FORMS)}, not {', '.join(given) or 'none'}"
            raise RequestError(422, "invalid_request", detail)
        names = [n for n in (given[0], "id", "key", "time", "consent") if n in table.schema_arrow.names]
        first = 1
        for batch in table.iter_batches(batch_size=size, columns=names):
            yield [_row(n, given[0], row) for n, row in enumerate(batch.to_pylist(), start=first)]
            first += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise RequestError(400, "not_parquet", f"the file is not Parquet: {error}") from error


def _row(number: int, form: str, row: dict[str, Any]) -> Item | RequestError:
    value = row.pop(form)
    at = row.get("time")
    if isinstance(at, datetime):
        row["time"] = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    try:
        if form == "payload":
            return msgspec.convert({**row, "raw": value}, Raw)
        return msgspec.convert({**row, form: value}, Item)
    except msgspec.ValidationError as error:
        return RequestError(422, "invalid_request", f"row {number}: {error}")


class _Lines:
    """Answers as JSON Lines."""

    headers = ((b"content-type", LINES[1].encode()),)

    def write(self, answers: Sequence[Answered]) -> bytes:
        return lines(answers)

    def end(self) -> bytes:
        return b""


class _Table:
    """Answers as Parquet, a row group for each part."""

    headers = ((b"content-type", PARQUET.encode()),)

    def __init__(self, task: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._sink = _Sink()
        self._schema = pa.schema([(name, _type(pa, name)) for name in (*COLUMNS, *OF_TASK.get(task, ()))])
        self._writer = pq.ParquetWriter(self._sink, self._schema)

    def write(self, answers: Sequence[Answered]) -> bytes:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist([_flat(a) for a in answers], self._schema))
        return self._sink.taken()

    def end(self) -> bytes:
        self._writer.close()
        return self._sink.taken()


def _type(pa: Any, name: str) -> pa.DataType:
    if name == "soft_label":
        return pa.map_(pa.string(), pa.float64())
    if name == "vector":
        return pa.list_(pa.float32())
    if name in ("defer", "degraded"):
        return pa.bool_()
    if name in ("confidence", "novelty"):
        return pa.float64()
    return pa.int16() if name == "error_status" else pa.string()


def _flat(answer: Answered) -> dict[str, Any]:
    row = msgspec.structs.asdict(answer)
    error: Problem | None = row.pop("error")
    row["soft_label"] = [(name, value) for name, value in answer.soft_label.items() if name != "vector"]
    row["vector"] = answer.soft_label.get("vector")
    for name in JSON:
        row[name] = None if row[name] is UNSET else msgspec.json.encode(row[name]).decode()
    if error is not None:
        row |= {"error": error.title, "error_status": error.status, "error_detail": error.detail}
    return row


class _Sink(io.RawIOBase):
    """What a writer wrote and nobody took yet; it knows how much there was in all, as Parquet's offsets need."""

    def __init__(self) -> None:
        super().__init__()
        self._new, self._before = bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._new += data
        return len(data)

    def tell(self) -> int:
        return self._before + len(self._new)

    def taken(self) -> bytes:
        """What is new since this was last called."""
        new = bytes(self._new)
        self._before += len(new)
        self._new.clear()
        return new
