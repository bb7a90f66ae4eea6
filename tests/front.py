"""What stands before an HTTP service, hands everything on to it, and can say for it that it is unavailable."""

import contextlib
import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = {"connection", "keep-alive", "transfer-encoding"}
"""Headers of one connection only (RFC 9110, 7.6.1)."""


class Front(ThreadingHTTPServer):
    """``away``: every request is answered 503; ``refused`` counts those."""

    daemon_threads = True

    def __init__(self, address, target):
        super().__init__((address, 0), Handler)
        self.target, self.away, self.refused = urlsplit(target).netloc, False, 0

    @property
    def url(self):
        address, port = self.server_address
        return f"http://{address}:{port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.away:
            self.server.refused += 1
            self.tell(503, [], b"")
            return
        with contextlib.closing(http.client.HTTPConnection(self.server.target, timeout=60)) as behind:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            behind.request(self.command, self.path, body, headers)
            answer = behind.getresponse()
            self.tell(answer.status, answer.getheaders(), answer.read())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one

    def tell(self, status, headers, body):
        self.send_response_only(status)
        given = [(name, value) for name, value in headers if name.lower() not in HOP]
        if not any(name.lower() == "content-length" for name, _ in given):
            given.append(("Content-Length", str(len(body))))
        for name, value in given:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


@contextlib.contextmanager
def standing(address, target):
    """One before ``target``, at a free port of ``address``, until the block ends."""
    front = Front(address, target)
    serving = threading.Thread(target=front.serve_forever)
    serving.start()
    try:
        yield front
    finally:
        front.shutdown()
        serving.join()
        front.server_close()
