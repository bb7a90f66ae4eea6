"""``cohobate mcp``: the workloads as tools of the Model Context Protocol, for agents; the status for operators.

https://modelcontextprotocol.io. Over standard input and output (what an agent's host starts itself), or over HTTP on
the loopback. The tools ask gateways by the client of :mod:`serving.client`; nothing here changes what serves.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import msgspec
from pydantic import Field

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from infra.state import read_state
from infra.status import read
from serving.client import AsyncClient, ClientError, given

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ModuleNotFoundError as missing:
    raise ConfigError("mcp", missing.name, "is not installed: pip install 'cohobate[agents]'") from missing

Client = Callable[[], AsyncClient]
"""Gives a workload's client, made on the event loop that uses it."""

HELP = (
    "Small models that imitate a large one. 'workloads' says which there are and what they answer; 'predict' asks one. "
    "An answer with defer=true is not sure: ask again with allow_defer=true, and the large model or people may answer."
)

# The protocol's library reads a text as JSON wherever the type is not exactly str (mcp 2.3, pre_parse_json): an input
# that spells an object would arrive as one.
Text = Annotated[str, Field(description="The input, where it is text.")]
Json = Annotated[Any, Field(description="The input, where it is a JSON value.")]
Base64 = Annotated[str, Field(description="The input, where it is bytes (an image, audio): in base64.")]
Key = Annotated[str, Field(description="Whom the input belongs to, where that is known.")]
Defer = Annotated[bool, Field(description="Whether others may be asked where the model is not sure; that is slower.")]


def serve(
    settings: Settings, workloads: Sequence[str] | None, gateway: str | None, *, operator: bool, port: int | None
) -> None:
    """Serve until the host of the agent closes the input, or, over HTTP, until a signal.

    Raises:
        ConfigError: no workload is named, and this home knows none.

    """
    state = read_state(settings)
    names = workloads or (state.workloads if state else ())
    if not names:
        raise ConfigError("--workload", [], f"name a workload: no platform was started in {settings.home}")
    base = (gateway or (state.gateway if state else settings.gateway)).rstrip("/")
    server = build({name: partial(AsyncClient, f"{base}/{name}") for name in names}, _status(settings, operator))
    if port is None:
        server.run()
    else:
        server.run("streamable-http", host="127.0.0.1", port=port)


def _status(settings: Settings, operator: bool) -> Callable[[], Any] | None:
    return partial(read, settings) if operator else None


def build(clients: Mapping[str, Client], status: Callable[[], Any] | None = None) -> MCPServer[Any]:
    """A server of the workloads by name; ``status`` gives what operators are shown (None: nothing is)."""
    made: dict[str, AsyncClient] = {}

    @asynccontextmanager
    async def running(_: MCPServer[Any]) -> AsyncIterator[None]:
        yield
        while made:
            await made.popitem()[1].aclose()

    server: MCPServer[Any] = MCPServer(name="cohobate", instructions=HELP, lifespan=running)

    def client(workload: str) -> AsyncClient:
        if workload not in clients:
            raise ToolError(f"there is no workload {workload!r}, only {', '.join(clients)}")
        if workload not in made:
            made[workload] = clients[workload]()
        return made[workload]

    @server.tool(description="The workloads: which version of each serves, of which teacher, and its classes.")
    async def workloads() -> dict[str, Any]:
        found = {}
        for name in clients:
            try:
                found[name] = msgspec.to_builtins((await client(name).model()).champion)
            except ClientError as error:
                found[name] = {"unavailable": str(error)}
        return {"workloads": found}

    @server.tool(description="Ask a workload about one input: give exactly one of text, json_value and base64_bytes.")
    async def predict(
        workload: str, text: Text = "", json_value: Json = None, base64_bytes: Base64 = "", key: Key = "",
        allow_defer: Defer = False,
    ) -> dict[str, Any]:  # fmt: skip
        asked = client(workload)
        forms = {"text": text or None, "json": json_value, "payload": _bytes(base64_bytes)}
        try:
            item = given(key=key or None, **{name: value for name, value in forms.items() if value is not None})
            (answer,) = await asked.predict_many([item], "ask" if allow_defer else None)
        except (ValueError, ClientError) as error:
            raise ToolError(str(error)) from error
        if answer.error is not None:
            raise ToolError(f"{answer.error.title}: {answer.error.detail}")
        return dict(msgspec.to_builtins(answer))

    if status is not None:
        _for_operators(server, status)
    return server


def _for_operators(server: MCPServer[Any], status: Callable[[], Any]) -> None:
    @server.tool(description="What the platform does: versions, rollouts, alarms, runs. Nothing is changed by it.")
    async def platform_status() -> dict[str, Any]:
        return dict(msgspec.to_builtins(await asyncio.to_thread(status)))


def _bytes(text: str) -> bytes | None:
    if not text:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ToolError(f"base64_bytes is not base64: {error}") from error
