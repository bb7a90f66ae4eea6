"""MurmurHash3 of 32 bits (A. Appleby, 2011; public domain), where the package mmh3 is not: a hundred times slower."""

from __future__ import annotations

MASK = 0xFFFFFFFF


def _turned(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & MASK


def hash(key: str, seed: int = 0) -> int:
    """The signed hash of a text's UTF-8."""
    data = key.encode("utf-8", "surrogatepass")
    found, whole = seed, len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * 0xCC9E2D51 & MASK
        found = (_turned(found ^ _turned(k, 15) * 0x1B873593 & MASK, 13) * 5 + 0xE6546B64) & MASK
    if data[whole:]:
        k = int.from_bytes(data[whole:], "little") * 0xCC9E2D51 & MASK
        found ^= _turned(k, 15) * 0x1B873593 & MASK
    found ^= len(data)
    found = (found ^ found >> 16) * 0x85EBCA6B & MASK
    found = (found ^ found >> 13) * 0xC2B2AE35 & MASK
    found ^= found >> 16
    return found - (1 << 32) if found >> 31 else found
