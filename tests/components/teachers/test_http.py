import asyncio
import datetime
import email.utils
import logging
import threading
from time import sleep

import pytest
from starlette.responses import Response

from components.contracts.errors import ConfigError, TeacherError, UnansweredError, UnavailableError
from components.teachers.http import Endpoint, Http, RefusedError, _retry_after
from tests.clock import Time

PATH = "v2/models/mailer/infer"
BODY = {"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["hello"]}]}


@pytest.fixture
def endpoint(oip_server, quick):
    made = []

    def make(url=None, window_seconds=60, **options):
        made.append(Endpoint("t", url or oip_server.url, Http.of(quick | options), window_seconds))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ask(endpoint):
    return endpoint.post(PATH, BODY)["outputs"][0]["shape"]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_an_outage_that_passes_is_retried(oip_server, endpoint, status):
    one = endpoint()
    oip_server.faults += [status, status]
    assert ask(one) == [1, 2]
    state = one.state()
    assert (state["requests_total"], state["retries_total"], state["failures_total"]) == (3, 2, 2)
    assert state["breaker"] == "closed" and state["in_flight"] == 0


def test_an_outage_that_stays_is_unavailable_and_names_the_remedy(oip_server, endpoint):
    one = endpoint()
    oip_server.faults += [500] * 3
    with pytest.raises(UnavailableError, match=r"teacher t at http://127.*HTTP 500: .*fault 500.*after 3 attempts"):
        ask(one)
    assert len(oip_server.bodies) == 3


def test_retry_after_is_obeyed_and_is_no_failure(oip_server, endpoint, time):
    one = endpoint()
    oip_server.faults += [Response(status_code=429, headers={"retry-after": "1"})]
    assert ask(one) == [1, 2]
    assert len(oip_server.times) == 2 and time.slept == 1.0
    assert (one.state()["busy_total"], one.state()["failures_total"]) == (1, 0)


def test_retry_after_of_one_request_holds_all(oip_server, endpoint, time):
    one = endpoint(attempts=1)
    oip_server.faults += [Response(status_code=503, headers={"retry-after": "1"})]
    with pytest.raises(UnavailableError):
        ask(one)
    assert one.state()["retry_after_seconds"] == 1.0 and time.slept == 0.0
    assert ask(one) == [1, 2]
    assert time.slept == 1.0


def test_a_long_retry_after_ends_the_attempts_and_asks_nothing_more(oip_server, endpoint, time):
    one = endpoint(max_retry_after_seconds=5)
    oip_server.faults += [Response(status_code=429, headers={"retry-after": "600"})]
    with pytest.raises(UnavailableError, match="429"):
        ask(one)
    with pytest.raises(UnavailableError, match=r"pause of another 600 s"):
        ask(one)
    assert time.slept == 0.0 and len(oip_server.bodies) == 1


def test_retry_after_as_number_date_and_nonsense():
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert 0 < _retry_after(email.utils.format_datetime(later, usegmt=True)) <= 3600
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert (_retry_after("7"), _retry_after(None), _retry_after("soon")) == (7.0, None, None)


def test_slow_answers_end_at_the_time_out(oip_server, endpoint):
    one = endpoint(timeout_seconds=0.2, attempts=2)
    oip_server.faults += [600.0, 600.0]
    with pytest.raises(UnavailableError, match="ReadTimeout"):
        ask(one)
    assert one.state()["requests_total"] == 2, "the server may not have seen them yet"


def test_an_answer_that_drips_ends_at_the_time_out(endpoint, dripping, monkeypatch):
    monkeypatch.setattr("components.teachers.http.time", Passing())
    with pytest.raises(UnavailableError, match=r"no whole answer within 500\.0 s"):
        endpoint(url=dripping, timeout_seconds=500.0, attempts=1).get("x")


class Passing(Time):
    """Goes on by 200 s between two looks."""

    def monotonic(self):
        self.now += 200.0
        return self.now


@pytest.fixture
def dripping():
    """A server that sends a byte every 50 ms for ever."""
    import socket

    listening = socket.create_server(("127.0.0.1", 0))

    def run():
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            try:
                while True:
                    connection.sendall(b" ")
                    sleep(0.05)
            except OSError:
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
    thread.join(5)


def test_a_connection_that_is_reset_in_the_middle_is_retried(resetting, endpoint):
    server = resetting(2)
    assert endpoint(url=server.url).get("x") == {"ok": True}
    assert server.seen == 3
    with pytest.raises(UnavailableError, match=r"ReadError|RemoteProtocolError"):
        endpoint(url=resetting(3).url).get("x")


def test_nobody_listens(endpoint):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UnavailableError, match="ConnectError"):
            endpoint(url=f"http://127.0.0.1:{free.getsockname()[1]}").get("x")


@pytest.mark.parametrize("text", ['{"outputs": [', "<html>gateway</html>", '{"x": NaN}', "\xff"])
def test_an_answer_that_is_no_json_is_the_teachers_fault_and_not_retried(oip_server, endpoint, text):
    oip_server.faults += [Response(text.encode("latin-1"), media_type="application/json")]
    with pytest.raises(TeacherError, match="not JSON"):
        ask(endpoint())
    assert len(oip_server.bodies) == 1


def test_refusals_are_not_retried(oip_server, endpoint):
    one = endpoint()
    oip_server.faults += [422]
    with pytest.raises(RefusedError, match="HTTP 422") as caught:
        ask(one)
    assert caught.value.status == 422 and one.state()["failures_total"] == 0
    oip_server.faults += [Response(status_code=307, headers={"location": "https://elsewhere/"})]
    with pytest.raises(TeacherError, match="redirects to 'https://elsewhere/'"):
        ask(one)


def test_the_breaker_opens_and_closes_again(oip_server, endpoint, caplog, time):
    one = endpoint(attempts=1, breaker_failures=2, breaker_seconds=0.3)
    oip_server.faults += [500, 500, 500]
    for _ in range(2):
        with pytest.raises(UnavailableError, match="HTTP 500"):
            ask(one)
    assert one.state()["breaker"] == "opened" and one.state()["breaker_opened_at"] == time.now
    with pytest.raises(UnavailableError, match=r"circuit breaker is open for another 0\.3 s after 2 failures"):
        ask(one)
    assert len(oip_server.bodies) == 2, "an open breaker sends nothing"
    time.sleep(0.31)
    with pytest.raises(UnavailableError, match="HTTP 500"):
        ask(one)
    assert one.state()["breaker"] == "opened", "half open, one failure opens it again"
    time.sleep(0.31)
    assert ask(one) == [1, 2]
    assert one.state()["breaker"] == "closed"
    assert [r.message for r in caplog.records if "breaker" in r.message] == [
        "teacher t: circuit breaker opened", "teacher t: circuit breaker opened", "teacher t: circuit breaker closed",
    ]  # fmt: skip


def test_past_an_open_breaker_requests_are_sent_and_an_answer_closes_it(oip_server, endpoint, time):
    one = endpoint(attempts=3, breaker_failures=2, breaker_seconds=60.0)
    oip_server.faults += [500] * 2
    with pytest.raises(UnansweredError, match="circuit breaker is open"):
        ask(one)
    assert one.state()["breaker"] == "opened" and len(oip_server.bodies) == 2
    oip_server.faults += [500] * 4
    with pytest.raises(UnansweredError, match="HTTP 500"), one.past_breaker(once=False):
        ask(one)
    with pytest.raises(UnansweredError, match="HTTP 500"), one.past_breaker(once=True):
        ask(one)
    assert len(oip_server.bodies) == 2 + 3 + 1 and one.state()["breaker"] == "opened"
    with pytest.raises(UnavailableError, match="circuit breaker is open") as caught:
        ask(one)
    assert not isinstance(caught.value, UnansweredError), "it was not sent"
    with one.past_breaker(once=True):
        assert ask(one) == [1, 2]
    assert one.state()["breaker"] == "closed" and ask(one) == [1, 2]


def test_failures_past_the_breaker_do_not_open_it(oip_server, endpoint, time):
    one = endpoint(attempts=1, breaker_failures=2, breaker_seconds=60.0)
    oip_server.faults += [500] * 4
    for _ in range(4):
        with pytest.raises(UnansweredError), one.past_breaker(once=True):
            ask(one)
    assert one.state()["breaker"] == "closed" and ask(one) == [1, 2]


@pytest.mark.parametrize(
    "fault", [429, Response(status_code=503, headers={"retry-after": "0"}), 401], ids=["busy", "retry later", "key"]
)
def test_what_a_server_says_of_itself_is_no_fault_of_the_request(oip_server, endpoint, fault):
    one = endpoint(attempts=1)
    oip_server.faults += [fault]
    with pytest.raises(UnavailableError) as caught:
        ask(one)
    assert not isinstance(caught.value, UnansweredError)


def test_no_more_requests_at_once_than_allowed(oip_server, endpoint):
    one = endpoint(concurrency=3)

    async def until_three_are_under_way():
        while oip_server.under_way < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # a fourth one would come now

    oip_server.faults += [until_three_are_under_way] * 3
    threads = [threading.Thread(target=ask, args=(one,)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert oip_server.most_under_way == 3 and one.state()["in_flight"] == 0


def test_request_and_token_limits_hold_on_the_wire(oip_server, endpoint, time):
    one = endpoint(requests_per_minute=5, window_seconds=1, concurrency=8)
    one.each(lambda item: one.post(PATH, BODY), [str(i) for i in range(11)])
    assert len(oip_server.times) == 11 and 2.0 <= time.slept < 2.1
    assert one.state()["rate_wait_seconds_total"] == time.slept
    two, before = endpoint(tokens_per_minute=100, window_seconds=1), time.slept
    for _ in range(2):
        two.post(PATH, BODY, tokens=40)
    assert two.state()["rate_wait_seconds_total"] == 0.0
    two.post(PATH, BODY, tokens=40)
    assert time.slept - before >= 1.0 and len(oip_server.times) == 14


def test_what_was_answered_before_a_failure_is_not_asked_again(oip_server, endpoint):
    one, asked = endpoint(attempts=1), []

    def send(item):
        asked.append(item)
        one.post(PATH, BODY)
        return item.upper()

    oip_server.faults += [500]
    with pytest.raises(UnavailableError):
        one.each(send, ["a", "b", "c", "b"])
    assert sorted(asked) == ["a", "b", "c"], "the same item is asked once"
    assert one.each(send, ["a", "b", "c", "b"]) == ["A", "B", "C", "B"]
    assert len(asked) == 4
    assert one.each(send, ["a"]) == ["A"] and len(asked) == 5, "and nothing is kept for longer"
    assert one.each(send, []) == []


def test_past_the_breaker_answers_are_kept_until_they_are_asked_for(oip_server, endpoint):
    one, asked = endpoint(attempts=1, concurrency=1), []

    def send(item):
        asked.append(item)
        one.post(PATH, BODY | {"parameters": {"item": item}})
        return item.upper()

    oip_server.fatal['"item": "c"'] = 500
    with one.past_breaker(once=True):
        with pytest.raises(UnansweredError) as caught:
            one.each(send, list("abcd"))
        assert caught.value.payloads == ("c",)
        assert one.each(send, ["a"]) == ["A"], "alone it is sent: it is to prove something"
        asked.clear()
        assert one.each(send, ["b", "d"]) == ["B", "D"] and asked == []
        assert one.each(send, ["b", "d"]) == ["B", "D"] and asked == ["b", "d"]


def test_the_key_comes_from_environment_or_file_and_is_seen_nowhere_else(
    oip_server, endpoint, monkeypatch, tmp_path, caplog
):
    secret = "sk-very-secret-123"  # noqa: S105
    monkeypatch.setenv("TEACHER_KEY", secret)
    with caplog.at_level(logging.DEBUG):
        one = endpoint(api_key_env="TEACHER_KEY")
        ask(one)
        assert oip_server.headers[-1]["authorization"] == f"Bearer {secret}"
        oip_server.faults += [Response(f"bad key {secret}", 401), Response(f"what is {secret}", 400)]
        with pytest.raises(UnavailableError, match=r"refuses the key \(HTTP 401: bad key \*\*\*.*TEACHER_KEY") as first:
            ask(one)
        with pytest.raises(RefusedError, match=r"what is \*\*\*") as second:
            ask(one)
    assert secret not in f"{caplog.text}{first.value}{second.value}{one.state()}{one.options!r}{vars(one)}"
    file = tmp_path / "key"
    file.write_text("first\n")
    two = endpoint(api_key_file=str(file), api_key_header="api-key")
    ask(two)
    file.write_text("second\n")
    ask(two)
    assert [h["api-key"] for h in oip_server.headers[-2:]] == ["first", "second"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attempts": 0}, "attempts"),
        ({"retries": 3}, "retries"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY.*holds no key"),
        ({"api_key_file": "/no/such/file"}, "cannot be read: No such file"),
        ({"api_key_file": "a", "api_key_env": "b"}, "not both"),
        ({"ca_file": "/no/such/file"}, "ca_file"),
    ],
)
def test_options_that_are_refused(endpoint, options, says):
    with pytest.raises(ConfigError, match=says):
        endpoint(**options)


@pytest.mark.parametrize("url", ["ftp://host", "host:80", "http://", "http://h:port"])
def test_urls_that_are_refused(endpoint, url):
    with pytest.raises(ConfigError, match="url"):
        endpoint(url=url)


def test_a_password_in_the_url_is_refused_and_not_repeated(endpoint):
    with pytest.raises(ConfigError, match="no user or password") as caught:
        endpoint(url="http://me:hunter2@host/")
    assert "hunter2" not in str(caught.value)


def test_a_key_in_the_options_is_refused_and_not_repeated(endpoint):
    with pytest.raises(ConfigError, match="unknown field `api_key`") as caught:
        endpoint(api_key="hunter2")
    assert "hunter2" not in str(caught.value)


def test_answers_that_are_too_large_are_refused(oip_server, endpoint, monkeypatch):
    monkeypatch.setattr("components.teachers.http.MAX_RESPONSE_BYTES", 10)
    with pytest.raises(TeacherError, match="more than 10 bytes"):
        ask(endpoint())
