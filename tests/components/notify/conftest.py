import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.clock import Clock
from tests.servers import serving


@pytest.fixture
def clock():
    return Clock(1_700_000_000.0)


@pytest.fixture
def store(store, clock):
    store.clock = clock
    return store


class Receiver:
    """A real HTTP server that keeps what it is sent; ``statuses`` are answered in turn, then 200."""

    def __init__(self):
        self.got, self.statuses, self.headers = [], [], {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((dict(self.headers), body))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 200)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/T0/secret-path"

    def bodies(self):
        return [json.loads(body) for _, body in self.got]


@pytest.fixture
def receiver():
    made = Receiver()
    with serving(made.server):
        yield made
