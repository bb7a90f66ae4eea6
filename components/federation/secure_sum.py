"""A sum whose parts nobody sees. Shapes: N inputs, C classes.

Source: K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning" (CCS 2017).

Shares become whole numbers of :data:`RESOLUTION`, and are added modulo 2^64. On its own a site adds two kinds of masks,
each drawn uniformly from all 64-bit numbers:

* one for each peer, of a seed that the two agree on by X25519: the one whose name comes first adds it, the other
  subtracts it, so that over all peers they cancel out;
* one of its own, of a seed that it tells only once it knows whose sum is made.

Of a peer that drops out in between, the others tell the seeds that they share with it: its masks are taken out of the
sum, and its own answer, should it still come, stays behind the mask of its own seed, which it tells nobody.

Every seed is made for one round and one set of peers (``context``): masks of two rounds have nothing to do with each
other, and are never used twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Floats = npt.NDArray[np.float64]
Ring = npt.NDArray[np.uint64]

RESOLUTION = 2.0**-40
"""What shares are whole numbers of. With weights of at most one there is room for 2^23 sites below 2^63."""

SEED_BYTES = 32

WORD = np.dtype("<u8")


def encoded(shares_NC: Floats, weight: float) -> Ring:
    """Shares (0 to 1) times a weight (0 to 1), as whole numbers of the resolution."""
    return np.asarray(np.rint(shares_NC * (weight / RESOLUTION)).astype(np.uint64))


def decoded(total_NC: Ring) -> Floats:
    """A sum of what :func:`encoded` gave; it is exact, so that it is off by what rounding the parts took alone."""
    return np.asarray(total_NC.astype(np.float64) * RESOLUTION)


def own_seed(secret: X25519PrivateKey, context: bytes) -> bytes:
    """The seed of a site's own mask."""
    return _derived(secret.private_bytes_raw(), b"own\0" + context)


def pair_seed(secret: X25519PrivateKey, peer: X25519PublicKey, context: bytes) -> bytes:
    """The seed that two sites share: the same from the secret of either and the public key of the other.

    Raises:
        ValueError: the peer's key is a point of small order, by which anybody would know the seed.

    """
    return _derived(secret.exchange(peer), b"pair\0" + context)


def _derived(secret: bytes, context: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=None, info=b"cohobate federation\0" + context).derive(
        secret
    )


def stream(seed: bytes, shape: tuple[int, ...]) -> Ring:
    """The mask of a seed: the key stream of ChaCha20 (RFC 8439, the block counter and the nonce zero)."""
    cipher = Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor()
    return (
        np.frombuffer(cipher.update(bytes(int(np.prod(shape)) * WORD.itemsize)), WORD).reshape(shape).astype(np.uint64)
    )


def masked(name: str, part_NC: Ring, own: bytes, pairs: Mapping[str, bytes]) -> Ring:
    """A site's part of the sum behind its masks; ``pairs``: the seeds that it shares with its peers, by their names."""
    found = part_NC + stream(own, part_NC.shape)
    for peer in sorted(pairs):
        found = found + _signed(name, peer, pairs[peer], part_NC.shape)
    return found


def total(parts: Mapping[str, Ring], own: Mapping[str, bytes], dropped: Mapping[str, Mapping[str, bytes]]) -> Ring:
    """The sum of the parts of sites, by their names, that have told the seeds of their ``own`` masks.

    ``dropped``: for each site the seeds that it shares with peers that are not in the sum.
    """
    found: Ring = np.add.reduce([parts[name] for name in sorted(parts)])
    for name in sorted(parts):
        found = found - stream(own[name], found.shape)
        for peer in sorted(dropped[name]):
            found = found - _signed(name, peer, dropped[name][peer], found.shape)
    return found


def _signed(name: str, peer: str, seed: bytes, shape: tuple[int, ...]) -> Ring:
    mask = stream(seed, shape)
    return mask if name < peer else np.zeros_like(mask) - mask


def packed(part_NC: Ring) -> bytes:
    """The numbers of a part, row by row, as bytes."""
    return part_NC.astype(WORD).tobytes()


def unpacked(data: bytes, shape: tuple[int, ...]) -> Ring:
    """What :func:`packed` wrote.

    Raises:
        ValueError: it is of another size.

    """
    return np.frombuffer(data, WORD).reshape(shape).astype(np.uint64)


def context(*said: str, peers: Iterable[tuple[str, str]]) -> bytes:
    """What seeds are made for: the round, as ``said``, and the peers by what each signed when it joined."""
    return "\0".join([*said, *(f"{name}={digest}" for name, digest in sorted(peers))]).encode()
