"""A workload in LangChain: a runnable, and a tool for agents. Needs ``langchain-core`` (extra ``agents``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import StructuredTool

from serving.client.client import AsyncClient, Client
from serving.client.errors import RefusedError
from serving.client.inputs import given
from serving.gateway.wire import Answered, Item

Asked = str | bytes | Item | dict[str, Any]
"""An input: text, bytes, one as :func:`~serving.client.inputs.given` makes it, or the JSON value of a dictionary."""

Told = dict[str, Any]
"""An answer as ``/v1/predict`` gives it."""


class CohobateRunnable(Runnable[Asked, Told]):
    """Answers inputs; a batch is asked as one. ``client`` is asked by ``invoke``, ``aclient`` by ``ainvoke``.

    Raises:
        ValueError: neither is given.

    """

    def __init__(self, client: Client | None = None, aclient: AsyncClient | None = None) -> None:
        if client is None and aclient is None:
            raise ValueError("a runnable needs a Client, an AsyncClient or both")
        self._client, self._aclient = client, aclient

    def invoke(self, input: Asked, config: RunnableConfig | None = None, **_: Any) -> Told:
        """The answer to one input; errors are those of :class:`~serving.client.client.Client`."""
        return self.batch([input], config)[0]

    def batch(
        self, inputs: list[Asked], config: Any = None, *, return_exceptions: bool = False, **_: Any
    ) -> list[Told]:  # fmt: skip
        """The answers to many, in order."""
        if self._client is None:
            raise ValueError("this runnable has an AsyncClient alone: await ainvoke or abatch")
        return _told(self._client.predict_many([_item(i) for i in inputs]), return_exceptions)

    async def ainvoke(self, input: Asked, config: RunnableConfig | None = None, **_: Any) -> Told:
        """As :meth:`invoke`, which a thread runs where there is no ``aclient``."""
        if self._aclient is None:
            return await super().ainvoke(input, config)
        return (await self.abatch([input], config))[0]

    async def abatch(
        self, inputs: list[Asked], config: Any = None, *, return_exceptions: bool = False, **_: Any
    ) -> list[Told]:  # fmt: skip
        """As :meth:`batch`."""
        if self._aclient is None:
            return await super().abatch(inputs, config, return_exceptions=return_exceptions)
        return _told(await self._aclient.predict_many([_item(i) for i in inputs]), return_exceptions)


def tool(client: Client, name: str, description: str) -> StructuredTool:
    """A tool that an agent calls with a text and gets an answer from."""

    def classify(text: str) -> Told:
        return _builtins(client.predict(text=text))

    return StructuredTool.from_function(classify, name=name, description=description)


def _builtins(answer: Answered) -> Told:
    return dict(msgspec.to_builtins(answer))


def _item(value: Asked) -> Item:
    if isinstance(value, Item):
        return value
    if isinstance(value, str):
        return given(text=value)
    return given(payload=value) if isinstance(value, bytes) else given(json=value)


def _told(answers: Sequence[Answered], return_exceptions: bool) -> list[Any]:
    found: list[Any] = []
    for answer in answers:
        if answer.error is None:
            found.append(_builtins(answer))
            continue
        error = RefusedError(answer.error)
        if not return_exceptions:
            raise error
        found.append(error)
    return found
