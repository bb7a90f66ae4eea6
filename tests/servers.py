"""Real servers on the loopback for as long as a block runs."""

import contextlib
import threading
import time

import uvicorn


@contextlib.contextmanager
def serving(server):
    """A server of ``http.server`` or the like, in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    with contextlib.closing(server.socket):
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def answering(app):
    """An ASGI application on a free port: its host and port."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "it did not start"
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join()
