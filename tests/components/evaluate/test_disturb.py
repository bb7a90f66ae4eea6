import io
import math
import random

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow

from components.contracts.errors import RecordError
from components.evaluate.disturb import (
    bit_flips,
    blur,
    brightness,
    case,
    compression,
    disturbances,
    disturbed,
    gain,
    missing,
    noise,
    pixel_noise,
    time_shift,
    truncation,
    typos,
    white_noise,
)  # fmt: skip
from components.student.audio import recording


def picture(form="PNG"):
    """A grey ramp in red, with a white square."""
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[:, :, 0] = np.arange(60) * 2 + 40
    pixels[10:20, 10:20] = 200
    out = io.BytesIO()
    pillow.fromarray(pixels).save(out, form)
    return out.getvalue()


def tone(form="WAV", peak=0.25):
    """A tenth of a second that grows louder, in two channels of which the second is half as loud."""
    times = np.arange(800) / 8_000
    wave = peak * times / times[-1] * np.sin(2 * np.pi * 440 * times)
    out = io.BytesIO()
    soundfile.write(out, np.stack([wave, wave / 2], axis=1), 8_000, format=form, subtype="PCM_16")
    return out.getvalue()


def pixels_of(data):
    return np.asarray(pillow.open(io.BytesIO(data)), dtype=float)


def many(disturb, payload, strength):
    return [disturbed(payload, disturb, str(seed), strength) for seed in range(40)]


def test_each_kind_of_payload_suffers_its_own():
    assert set(disturbances(["text"])) == {"typos", "case"}
    assert set(disturbances([b"bytes"])) == {"bit_flips", "truncation"}
    assert set(disturbances([{"x": 1}])) == set(disturbances([[1.0]])) == {"noise", "missing"}
    image, other = picture(), picture("JPEG")
    assert set(disturbances([image, other])) == {"pixel_noise", "blur", "compression", "brightness"}
    assert set(disturbances([tone(), tone("FLAC")])) == {"white_noise", "gain", "time_shift"}
    assert set(disturbances([image, tone()])) == set(disturbances([image, b"bytes"])) == {"bit_flips", "truncation"}


@pytest.mark.parametrize(
    "payload",
    [
        "some words to spoil, and more of them",
        b"\x00\x01 bytes" * 10,
        {"a": 1.5, "b": [1, "x"]},
        picture(),
        picture("JPEG"),
        tone(),
        tone("FLAC"),
    ],
)
def test_equal_seeds_disturb_alike_and_others_otherwise(payload):
    for name, disturb in disturbances([payload]).items():
        once, again, other = (disturbed(payload, disturb, seed, 0.3) for seed in ("1", "1", "2"))
        assert once == again and type(once) is type(payload)
        assert name == "case" or payload != once != other


def test_typos_change_about_the_share_of_letters_that_is_asked_for():
    text = "abcdefghij " * 200
    for strength in (0.02, 0.2):
        changed = typos(text, random.Random(0), strength)
        same = sum(a == b for a, b in zip(text.split(), changed.split(), strict=False))
        assert abs(len(changed) - len(text)) < len(text) * strength and changed != text
        assert (same > 100) == (strength == 0.02)


def test_case_keeps_the_letters():
    assert case("Some Text", random.Random(1), 0.1).lower() == "some text"


def test_bits_flip_one_a_byte():
    data = bytes(1000)
    flipped = bit_flips(data, random.Random(0), 0.05)
    assert sum(b != 0 for b in flipped) == 50 and all(b.bit_count() <= 1 for b in flipped)
    assert bit_flips(b"a", random.Random(0), 0.01) != b"a" and bit_flips(b"", random.Random(0), 0.5) == b""


@given(st.binary(min_size=1, max_size=200), st.floats(0.01, 1.0), st.integers(0, 99))
def test_truncation_leaves_a_beginning(data, strength, seed):
    kept = truncation(data, random.Random(seed), strength)
    assert kept and data.startswith(kept)


def test_numbers_get_noise_and_the_rest_does_not():
    found = noise({"a": 100.0, "n": 1000, "s": "x", "t": True, "l": [1.0]}, random.Random(0), 0.1)
    assert 50 < found["a"] < 150 and found["a"] != 100.0 and isinstance(found["n"], int)
    assert found["s"] == "x" and found["t"] is True and found["l"] != [1.0]


def test_at_least_one_cell_goes_missing():
    assert list(missing({"a": 1, "b": 2}, random.Random(0), 1e-9).values()).count(None) == 1
    assert missing([1.0, 2.0, 3.0], random.Random(0), 1.0) == [None] * 3
    assert missing({}, random.Random(0), 0.5) == {}


def test_an_image_gets_noise_of_the_share_of_full_scale_that_is_asked_for():
    clean = pixels_of(picture())
    for strength in (0.02, 0.1):
        apart = pixels_of(disturbed(picture(), pixel_noise, "1", strength))[:, :, 0] - clean[:, :, 0]
        assert apart.std() == pytest.approx(255 * strength, rel=0.1) and abs(apart.mean()) < 255 * strength / 10


def test_blur_makes_edges_softer_and_leaves_the_light():
    def edges(data):
        return np.abs(np.diff(pixels_of(data)[:, :, 1], axis=1)).max()

    found = many(blur, picture(), 0.2)
    assert all(pixels_of(data).shape == (40, 60, 3) for data in found)
    assert edges(picture()) == 200 > max(map(edges, found[:1])) and min(map(edges, found)) < 100
    assert all(pixels_of(data).mean() == pytest.approx(pixels_of(picture()).mean(), rel=0.02) for data in found)


def test_compression_is_a_jpeg_that_loses_more_the_stronger_it_is():
    def lost(data):
        return np.abs(pixels_of(data) - pixels_of(picture())).mean()

    weak, strong = (many(compression, picture(), strength) for strength in (0.005, 0.09))
    assert all(pillow.open(io.BytesIO(data)).format == "JPEG" for data in weak + strong)
    assert 0 < np.mean(list(map(lost, weak))) < np.mean(list(map(lost, strong))) / 1.2


def test_brightness_is_a_factor_within_its_stops():
    clean = pixels_of(picture())[20:, :, 0]
    factors = [float(np.median(pixels_of(data)[20:, :, 0] / clean)) for data in many(brightness, picture(), 0.04)]
    assert max(factors) > 1.15 and min(factors) < 0.87
    assert all(2**-0.41 < f < 2**0.41 for f in factors)


def test_a_sound_gets_noise_in_proportion_to_its_loudness():
    for peak in (0.25, 0.025):
        clean, rate, _ = recording(tone(peak=peak))
        noisy, same, _ = recording(disturbed(tone(peak=peak), white_noise, "1", 0.1))
        assert same == rate and noisy.shape == clean.shape
        assert (noisy - clean).std() == pytest.approx(0.1 * math.sqrt((clean**2).mean()), rel=0.1)


def test_gain_changes_all_channels_by_some_decibels_and_cuts_off_at_full_scale():
    clean = recording(tone())[0]
    decibels = [
        20 * math.log10(np.abs(recording(data)[0]).max() / np.abs(clean).max()) for data in many(gain, tone(), 0.05)
    ]
    assert max(decibels) > 3 and min(decibels) < -3 and all(abs(d) <= 5.01 for d in decibels)
    loud = max(np.abs(recording(data)[0]).max() for data in many(gain, tone(peak=0.9), 0.2))
    assert loud == 1.0


def test_a_shift_moves_a_sound_and_keeps_its_length():
    clean = recording(tone())[0]
    moves = set()
    for data in many(time_shift, tone(), 0.1):
        moved = recording(data)[0]
        assert moved.shape == clean.shape
        by = next(
            b for b in range(-80, 81) if np.allclose(np.roll(moved, -b, axis=0)[80:-80], clean[80:-80], atol=1e-6)
        )
        assert not np.any(moved[:by] if by > 0 else moved[len(moved) + by :] if by else [])
        moves.add(by)
    assert min(moves) < -40 and max(moves) > 40


def test_what_is_broken_cannot_be_disturbed():
    for data, disturb in ((picture()[:60], blur), (tone()[:20], gain)):
        with pytest.raises(RecordError):
            disturbed(data, disturb, "1", 0.05)
