"""Where answers may be sent to, and how."""

import base64
import json

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook, WebhookVerificationError

from components.contracts.errors import ConfigError
from components.notify.callbacks import allowed, callback, signed, signing_key

KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    "url",
    [
        "https://robots.example.evil/hooks", "https://robots.example:444/hooks", "https://evil/?https://robots.example/hooks",
        "https://robots.example@evil/hooks", "https://robots.example/hooks/%2e%2e/admin", "//robots.example/hooks",
        "https://robots.example/hooks/..", "https://robots.example/hooks\\..\\admin", "ftp://robots.example/hooks",
        "https://robots.example/hooks /", "https://robots.example:99999/hooks", "file:///hooks", "",
        "https://robots.example/hooks#/../x", "http://169.254.169.254/latest",
    ],
)  # fmt: skip
def test_nothing_is_sent_where_the_spec_does_not_allow_it(url):
    assert not allowed(url, ["https://robots.example/hooks/"])


def test_a_host_alone_allows_all_of_its_paths_and_no_address_allows_none():
    assert allowed("http://10.0.0.7:8080/any/thing?x=1", ["http://10.0.0.7:8080"])
    assert not allowed("http://10.0.0.7:8080/any", [])


@pytest.mark.parametrize("secret", [None, "", "short", base64.b64encode(b"x" * 23).decode(), "!" * 40])
def test_a_secret_that_is_no_key_is_refused_and_not_shown(secret):
    with pytest.raises(ConfigError, match="24 random bytes") as refused:
        signing_key(secret)
    assert not secret or secret not in str(refused.value)


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_an_event_is_read_and_verified_by_the_libraries_of_its_receivers(mode):
    import time

    data = {"id": "r1", "predictions": [{"label": "sp\u00e4m"}]}
    body = signed(callback("r1", "mail", 1_700_000_000.25, data, mode), "r1", time.time(), signing_key(f"whsec_{KEY}"))
    event = from_http_event(HTTPMessage(headers={k.lower(): v for k, v in body.headers.items()}, body=body.content))
    assert (event.get_type(), event.get_source()) == ("dev.cohobate.request.answered.v1", "/cohobate/mail")
    assert (event.get_id(), event.get_subject(), event.get_time().timestamp()) == ("r1", "r1", 1_700_000_000.25)
    assert event.get_data() == data and (b"specversion" in body.content) == (mode == "structured")
    assert Webhook(KEY).verify(body.content, body.headers) == json.loads(body.content)
    with pytest.raises(WebhookVerificationError):
        Webhook(KEY).verify(body.content.replace(b"r1", b"r2"), body.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(base64.b64encode(b"another" * 5).decode()).verify(body.content, body.headers)
