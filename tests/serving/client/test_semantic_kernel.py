"""A workload in Semantic Kernel, in an environment of its own, since its pins do not resolve beside ours.

``COHOBATE_TEST_SEMANTIC_KERNEL`` names that environment's Python (``python3 -m venv DIR && DIR/bin/pip install
semantic-kernel httpx msgspec tenacity``).
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("COHOBATE_TEST_SEMANTIC_KERNEL", "")

pytestmark = pytest.mark.skipif(not PYTHON, reason="COHOBATE_TEST_SEMANTIC_KERNEL names no Python with semantic-kernel")

AGENT = """
import asyncio, json, sys
from openai import AsyncOpenAI
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.contents import ChatHistory
from serving.client import AsyncClient
from serving.client.semantic_kernel import CohobatePlugin


async def main(url):
    kernel = Kernel()
    async with AsyncClient(url) as client:
        kernel.add_plugin(CohobatePlugin(client), plugin_name="signs")
        by_plugin = str(await kernel.invoke(plugin_name="signs", function_name="classify", text='{"x": 3}'))
    chat = OpenAIChatCompletion(ai_model_id="signs", async_client=AsyncOpenAI(base_url=url + "/v1", api_key="none"))
    history = ChatHistory()
    history.add_user_message('{"x": 0.2}')
    settings = OpenAIChatPromptExecutionSettings(extra_body={"logprobs": True, "top_logprobs": 2})
    said = await chat.get_chat_message_content(history, settings)
    logprobs = said.inner_content.choices[0].logprobs.content[0].top_logprobs
    return {"plugin": json.loads(by_plugin), "chat": said.content, "classes": [top.token for top in logprobs]}


print(json.dumps(asyncio.run(main(sys.argv[1]))))
"""


def test_as_a_plugin_and_as_its_chat_model(url):
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [PYTHON, "-c", AGENT, url], capture_output=True, text=True, timeout=180,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["plugin"]["label"] == "pos" and told["chat"] == "pos" and told["classes"] == ["pos", "neg"]
