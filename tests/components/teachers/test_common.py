import threading

import pytest

from components.contracts.errors import UnavailableError
from components.control.store import ControlStore
from components.teachers import common as module
from components.teachers.common import PIECES, Common
from components.teachers.http import Endpoint, Http
from components.teachers.rate import Rate
from tests.clock import Clock, Time
from tests.stores import migrated

NOW = 1_700_000_000.0
FIELD = "http.requests_per_minute"


@pytest.fixture
def clock():
    return Clock(NOW)


@pytest.fixture
def asker(store, clock, monkeypatch):
    """Those who ask one teacher, each as in a process of its own."""
    monkeypatch.setattr(module, "HEARD_SECONDS", 0.0)
    return lambda workload="w": Common(store, workload, clock)


def test_two_who_ask_share_one_window_and_another_workload_has_its_own(asker, clock):
    one, other = asker(), asker()
    assert [one.take(FIELD, 1, 3, 60), other.take(FIELD, 1, 3, 60), one.take(FIELD, 1, 3, 60)] == [0.0, 0.0, 0.0]
    wait = other.take(FIELD, 1, 3, 60)
    assert 60.0 <= wait <= 60.0 + 60.0 / PIECES
    assert asker("elsewhere").take(FIELD, 1, 3, 60) == 0.0
    assert one.take("http.tokens_per_minute", 3, 3, 60) == 0.0
    clock.now += wait
    assert other.take(FIELD, 3, 3, 60) == 0.0


def test_in_no_window_is_more_taken_than_allowed_whoever_takes(asker, clock):
    askers, taken = [asker() for _ in range(3)], []
    for step in range(600):
        clock.now = NOW + step * 0.037
        if askers[step % 3].take(FIELD, 1, 5, 1.0) == 0.0:
            taken.append(clock.now)
    assert max(sum(t <= other < t + 1.0 for other in taken) for t in taken) == 5
    assert len(taken) >= 5 * (int(600 * 0.037) - 1), "and it is used"


def test_what_was_used_beyond_is_owed_as_far_as_there_is_room(asker):
    one, other = asker(), asker()
    one.take(FIELD, 4, 10, 60)
    one.owe(FIELD, 3, 10, 60)
    assert other.take(FIELD, 4, 10, 60) > 0 and other.take(FIELD, 3, 10, 60) == 0.0
    one.owe(FIELD, 100, 10, 60)
    assert other.take(FIELD, 1, 10, 60) > 0


def test_takes_at_the_same_moment_never_exceed_the_limit(tmp_path):
    url = f"sqlite:///{tmp_path}/control.db"
    migrated(url).close()
    granted = []

    def take():
        store = ControlStore(url)
        one = Common(store, "w", lambda: NOW)
        granted.extend(one.take(FIELD, 1, 10, 60) == 0.0 for _ in range(5))
        store.close()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 10 and len(granted) == 20


def test_a_rate_that_is_shared_waits_for_what_others_took(asker, clock, monkeypatch):
    mine, theirs = Rate(FIELD, 2, 60), Rate(FIELD, 2, 60)
    mine.common, theirs.common = asker(), asker()

    class Sleeping(Time):
        def sleep(self, seconds):
            super().sleep(seconds)
            clock.now += seconds

    time = Sleeping()
    monkeypatch.setattr("components.teachers.rate.time", time)
    theirs.take(2)
    mine.take(1)
    assert 59.0 < time.slept < 61.0


@pytest.fixture
def endpoints(asker, answering, quick, time):
    """Two processes' endpoints of one server, which answers as ``server.says`` tells."""
    options = Http.of(quick | {"attempts": 1, "breaker_failures": 2, "breaker_seconds": 30.0})
    found = [Endpoint("mailer", answering.url, options) for _ in range(2)]
    for endpoint in found:
        endpoint.shared(asker())
    yield found
    for endpoint in found:
        endpoint.close()


class Answers:
    """A small server that fails or answers."""

    def __init__(self):
        import http.server

        stage = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                stage.requests += 1
                self.send_response(stage.status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.status, self.requests = 200, 0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def answering():
    made = Answers()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_what_one_finds_out_of_an_outage_the_others_know(endpoints, answering, clock):
    first, second = endpoints
    answering.status = 503
    for _ in range(2):
        with pytest.raises(UnavailableError):
            first.post("x", {})
    assert answering.requests == 2
    with pytest.raises(UnavailableError, match="another one who asks it is open for 30"):
        second.post("x", {})
    assert answering.requests == 2, "no request was sent"
    answering.status = 200
    with second.past_breaker(once=True):
        assert second.post("x", {}) == {}
    clock.now += 31.0
    assert second.post("x", {}) == {} and answering.requests == 4


def test_one_that_finds_the_server_back_tells_the_others(endpoints, answering):
    first, second = endpoints
    answering.status = 503
    for _ in range(2):
        with pytest.raises(UnavailableError):
            first.post("x", {})
    answering.status = 200
    with first.past_breaker(once=True):
        first.post("x", {})
    assert second.post("x", {}) == {}


def test_without_the_database_nothing_is_asked_past_a_limit(asker, store):
    one = asker()
    with store.transaction() as s:
        s.connection().exec_driver_sql("DROP TABLE teacher_access")
    for ask in (lambda: one.take(FIELD, 1, 3, 60), one.away, lambda: one.outage(3.0)):
        with pytest.raises(UnavailableError, match="control database"):
            ask()
