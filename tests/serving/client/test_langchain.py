"""A workload in LangChain."""

import asyncio

import pytest
from langchain_core.runnables import RunnableLambda

from serving.client import AsyncClient, Client, RefusedError
from serving.client.langchain import CohobateRunnable, tool


def test_a_runnable_in_a_chain(url):
    with Client(url, deadline=90.0) as client:
        chain = CohobateRunnable(client) | RunnableLambda(lambda answer: answer["label"])
        assert chain.invoke('{"x": 3}') == "pos" and chain.batch([{"x": -3}, b'{"x": 3}']) == ["neg", "pos"]
        found = CohobateRunnable(client).batch(["{", {"x": 3}], return_exceptions=True)
        assert isinstance(found[0], RefusedError) and found[1]["label"] == "pos"
        with pytest.raises(RefusedError):
            CohobateRunnable(client).invoke("{")
        assert asyncio.run(CohobateRunnable(client).ainvoke({"x": 3}))["label"] == "pos"


def test_awaited(url):
    async def run():
        async with AsyncClient(url, deadline=90.0) as client:
            runnable = CohobateRunnable(aclient=client)
            return await runnable.ainvoke({"x": 3}), await runnable.abatch([{"x": 3}, {"x": -3}])

    one, many = asyncio.run(run())
    assert one["label"] == "pos" and [a["label"] for a in many] == ["pos", "neg"]
    with pytest.raises(ValueError, match="AsyncClient alone"):
        CohobateRunnable(aclient=AsyncClient(url, deadline=90.0)).invoke("a")
    with pytest.raises(ValueError, match="needs a Client"):
        CohobateRunnable()


def test_a_tool_for_agents(url):
    with Client(url, deadline=90.0) as client:
        made = tool(client, "sign_of", "Say whether a number is positive.")
        assert made.name == "sign_of" and set(made.args) == {"text"}
        assert made.invoke({"text": '{"x": 3}'})["label"] == "pos"
