"""The edge's own verification of signatures, against the library that makes them."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.edge.ed25519 import ORDER, verifies

seeds = st.binary(min_size=32, max_size=32)


@settings(max_examples=25, deadline=None)
@given(seeds, st.binary(max_size=200), st.integers(0, 511))
def test_what_was_signed_is_accepted_and_nothing_else(seed, message, bit):
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert verifies(public, message, signature)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not verifies(public, message, bytes(flipped))
    assert not verifies(public, message + b"x", signature)
    other = Ed25519PrivateKey.from_private_bytes(bytes(reversed(seed)) if seed != seed[::-1] else b"\1" * 32)
    assert not verifies(other.public_key().public_bytes_raw(), message, signature)


@settings(max_examples=25, deadline=None)
@given(seeds, seeds, seeds)
def test_of_any_bytes_it_thinks_what_the_library_thinks(public, first, second):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(first + second, b"m")
        expected = True
    except InvalidSignature:
        expected = False
    assert verifies(public, b"m", first + second) is expected


def test_a_second_form_of_a_signature_is_none():
    """RFC 8032: S must be below the group's order, or anybody could make another signature of the same message."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    signature = key.sign(b"m")
    s = int.from_bytes(signature[32:], "little") + ORDER
    assert not verifies(key.public_key().public_bytes_raw(), b"m", signature[:32] + s.to_bytes(32, "little"))


@pytest.mark.parametrize(("public", "signature"), [(b"", bytes(64)), (bytes(31), bytes(64)), (bytes(32), bytes(63))])
def test_what_has_another_length_is_refused(public, signature):
    assert not verifies(public, b"m", signature)
