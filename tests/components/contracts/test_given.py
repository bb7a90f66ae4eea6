import base64

import msgspec
import pytest

from components.contracts.errors import RecordError
from components.contracts.given import ANSWER, CONTEXT, SIGNATURE, Given, given_in, headers_of
from components.contracts.records import SoftLabel
from components.contracts.signing import HEADER, Signer, Verifier, new_key

SOFT = SoftLabel(task="classification", space="s@1", distribution={"a": 0.75, "b": 0.25})
GIVEN = Given(workload="w", input_id="i", content="c" * 8, teacher="t@1#2", soft=SOFT, answered_at=1_700_000_000.5)
PINNED = (
    "h6ZzY2hlbWEBqHdvcmtsb2FkoXeoaW5wdXRfaWShaadjb250ZW50qGNjY2NjY2Njp3RlYWNoZXKldEAxIzKkc29mdIWkdGFza65j"
    "bGFzc2lmaWNhdGlvbqVzcGFjZaNzQDGsZGlzdHJpYnV0aW9ugqFhyz/oAAAAAAAAoWLLP9AAAAAAAACldmFsdWXApXNjYWxlwKth"
    "bnN3ZXJlZF9hdMtB2VT8QCAAAA=="
)
"""Version 1 as it was first written."""


def test_what_is_written_is_read_and_what_was_written_first_still_is():
    headers = headers_of(GIVEN)
    assert given_in(headers) == GIVEN and given_in({}) is None and set(headers) == {ANSWER}
    value = headers[ANSWER]
    assert given_in({ANSWER: base64.b64decode(PINNED)}) == GIVEN
    plain = msgspec.msgpack.decode(value)
    first = msgspec.msgpack.decode(base64.b64decode(PINNED))
    assert first == {**plain, "soft": {k: plain["soft"][k] for k in first["soft"]}}
    assert plain["answered_at"] == 1_700_000_000.5 and plain["soft"]["distribution"] == {"a": 0.75, "b": 0.25}
    assert given_in({ANSWER: msgspec.msgpack.encode({**plain, "added_later": 1})}) == GIVEN


def test_only_the_holder_of_the_key_signs_and_a_signature_is_of_one_kind_and_one_value():
    private, public = new_key()
    signer, verifier = Signer(private), Verifier(public)
    headers = headers_of(GIVEN, signer)
    assert given_in(headers, verifier) == GIVEN
    other = headers_of(msgspec.structs.replace(GIVEN, input_id="j"), signer)
    as_label = signer.headers(headers[ANSWER])[HEADER]
    forged = (
        headers_of(GIVEN), headers_of(GIVEN, Signer(new_key()[0])), {**headers, ANSWER: other[ANSWER]},
        {**headers, SIGNATURE: as_label}, {**headers, SIGNATURE: None},
    )  # fmt: skip
    for wrong in forged:
        with pytest.raises(RecordError) as caught:
            given_in(wrong, verifier)
        assert caught.value.reason == "unsigned"
    assert not verifier.accepts(headers[ANSWER], {HEADER: headers[SIGNATURE]}), "it is no label's signature either"
    assert verifier.verifies(headers[ANSWER], headers[SIGNATURE], CONTEXT)


@pytest.mark.parametrize(
    "change", [b"\xc1", b"", {"schema": 2}, {"answered_at": float("nan")}, {"answered_at": 0.0}, {"soft": None}]
)
def test_what_is_no_answer_is_refused(change):
    plain = msgspec.to_builtins(GIVEN)
    value = change if isinstance(change, bytes) else msgspec.msgpack.encode({**plain, **change})
    with pytest.raises(RecordError) as caught:
        given_in({ANSWER: value})
    assert caught.value.reason == "undecodable"
