"""A workload as a plugin of Semantic Kernel. Needs ``semantic-kernel``, which has an environment of its own.

Its pins (pydantic, websockets) do not resolve beside those of the platform, so it is no extra: where an agent runs, put
this package on the path beside httpx, msgspec and tenacity, which are all that the client needs.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from semantic_kernel.functions import kernel_function

from serving.client.client import AsyncClient


class CohobatePlugin:
    """``kernel.add_plugin(CohobatePlugin(client), plugin_name="tickets")``."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @kernel_function(name="classify", description="Say which class a text is of, and how sure that is.")
    async def classify(self, text: Annotated[str, "The text to classify."]) -> Annotated[str, "JSON of the answer."]:
        """The answer to a text as JSON."""
        return msgspec.json.encode(await self._client.predict(text=text)).decode()
