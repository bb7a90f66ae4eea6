"""An answer that the teacher gave through the gateway, on its way to becoming the input's label.

The teacher behind the gateway (:mod:`serving.teacher`) writes it, the gateway publishes it in a header of the input's
record, and the labeler, when it comes to that input, takes it for the label instead of asking again. It names the
input, by id and content, and the teacher in its epoch; where labels are signed it is signed by the same key.
"""

from __future__ import annotations

import math

import msgspec

from components.contracts.errors import RecordError
from components.contracts.records import LATEST_TIME, SoftLabel
from components.contracts.signing import Signer, Verifier
from components.contracts.stream_record import Headers

ANSWER = "answer"
SIGNATURE = "answer-signature"
CONTEXT = b"cohobate answer v1\0"
"""Signed ahead of the value: the signature of a label is none of an answer, nor the other way round."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """The teacher's answer to one input.

    ``content`` is the payload's :func:`~components.contracts.records.content_hash`; ``teacher`` is ``name@digest`` with
    the epoch (:func:`components.teachers.contract.in_epoch`); ``answered_at`` in Unix seconds.
    """

    schema: int = 1
    workload: str
    input_id: str
    content: str
    teacher: str
    soft: SoftLabel
    answered_at: float

    def __post_init__(self) -> None:
        if self.schema != 1:
            raise ValueError(f"an answer of schema {self.schema}, not 1")
        if not (math.isfinite(self.answered_at) and 0 < self.answered_at <= LATEST_TIME):
            raise ValueError(f"an answer's time is Unix seconds > 0 and before 2262, not {self.answered_at!r}")


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Given)


def headers_of(given: Given, signer: Signer | None = None) -> dict[str, bytes]:
    """The headers that carry an answer."""
    value = _encoder.encode(given)
    return {ANSWER: value} | ({SIGNATURE: signer.sign(value, CONTEXT)} if signer is not None else {})


def given_in(headers: Headers, verifier: Verifier | None = None) -> Given | None:
    """The answer that headers carry, None where they carry none; with ``verifier`` it must be signed.

    Raises:
        RecordError: ``undecodable`` or ``unsigned``.

    """
    value = headers.get(ANSWER)
    if value is None:
        return None
    if verifier is not None and not verifier.verifies(value, headers.get(SIGNATURE), CONTEXT):
        raise RecordError("unsigned", "the answer is not signed by the key in label.signed_by")
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError("undecodable", f"not an answer: {error}") from error
