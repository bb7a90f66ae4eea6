#!/usr/bin/env bash
# A tool of the Model Context Protocol that takes an optional text gets a dictionary where the text spells a JSON object:
# the Python SDK reads every text as JSON first unless the argument's type is exactly str.
#
# Version: mcp 2.3.0 (Python 3.11).
# Seen: asked with the text {"a": 1}, a tool with `text: str | None` refuses it, since the dictionary that was made of it
#   is no text; one with `text: str` gets the text, and one with `text: Any` the dictionary.
# Expected: a JSON text in the request is a text in the tool, whatever its letters.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mcp==2.3.0
cat > "$folder/look.py" <<'PYTHON'
import asyncio
from typing import Any

from mcp import Client
from mcp.server import MCPServer

server = MCPServer(name="look")


@server.tool()
async def exact(text: str) -> str:
    return type(text).__name__


@server.tool()
async def optional(text: str | None = None) -> str:
    return type(text).__name__


@server.tool()
async def anything(text: Any) -> str:
    return type(text).__name__


async def main() -> None:
    async with Client(server) as client:
        for name in ("exact", "optional", "anything"):
            for sent in ("plain", '{"a": 1}'):
                told = await client.call_tool(name, {"text": sent})
                print(name, sent, "refused" if told.is_error else told.content[0].text)


asyncio.run(main())
PYTHON
"$folder/venv/bin/python" "$folder/look.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
exact plain str
exact {"a": 1} str
optional plain str
optional {"a": 1} refused
anything plain str
anything {"a": 1} dict
SEEN
