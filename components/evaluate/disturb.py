"""Seeded disturbances of decoded payloads, by what they are: text, images, sounds, other bytes, or what JSON can hold.

An image (PNG, JPEG) or a sound (WAV, FLAC) suffers what happens to what is seen and heard, and stays one that can be
decoded: a flipped bit would break the file, which says nothing of the student.
"""

from __future__ import annotations

import io
import random
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.contracts.payload import Known, bare
from components.student.audio import recording
from components.student.image import MAX_PIXELS, opened

Disturb = Callable[[Any, random.Random, float], Any]
"""From a payload, a source of chance and a strength in (0, 1] to a disturbed copy."""

KEYBOARD = {a: b for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm") for a, b in zip(row, row[1:] + row[-2], strict=True)}
"""The key beside each letter."""


IMAGES = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff")
SOUNDS = re.compile(rb"RIFF....WAVE|fLaC", re.DOTALL)
"""How files begin that are images, or sounds."""


def disturbances(payloads: Sequence[Any]) -> dict[str, Disturb]:
    """What payloads of this kind can suffer, by name; of images and sounds where all of them are such.

    What is known of their entities stays.
    """
    if any(isinstance(p, Known) for p in payloads):
        return {name: _beside_entity(disturb) for name, disturb in disturbances([bare(p) for p in payloads]).items()}
    if isinstance(payloads[0], str):
        return {"typos": typos, "case": case}
    if not isinstance(payloads[0], bytes | bytearray | memoryview):
        return {"noise": noise, "missing": missing}
    if all(IMAGES.match(p) for p in payloads):
        return {"pixel_noise": pixel_noise, "blur": blur, "compression": compression, "brightness": brightness}
    if all(SOUNDS.match(p) for p in payloads):
        return {"white_noise": white_noise, "gain": gain, "time_shift": time_shift}
    return {"bit_flips": bit_flips, "truncation": truncation}


def _beside_entity(disturb: Disturb) -> Disturb:
    def disturbed(given: Any, chance: random.Random, strength: float) -> Any:
        if not isinstance(given, Known):
            return disturb(given, chance, strength)
        return given._replace(payload=disturb(given.payload, chance, strength))

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


def pixel_noise(image: bytes, chance: random.Random, strength: float) -> bytes:
    """A normal of the deviation ``strength`` of full scale added to every channel of every pixel."""
    pixels = _pixels(image)
    return _png(pixels + _generator(chance).normal(0.0, 255.0 * strength, pixels.shape))


def blur(image: bytes, chance: random.Random, strength: float) -> bytes:
    """Out of focus: a normal's blur with a deviation of up to half of ``strength`` of the shorter side."""
    from PIL import ImageFilter

    seen, _ = opened(image, MAX_PIXELS)
    return _written(seen.filter(ImageFilter.GaussianBlur(chance.random() * strength * min(seen.size) / 2.0)), "PNG")


def compression(image: bytes, chance: random.Random, strength: float) -> bytes:
    """As a JPEG of a quality below 95 of 100, by up to ten times ``strength`` of it, at most nine tenths."""
    seen, _ = opened(image, MAX_PIXELS)
    return _written(seen, "JPEG", quality=max(1, round(95 * (1.0 - chance.random() * min(0.9, 10.0 * strength)))))


def brightness(image: bytes, chance: random.Random, strength: float) -> bytes:
    """Exposed longer or shorter: every channel times two to the power of up to ten times ``strength``, either way."""
    return _png(_pixels(image) * 2.0 ** chance.uniform(-10.0 * strength, 10.0 * strength))


def white_noise(sound: bytes, chance: random.Random, strength: float) -> bytes:
    """A normal added to every sample, ``strength`` times as loud as the sound is (root mean square)."""
    samples, rate, _ = recording(sound)
    loudness = float(np.sqrt(np.mean(samples**2)))
    return _wav(samples + _generator(chance).normal(0.0, strength * loudness, samples.shape), rate)


def gain(sound: bytes, chance: random.Random, strength: float) -> bytes:
    """Louder or softer by up to 100 times ``strength`` decibels; what is above full scale is cut off."""
    samples, rate, _ = recording(sound)
    return _wav(samples * 10.0 ** (chance.uniform(-100.0 * strength, 100.0 * strength) / 20.0), rate)


def time_shift(sound: bytes, chance: random.Random, strength: float) -> bytes:
    """Later or earlier by up to ``strength`` of its length, which stays: silence comes in, the other end is lost."""
    samples, rate, _ = recording(sound)
    by = round(chance.uniform(-strength, strength) * len(samples))
    moved = np.zeros_like(samples)
    if by >= 0:
        moved[by:] = samples[: len(samples) - by]
    else:
        moved[:by] = samples[-by:]
    return _wav(moved, rate)


def _generator(chance: random.Random) -> np.random.Generator:
    return np.random.default_rng(chance.getrandbits(64))


def _pixels(image: bytes) -> npt.NDArray[np.float64]:
    return np.asarray(opened(image, MAX_PIXELS)[0], dtype=np.float64)


def _png(pixels: npt.NDArray[np.float64]) -> bytes:
    from PIL import Image as pillow

    return _written(pillow.fromarray(pixels.round().clip(0, 255).astype(np.uint8)), "PNG")


def _written(image: Any, form: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def _wav(samples: npt.NDArray[np.float64], rate: int) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, samples.clip(-1.0, 1.0), rate, format="WAV", subtype="FLOAT")
    return out.getvalue()


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


def disturbed(payload: Any, disturb: Disturb, seed: str, strength: float) -> Any:
    """A payload disturbed by a chance of its own.

    Raises:
        RecordError: it is an image or a sound that cannot be decoded.

    """
    return disturb(payload, random.Random(seed), strength)  # noqa: S311
