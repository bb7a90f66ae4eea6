import io

import numpy as np
import pytest
import soundfile

from components.contracts.errors import ConfigError, RecordError
from components.contracts.payload import decoder
from components.contracts.spec import Payload
from components.student.audio import Spectrogram, sound_bytes

RATE = 8000
FEATURES = Spectrogram(rate=RATE, seconds=0.5, mels=24)


def tone(hertz, seconds=0.3, rate=RATE, loud=0.5):
    return loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def file(samples, rate=RATE, form="WAV", subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def test_a_batch_is_as_long_as_its_longest_sound_and_padding_is_masked():
    found = FEATURES.encode([file(tone(440)), file(tone(440, 0.1)), file(tone(440, 9.0))])
    assert found["spectrogram"].shape == (3, 24, FEATURES.frames) and FEATURES.frames == 48
    assert found["mask"].sum(axis=1).tolist() == [28, 8, 48]
    assert not found["spectrogram"][1, :, 8:].any()
    alone = FEATURES.encode([file(tone(440, 0.1))])
    assert alone["mask"].shape == (1, 8) and np.array_equal(alone["spectrogram"][0], found["spectrogram"][1, :, :8])
    assert FEATURES.encode([])["spectrogram"].shape == (0, 24, 1)


def test_a_fixed_axis_has_the_frames_of_the_longest_there_can_be():
    fixed = Spectrogram(rate=RATE, seconds=0.5, mels=24, fixed=True)
    assert fixed.signature["spectrogram"].shape == ("batch", 24, 48) and fixed.signature["mask"].shape == ("batch", 48)
    assert fixed.encode([file(tone(440, 0.1))])["spectrogram"].shape == (1, 24, 48)


def test_the_definition_written_out():
    samples = tone(700, 0.025) + 0.1
    n = 200
    window = np.array([0.5 - 0.5 * np.cos(2 * np.pi * i / n) for i in range(n)])
    power = [
        abs(sum(samples[i] * window[i] * np.exp(-2j * np.pi * k * i / n) for i in range(n))) ** 2
        for k in range(n // 2 + 1)
    ]
    mel = np.linspace(2595 * np.log10(1 + 20 / 700), 2595 * np.log10(1 + 4000 / 700), 26)
    corner = [700 * (10 ** (m / 2595) - 1) for m in mel]
    expected = []
    for m in range(24):
        total = 0.0
        for k, p in enumerate(power):
            f = k * RATE / n
            if corner[m] < f <= corner[m + 1]:
                total += p * (f - corner[m]) / (corner[m + 1] - corner[m])
            elif corner[m + 1] < f < corner[m + 2]:
                total += p * (corner[m + 2] - f) / (corner[m + 2] - corner[m + 1])
        expected.append((np.log(total / (window**2).sum() + 1e-6) + 7) / 4)
    assert FEATURES.log_mel(samples)[:, 0] == pytest.approx(expected, abs=1e-5)


def test_a_higher_tone_is_in_a_higher_filter_and_silence_is_the_floor():
    peaks = [int(FEATURES.log_mel(tone(f)).mean(axis=1).argmax()) for f in (200, 500, 1200, 3000)]
    assert peaks == sorted(peaks) and len(set(peaks)) == 4
    assert FEATURES.log_mel(np.zeros(100))[:, 0] == pytest.approx([(np.log(1e-6) + 7) / 4] * 24)


@pytest.mark.parametrize(("rate", "form"), [(16_000, "WAV"), (44_100, "FLAC"), (8_001, "WAV")])
def test_rates_and_formats_make_little_difference(rate, form):
    wanted = FEATURES.encode([file(tone(440))])["spectrogram"][0].mean(axis=1)
    found = FEATURES.encode([file(tone(440, rate=rate), rate, form)])["spectrogram"][0].mean(axis=1)
    assert found[5:10] == pytest.approx(wanted[5:10], abs=0.1) and found.argmax() == wanted.argmax()


def test_channels_are_averaged():
    both = np.stack([tone(440), np.zeros(2400)], axis=1)
    wanted = FEATURES.encode([file(tone(440) / 2)])["spectrogram"]
    assert FEATURES.encode([file(both)])["spectrogram"] == pytest.approx(wanted, abs=1e-2)


def test_describes_a_sound():
    found = FEATURES.describe(file(np.concatenate([tone(1000, 0.2), np.zeros(1600)]), subtype="FLOAT"))
    assert (found["seconds"], found["rate"], found["channels"]) == (0.4, 8000.0, 1.0)
    assert found["peak"] == pytest.approx(-6.0, abs=0.1) and found["loudness"] == pytest.approx(-12.0, abs=0.1)
    assert found["silent_share"] == 0.5 and found["centroid"] == pytest.approx(1000, rel=0.05)
    assert found["crossings"] == pytest.approx(0.125, abs=0.01)
    assert FEATURES.describe(file(np.zeros(100)))["loudness"] == -120.0
    assert FEATURES.describe(file(np.zeros(1)))["crossings"] == 0.0


@pytest.mark.parametrize("method", [lambda d: FEATURES.encode([d]), FEATURES.describe, sound_bytes])
def test_what_is_no_sound_is_refused(method):
    flac, bad = file(tone(440), form="FLAC"), np.array([0.0, np.nan, 1.0])
    for data, reason in (
        (b"no sound", "undecodable"),
        (flac[:100], "undecodable"),
        (file(tone(440), form="AIFF"), "undecodable"),
        (file(np.zeros((10, 9))), "oversize"),
        (file(np.zeros(0)), "invalid"),
        (file(tone(1), 500), "invalid"),
        (file(bad, subtype="FLOAT"), "invalid"),
    ):
        with pytest.raises(RecordError) as error:
            method(data)
        assert error.value.reason == reason and "0x" not in str(error.value)


def test_what_comes_after_the_seconds_is_not_decoded():
    long = file(tone(440, 4.0), form="FLAC")
    assert FEATURES.encode([long[: len(long) // 2]])["mask"].sum() == 48


def test_as_a_decoder_it_gives_the_bytes_as_they_came():
    decode = decoder(Payload(decoder="components.student.audio:sound_bytes"))
    assert decode(file(tone(440))) == file(tone(440))
    with pytest.raises(RecordError, match="undecodable"):
        decode(b"no sound")


@pytest.mark.parametrize(
    "options",
    [{"rate": 10}, {"hop": 0.0}, {"window": 0.001}, {"seconds": 0.001}, {"mels": 0}, {"high": 9000}, {"mels": 120}],
)
def test_refuses_options_that_make_no_spectrogram(options):
    with pytest.raises(ConfigError, match=f"features.options.{next(iter(options))}"):
        Spectrogram(**{"rate": 16_000, **options})
