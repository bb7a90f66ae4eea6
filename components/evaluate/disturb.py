"""Seeded disturbances of decoded payloads, by what they are: text, bytes, or anything else that JSON can hold."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from typing import Any

from components.contracts.payload import Known

Disturb = Callable[[Any, random.Random, float], Any]
"""From a payload, a source of chance and a strength in (0, 1] to a disturbed copy."""

KEYBOARD = {a: b for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm") for a, b in zip(row, row[1:] + row[-2], strict=True)}
"""The key beside each letter."""


def disturbances(payload: Any) -> dict[str, Disturb]:
    """What a payload of this kind can suffer, by name; what is known of its entity stays."""
    if isinstance(payload, Known):
        return {name: _beside_entity(disturb) for name, disturb in disturbances(payload.payload).items()}
    if isinstance(payload, str):
        return {"typos": typos, "case": case}
    if isinstance(payload, bytes | bytearray | memoryview):
        return {"bit_flips": bit_flips, "truncation": truncation}
    return {"noise": noise, "missing": missing}


def _beside_entity(disturb: Disturb) -> Disturb:
    def disturbed(known: Known, chance: random.Random, strength: float) -> Known:
        return known._replace(payload=disturb(known.payload, chance, strength))

    return disturbed


def typos(text: str, chance: random.Random, strength: float) -> str:
    """A share of the letters swapped with the next, doubled, left out, or hit beside the key, one of the four each."""
    out, skip = [], False
    for i, letter in enumerate(text):
        if skip:
            skip = False
            continue
        if not letter.isalpha() or chance.random() >= strength:
            out.append(letter)
            continue
        kind = chance.randrange(4)
        if kind == 0 and i + 1 < len(text):
            out += [text[i + 1], letter]
            skip = True
        elif kind == 1:
            out += [letter, letter]
        elif kind == 2:
            out.append(KEYBOARD.get(letter.lower(), chance.choice(string.ascii_lowercase)))
    return "".join(out) or text


def case(text: str, chance: random.Random, strength: float) -> str:
    """All upper or all lower case, or words capitalised: ``strength`` does not matter."""
    return chance.choice((str.upper, str.lower, str.title))(text)


def bit_flips(data: bytes, chance: random.Random, strength: float) -> bytes:
    """A share of the bytes, at least one of them, with one bit flipped."""
    out = bytearray(data)
    for i in chance.sample(range(len(out)), max(1, round(len(out) * strength)) if out else 0):
        out[i] ^= 1 << chance.randrange(8)
    return bytes(out)


def truncation(data: bytes, chance: random.Random, strength: float) -> bytes:
    """Cut at the end, by up to ten times ``strength``, at most nine tenths; one byte is left."""
    kept = len(data) * (1.0 - chance.random() * min(0.9, 10.0 * strength))
    return bytes(data[: max(1, int(kept))])


def noise(value: Any, chance: random.Random, strength: float) -> Any:
    """Every number multiplied by a normal around one with the deviation ``strength``; whole ones stay whole."""

    def blur(x: Any) -> Any:
        if isinstance(x, bool) or not isinstance(x, int | float):
            return x
        blurred = x * chance.gauss(1.0, strength)
        return round(blurred) if isinstance(x, int) else blurred

    return _leaves(value, blur)


def missing(value: Any, chance: random.Random, strength: float) -> Any:
    """A share of the cells, at least one, without a value."""
    cells = range(_count(value))
    gone = {i for i in cells if chance.random() < strength} or ({chance.choice(cells)} if cells else set())
    place = iter(cells)
    return _leaves(value, lambda x: None if next(place) in gone else x)


def _count(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_count, value.values()))
    return sum(map(_count, value)) if isinstance(value, list | tuple) else 1


def _leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {k: _leaves(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_leaves(v, change) for v in value]
    return change(value)


def disturbed(payloads: Sequence[Any], disturb: Disturb, seed: str, strength: float) -> list[Any]:
    """Every payload disturbed once, each by its own chance."""
    return [disturb(p, random.Random(f"{seed} {i}"), strength) for i, p in enumerate(payloads)]  # noqa: S311
