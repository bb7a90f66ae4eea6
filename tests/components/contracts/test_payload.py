import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import ConfigError, RecordError
from components.contracts.payload import decoder
from components.contracts.spec import Payload

OWN = """
from components.contracts.errors import RecordError

def decode(payload):
    if payload == b"refuse":
        raise RecordError("not_mine", "as I say")
    return payload.decode().split(":", 1)[1]
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    return decoder(Payload(decoder="mine.py:decode"), str(tmp_path / "spec.yaml"))


def reason_of(decode, payload):
    with pytest.raises(RecordError) as caught:
        decode(payload)
    return caught.value.reason


def test_each_kind_decodes():
    assert decoder(Payload())(b"\xff\x00") == b"\xff\x00"
    assert decoder(Payload(decoder="text"))("grüße".encode()) == "grüße"
    assert decoder(Payload(decoder="json"))(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


@pytest.mark.parametrize("kind", ["raw", "text", "json"])
def test_empty_and_oversize(kind):
    decode = decoder(Payload(decoder=kind, max_bytes=4))
    assert reason_of(decode, b"") == "empty"
    assert reason_of(decode, b"12345") == "oversize"
    decode(b"1234")


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("text", b"\xff\xfe"),
        ("text", "ü".encode("latin-1")),
        ("json", b"{"),
        ("json", b"\xff"),
        ("json", b'{"x": NaN'),
        ("json", b"[" * 60_000),
    ],
)
def test_undecodable(kind, payload):
    assert reason_of(decoder(Payload(decoder=kind)), payload) == "undecodable"


@pytest.mark.parametrize("payload", [b"NaN", b'{"x": [1, -Infinity]}', b"[1e999]"])
def test_json_that_only_a_number_spoils_says_so(payload):
    assert reason_of(decoder(Payload(decoder="json")), payload) == "not_finite"


@given(st.binary(max_size=40))
def test_every_payload_is_decoded_or_refused_with_a_reason(payload):
    for kind in ("raw", "text", "json"):
        try:
            decoder(Payload(decoder=kind))(payload)
        except RecordError as error:
            assert error.reason in ("empty", "undecodable", "not_finite") and error.detail


def test_a_decoder_of_ones_own(own):
    assert own(b"k:v") == "v"
    assert reason_of(own, b"refuse") == "not_mine"


def test_a_decoder_that_fails_makes_poison_and_no_crash(own):
    assert reason_of(own, b"no colon") == "decoder_failed"
    assert reason_of(own, b"\xff") == "decoder_failed"


def test_an_unknown_decoder_is_refused_at_once():
    with pytest.raises(ConfigError, match="form module:name"):
        decoder(Payload(decoder="yaml"))
