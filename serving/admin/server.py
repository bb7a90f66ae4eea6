"""The admin API as a server of its own: bound first, warmed, said where, and stopped by an event."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator

import msgspec
import uvicorn
from fastapi import FastAPI

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings, is_loopback

log = logging.getLogger(__name__)

STOP_SECONDS = 5
"""How long requests that wait for an outcome may go on when the server is stopped."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a home's admin API answers: ``<home>/admin.json``."""

    url: str
    pid: int


@contextlib.contextmanager
def served(app: FastAPI, settings: Settings) -> Iterator[str]:
    """Answer while the block runs; gives the URL.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine's.

    """
    if settings.admin_auth == "off":
        log.warning("WARNING: COHOBATE_ADMIN_AUTH=off: everybody on this machine may do everything, as 'anonymous'")
    elif not is_loopback(settings.admin_host):
        log.warning("the admin API answers at %s without TLS: put it behind a proxy that has it", settings.admin_host)
    listening = _listen(settings)
    host = f"[{settings.admin_host}]" if ":" in settings.admin_host else settings.admin_host
    url = f"http://{host}:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=STOP_SECONDS, server_header=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    app.state.warm()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="admin", daemon=True)
    thread.start()
    place = settings.home / "admin.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.with_suffix(".tmp").write_bytes(msgspec.json.encode(Address(url=url, pid=os.getpid())))
    place.with_suffix(".tmp").replace(place)
    try:
        yield url
    finally:
        place.unlink(missing_ok=True)
        app.state.closing.set()
        server.should_exit = True
        thread.join()
        listening.close()


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.admin_host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.admin_host, settings.admin_port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        allowed = f"must be free at COHOBATE_ADMIN_HOST={settings.admin_host} ({error.strerror}); 0 takes any free port"
        raise ConfigError("COHOBATE_ADMIN_PORT", settings.admin_port, allowed) from error
    return listening
