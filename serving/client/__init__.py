"""A typed client of the gateway, and what agents' frameworks take of it."""

from serving.client.client import AsyncClient, Client
from serving.client.errors import ClientError, DeferredError, RefusedError, UnavailableError
from serving.client.inputs import given
from serving.gateway.wire import Answered, Model

__all__ = [
    "Answered", "AsyncClient", "Client", "ClientError", "DeferredError", "Model", "RefusedError", "UnavailableError",
    "given",
]  # fmt: skip
