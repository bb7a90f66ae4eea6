"""The workloads as tools, asked by the protocol's own client."""

import asyncio
import json
import sys
from functools import partial

import pytest

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from infra.mcp_server import build, serve
from serving.client import AsyncClient


@pytest.fixture
def mcp():
    """The protocol's package, whose import takes longer than these tests do: only where they run."""
    import mcp

    return mcp


def told(result):
    return json.loads(result.content[0].text)


def test_an_agent_asks_and_sees_what_there_is(url, mcp):
    async def run():
        made = build({"signs": partial(AsyncClient, url, deadline=90.0)})
        async with mcp.Client(made) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            there = told(await client.call_tool("workloads", {}))
            by_json = told(await client.call_tool("predict", {"workload": "signs", "json_value": {"x": 3}}))
            by_text = told(await client.call_tool("predict", {"workload": "signs", "text": '{"x": 0.01}'}))
            asked = {"workload": "signs", "text": '{"x": 0.01}', "allow_defer": True}
            deferred = told(await client.call_tool("predict", asked))
            failures = [
                await client.call_tool("predict", {"workload": "signs"}),
                await client.call_tool("predict", {"workload": "other", "text": "a"}),
                await client.call_tool("predict", {"workload": "signs", "text": "{"}),
                await client.call_tool("predict", {"workload": "signs", "base64_bytes": "***"}),
            ]
            return names, there, by_json, by_text, deferred, failures

    names, there, by_json, by_text, deferred, failures = asyncio.run(run())
    assert names == {"workloads", "predict"}, "what operators see is not offered to agents"
    assert there["workloads"]["signs"]["classes"] == ["neg", "pos"]
    assert by_json["label"] == "pos" and by_json["model_version"] == "1"
    assert by_text["defer"] and not by_text["degraded"] and deferred["degraded"]
    assert all(result.is_error for result in failures)
    why = [result.content[0].text for result in failures]
    for text, names in zip(why, ("exactly one", "no workload 'other'", "undecodable", "not base64"), strict=True):
        assert names in text


def test_a_gateway_that_is_away_is_said_to_be(mcp):
    async def run():
        made = build({"signs": partial(AsyncClient, "http://127.0.0.1:9", deadline=0.2)}, lambda: {"up": False})
        async with mcp.Client(made) as client:
            there = told(await client.call_tool("workloads", {}))
            status = told(await client.call_tool("platform_status", {}))
            return there, status, await client.call_tool("predict", {"workload": "signs", "text": "a"})

    there, status, asked = asyncio.run(run())
    assert "unavailable" in there["workloads"]["signs"] and asked.is_error and status == {"up": False}


def test_the_command_speaks_over_standard_input_and_output(url, mcp, tmp_path):
    host = url
    command = [
        "-m",
        "infra.cli",
        "--home",
        str(tmp_path),
        "mcp",
        "--workload",
        "signs",
        "--gateway",
        host,
        "--operator",
    ]

    async def run():
        async with mcp.Client(mcp.StdioServerParameters(command=sys.executable, args=command)) as client:
            return {tool.name for tool in (await client.list_tools()).tools}

    assert asyncio.run(run()) == {"workloads", "predict", "platform_status"}


def test_without_a_workload_it_says_so(tmp_path):
    with pytest.raises(ConfigError, match="name a workload"):
        serve(Settings(home=tmp_path), None, None, operator=False, port=None)
