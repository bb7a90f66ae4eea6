import contextlib
import hashlib
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.admission import (
    ATTEMPTS_HEADER,
    DETAIL_CHARS,
    LETTER_BYTES,
    SIDE_BYTES,
    admit,
    attempts,
    dead_letter,
    is_finite,
)
from components.contracts.errors import ConfigError, RecordError
from components.contracts.records import DeadLetter, Input, decode, encode
from components.contracts.spec import Admission, Consent, Factory, Payload, Spec, load_spec
from components.stream.contract import MAX_RECORD_BYTES, Record
from infra.workloads import BUILT_IN

NOW = 1_700_000_000.0
DAY = 86_400.0
DECODERS = """
def fails(payload):
    raise KeyError("field" + payload.decode("latin-1"))

def numbers(payload):
    import numpy as np
    return {"x": np.array([float(n) for n in payload.split()])}
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "own.py").write_text(DECODERS)
    return Spec(
        name="w",
        teacher=Factory(factory="t:T"),
        features=Factory(factory="f:F"),
        payload=Payload(decoder="json", max_bytes=100),
        admission=Admission(max_age_seconds=30 * DAY),
        consent=Consent(required=True, allowed=("training", "research")),
        source=str(tmp_path / "spec.yaml"),
    )


def record(value, headers=None, key=b"k"):
    return Record("w.inputs", 2, 7, key, value, headers or {}, NOW)


def entry(**changes):
    fields = {"workload": "w", "id": "i", "key": "k", "time": NOW, "payload": b"[1]", "consent": "training"}
    return encode(Input(**{**fields, **changes}))


def without(name):
    fields = msgspec.msgpack.decode(entry())
    del fields[name]
    return msgspec.msgpack.encode(fields)


def raw(**changes):
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(entry()), **changes})


POISON = {
    "no value at all": (None, "empty"),
    "empty record": (b"", "empty"),
    "empty payload": (entry(payload=b""), "empty"),
    "not a record": (b"\xff\xfe", "undecodable"),
    "nested without end": (b"\x82\xa6schema\x01\xa1x" + b"\x91" * 100_000, "undecodable"),
    "payload is no JSON": (entry(payload=b"{"), "undecodable"),
    "another major version": (raw(schema=2), "unknown_schema"),
    "time is NaN": (raw(time=math.nan), "not_finite"),
    "time is infinite": (raw(time=math.inf), "not_finite"),
    "NaN in the payload": (entry(payload=b'{"x": NaN}'), "not_finite"),
    "no key": (without("key"), "key_missing"),
    "empty key": (entry(key=""), "key_missing"),
    "no payload": (without("payload"), "invalid"),
    "another type": (raw(id=7), "invalid"),
    "time before 1970": (raw(time=-1.0), "invalid"),
    "another workload": (entry(workload="v"), "wrong_workload"),
    "from the future": (entry(time=NOW + DAY + 1), "future_time"),
    "ancient": (entry(time=NOW - 30 * DAY - 1), "ancient_time"),
    "no consent": (entry(consent=None), "consent_missing"),
    "other consent": (entry(consent="billing only"), "consent_refused"),
    "too large": (entry(payload=b'"' + b"x" * 100 + b'"'), "oversize"),
}


@pytest.mark.parametrize(("value", "reason"), POISON.values(), ids=POISON)
def test_every_poison_has_its_reason(spec, value, reason):
    with pytest.raises(RecordError) as caught:
        admit(record(value), spec, NOW)
    assert caught.value.reason == reason and caught.value.detail
    letter = dead_letter(record(value), caught.value, "w", NOW)
    assert decode(DeadLetter, encode(letter)) == letter
    assert (letter.reason, letter.value, letter.cut) == (reason, value or b"", False)


def test_a_good_input_comes_with_its_decoded_payload(spec):
    found, payload = admit(record(entry(payload=b'{"x": [1.5]}')), spec, NOW)
    assert (found.id, payload) == ("i", {"x": [1.5]})


@pytest.mark.parametrize("time", [NOW + DAY, NOW - 30 * DAY])
def test_times_at_the_limits_are_admitted(spec, time):
    assert admit(record(entry(time=time)), spec, NOW)[0].time == time


@pytest.mark.parametrize("consent", [None, "anything"])
def test_without_rules_any_consent_and_any_age_are_admitted(spec, consent):
    lax = msgspec.structs.replace(spec, consent=Consent(), admission=Admission())
    assert admit(record(entry(consent=consent, time=1.0)), lax, NOW)[0].consent == consent


def test_allowed_terms_do_not_require_terms(spec):
    named = msgspec.structs.replace(spec, consent=Consent(allowed=("training",)))
    admit(record(entry(consent=None)), named, NOW)
    with pytest.raises(RecordError, match="'research' is not one of training"):
        admit(record(entry(consent="research")), named, NOW)


@pytest.mark.parametrize("workload", ["files", "mail"])
def test_the_built_in_workloads_take_mail_of_2002(workload):
    spec = load_spec(BUILT_IN / f"{workload}.yaml")
    old = entry(workload=workload, time=1_030_000_000.0, payload=b"text", consent=None)
    assert admit(record(old), spec, NOW)[1]


def own(spec, name, **changes):
    return msgspec.structs.replace(spec, payload=Payload(decoder=f"own.py:{name}"), **changes)


def test_a_decoder_that_fails_is_named_and_its_text_is_bounded_and_encodable(spec):
    bad = record(entry(payload=b"\xff" * 60_000))
    with pytest.raises(RecordError) as caught:
        admit(bad, own(spec, "fails"), NOW)
    assert caught.value.reason == "decoder_failed"
    letter = dead_letter(bad, caught.value, "w", NOW)
    assert letter.error == "KeyError" and len(letter.detail) <= DETAIL_CHARS
    odd = dead_letter(bad, RecordError("r" * 500, "lone \ud800 surrogate"), "w", NOW)
    assert decode(DeadLetter, encode(odd)).detail == "lone \\ud800 surrogate" and len(odd.reason) == 64


def test_arrays_of_a_decoder_of_ones_own_are_checked_unless_nan_means_something(spec):
    admit(record(entry(payload=b"1 2")), own(spec, "numbers"), NOW)
    nan = record(entry(payload=b"1 nan"))
    with pytest.raises(RecordError, match=r"not_finite.*admission\.finite"):
        admit(nan, own(spec, "numbers"), NOW)
    lax = own(spec, "numbers", admission=Admission(finite=False))
    assert np.isnan(admit(nan, lax, NOW)[1]["x"][1])


@pytest.mark.parametrize(
    ("value", "finite"),
    [
        ({"a": [1, (2.0, {3.0}), None, "NaN", b"nan", True]}, True),
        ([[[math.inf]]], False),
        ({"a": {"b": -math.inf}}, False),
        (np.float32("nan"), False),
        (np.array([1, 2]), True),
        (np.array(["nan"]), True),
        (complex(0, math.nan), False),
    ],
)
def test_what_is_finite(value, finite):
    assert is_finite(value) is finite


def test_an_unknown_decoder_is_the_specs_fault(spec):
    with pytest.raises(ConfigError):
        admit(record(entry()), own(spec, "absent"), NOW)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: entry(payload=b)))
def test_any_bytes_are_admitted_or_refused_with_a_letter_that_can_be_sent(value):
    spec = Spec(name="w", teacher=Factory(factory="t"), features=Factory(factory="f"), payload=Payload(decoder="json"))
    try:
        admit(record(value), spec, NOW)
    except RecordError as error:
        letter = dead_letter(record(value), error, "w", NOW)
        assert decode(DeadLetter, encode(letter)).value == value


def test_a_letter_holds_all_of_the_record():
    bad = record(b"bytes", {"trace": b"7", ATTEMPTS_HEADER: b"3"})
    try:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as cause:
            raise RecordError("mine", "why") from cause
    except RecordError as error:
        letter = dead_letter(bad, error, "w", NOW)
    assert letter == DeadLetter(
        workload="w", reason="mine", detail="why", error="ZeroDivisionError", topic="w.inputs", partition=2, offset=7,
        key=b"k", value=b"bytes", headers={"trace": b"7", ATTEMPTS_HEADER: b"3"}, at=NOW, attempts=3,
        digest=hashlib.sha256(b"bytes").hexdigest(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "huge",
    [
        record(b"v" * (MAX_RECORD_BYTES - 10)),
        record(b"v", key=b"k" * (SIDE_BYTES + 1)),
        record(b"v", {"a": b"1", "b": b"x" * SIDE_BYTES, "c": b"2"}),
        record(b"v", {"n" * (SIDE_BYTES + 1): b""}),
    ],
    ids=["value", "key", "header", "name of a header"],
)
def test_a_letter_of_a_huge_record_fits_and_says_that_it_is_cut(huge):
    letter = dead_letter(huge, RecordError("oversize", "x" * 10_000), "w", NOW)
    assert letter.cut and letter.digest == hashlib.sha256(huge.value).hexdigest()
    assert len(encode(letter)) < 1_000_000
    assert huge.value.startswith(letter.value) and len(letter.value) == min(len(huge.value), LETTER_BYTES)
    if len(huge.value) > LETTER_BYTES:
        assert f"the first {LETTER_BYTES} of {len(huge.value)} bytes" in letter.detail


def test_headers_without_a_value_become_empty_ones():
    letter = dead_letter(record(b"v", {"h": None}), RecordError("r", "d"), "w", NOW)
    assert decode(DeadLetter, encode(letter)).headers == {"h": b""} and not letter.cut


@given(st.binary(max_size=20))
def test_any_count_of_attempts_is_at_least_one(said):
    assert attempts({ATTEMPTS_HEADER: said}) >= 1
    with contextlib.suppress(ValueError):
        assert attempts({ATTEMPTS_HEADER: str(int(said)).encode()}) >= 1
