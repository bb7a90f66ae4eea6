"""Features of sound: the log-mel spectrogram of WAV and FLAC, decoded by soundfile.

Definition: frames of :attr:`Spectrogram.window` samples under a Hann window, every ``hop``; their power spectra,
|FFT|^2 / sum(window^2), are summed under triangular filters whose corners are equally far apart on the mel scale,
mel(f) = 2595 log10(1 + f / 700) (D. O'Shaughnessy, "Speech Communication", 1987; the filters are those of S. Davis and
P. Mermelstein, "Comparison of parametric representations for monosyllabic word recognition", IEEE ASSP 28(4), 1980);
of the sums m the natural logarithm, (ln(m + FLOOR) + SHIFT) / SCALE.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from components.contracts.errors import ConfigError, RecordError
from components.student.arrays import BATCH, Features
from components.student.features import Signature, TensorSpec

FORMATS = ("WAV", "WAVEX", "FLAC")

CHANNELS = 8
"""Channels that a sound may have: a file can claim a thousand, and each takes memory."""

RATES = (1_000, 384_000)
"""Sampling rates in Hz that are taken."""

FINENESS = 1_000
"""Largest numerator or denominator of the ratio that a sound is resampled by: its pitch is right to 0.1 %."""

SECONDS = 3_600.0
"""Of a sound that is checked as a payload; a longer one is no input of a small student."""

FLOOR, SHIFT, SCALE = 1e-6, 7.0, 4.0
"""A power below the floor counts as silence, which becomes -1.7; full scale comes near 2."""

QUIET = -50.0
"""Decibels under full scale below which a frame counts as silent."""

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Sound:
    """The beginning of a sound: ``samples`` in [-1, 1], mean of its channels; ``seconds`` of it all."""

    samples: Samples
    rate: int
    channels: int
    seconds: float


class Spectrogram:
    """The log-mel spectrogram of the first ``seconds`` of a sound.

    ``rate``: Hz that it is resampled to; ``mels``: filters; ``window`` and ``hop``: seconds of a frame, and from one to
    the next; ``low`` and ``high``: corners of the first and last filter in Hz, ``high`` None for half the rate.
    ``fixed``: every input has the frames of ``seconds``, else a batch those of its longest sound.
    """

    def __init__(
        self,
        rate: int = 16_000,
        seconds: float = 2.0,
        mels: int = 40,
        window: float = 0.025,
        hop: float = 0.01,
        low: float = 20.0,
        high: float | None = None,
        fixed: bool = False,
    ) -> None:
        top = rate / 2 if high is None else high
        for name, value, good, wanted in (
            ("rate", rate, RATES[0] <= rate <= RATES[1], f"must be between {RATES[0]} and {RATES[1]} Hz"),
            ("hop", hop, round(hop * rate) >= 1, "must be at least one sample"),
            ("window", window, window >= hop, "must be at least a hop"),
            ("seconds", seconds, seconds >= window, "must be at least a window"),
            ("mels", mels, mels >= 1, "must be >= 1"),
            ("high", high, 0 <= low < top <= rate / 2, "must be above low and at most half the rate"),
        ):
            if not good:
                raise ConfigError(f"features.options.{name}", value, wanted)
        self.rate, self.seconds, self.mels, self.low, self.high, self.fixed = rate, seconds, mels, low, top, fixed
        self.window, self.hop = round(window * rate), round(hop * rate)
        self.frames = self._frames_of(round(seconds * rate))
        if (empty := int((self._filters.sum(axis=1) == 0).sum())) > 0:
            raise ConfigError(
                "features.options.mels", mels, f"{empty} filters lie between two frequencies: fewer, or a longer window"
            )
        axis: str | int = self.frames if fixed else "frames"
        self.signature: Signature = {
            "spectrogram": TensorSpec(dtype="float32", shape=(BATCH, mels, axis)),
            "mask": TensorSpec(dtype="int64", shape=(BATCH, axis), below=2),
        }

    def encode(self, payloads: Sequence[bytes]) -> Features:
        """``spectrogram``, (B, mels, frames), and ``mask``, (B, frames): 1 where there is sound, 0 where padding.

        Raises:
            RecordError: ``undecodable``, ``oversize`` or ``invalid``.

        """
        found = [self.log_mel(self._resampled(sound(data, self.seconds))) for data in payloads]
        most = self.frames if self.fixed else max([1, *(s.shape[1] for s in found)])
        out = np.zeros((len(found), self.mels, most), dtype=np.float32)
        mask = np.zeros((len(found), most), dtype=np.int64)
        for i, spectrogram in enumerate(found):
            frames = min(spectrogram.shape[1], most)
            out[i, :, :frames], mask[i, :frames] = spectrogram[:, :frames], 1
        return {"spectrogram": out, "mask": mask}

    def log_mel(self, samples: Samples) -> npt.NDArray[np.float32]:
        """The spectrogram of samples at ``rate``, (mels, frames); a sound shorter than a frame is filled with zeros."""
        samples = np.pad(samples, (0, max(0, self.window - len(samples))))
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.window)[:: self.hop]
        power = np.abs(np.fft.rfft(windows * self._hann, axis=1)) ** 2 / (self._hann**2).sum()
        mels = np.einsum("mf,tf->mt", self._filters, power)  # by BLAS its threads would wait for each other
        return np.asarray((np.log(mels + FLOOR) + SHIFT) / SCALE, dtype=np.float32)

    def _frames_of(self, samples: int) -> int:
        return 1 + max(0, samples - self.window) // self.hop

    @cached_property
    def _hann(self) -> Samples:
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)

    @cached_property
    def _filters(self) -> Samples:
        """Weights of the FFT's frequencies, (mels, frequencies)."""
        mel = np.linspace(_mel(self.low), _mel(self.high), self.mels + 2)
        corners = 700 * (10 ** (mel / 2595) - 1)
        frequencies = np.fft.rfftfreq(self.window, 1 / self.rate)
        rising = (frequencies - corners[:-2, None]) / np.diff(corners)[:-1, None]
        falling = (corners[2:, None] - frequencies) / np.diff(corners)[1:, None]
        return np.maximum(0.0, np.minimum(rising, falling))

    def _resampled(self, found: Sound) -> Samples:
        if found.rate == self.rate:
            return found.samples
        from scipy.signal import resample_poly

        ratio = Fraction(self.rate, found.rate).limit_denominator(FINENESS)
        return np.asarray(resample_poly(found.samples, ratio.numerator, ratio.denominator))

    def describe(self, payload: bytes) -> dict[str, float | str]:
        """Length, rate and channels, and of the first ``seconds`` how loud and how high they are.

        ``loudness`` and ``peak`` in decibels under full scale, at least -120; ``silent_share`` of frames below
        :data:`QUIET`; ``crossings``: share of neighbouring samples of different signs; ``centroid``: the mean frequency
        of the power in Hz.

        Raises:
            RecordError: as for :meth:`encode`.

        """
        found = sound(payload, self.seconds)
        samples = found.samples
        power = np.abs(np.fft.rfft(samples)) ** 2
        frequencies = np.fft.rfftfreq(len(samples), 1 / found.rate)
        piece = max(1, min(len(samples), round(self.window / self.rate * found.rate)))
        pieces = samples[: len(samples) // piece * piece].reshape(-1, piece)
        return {
            "seconds": found.seconds,
            "rate": float(found.rate),
            "channels": float(found.channels),
            "loudness": _decibels(float(np.mean(samples**2))),
            "peak": _decibels(float(np.max(samples**2))),
            "silent_share": float(np.mean([_decibels(float(p)) < QUIET for p in (pieces**2).mean(axis=1)])),
            "crossings": float(np.mean(np.diff(np.signbit(samples)))) if len(samples) > 1 else 0.0,
            "centroid": float((power * frequencies).sum() / total) if (total := float(power.sum())) > 0 else 0.0,
        }


def sound_bytes(payload: bytes) -> bytes:
    """A decoder of payloads (``payload.decoder``) that gives the bytes of a sound as they are, once they were decoded.

    With it, what is no sound goes to the dead letters before a teacher is asked.

    Raises:
        RecordError: ``undecodable``, ``oversize`` or ``invalid``.

    """
    sound(payload, SECONDS)
    return payload


def sound(data: bytes, seconds: float) -> Sound:
    """The first ``seconds`` of a sound; what comes after them is not decoded. Raises as :func:`recording` does."""
    samples, rate, length = recording(data, seconds)
    return Sound(samples=samples.mean(axis=1), rate=rate, channels=samples.shape[1], seconds=length)


def recording(data: bytes, seconds: float = SECONDS) -> tuple[Samples, int, float]:
    """Samples of the first ``seconds`` of a sound, (N, channels), their rate in Hz, and the seconds of it all.

    Raises:
        RecordError: ``undecodable``, it is neither WAV nor FLAC, or broken; ``oversize``, it has too many channels;
            ``invalid``, it has no samples, some that are no finite numbers, or a rate that nothing is recorded at.

    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.format not in FORMATS:
                raise RecordError("undecodable", f"neither WAV nor FLAC, but {file.format}")
            if file.channels > CHANNELS:
                raise RecordError("oversize", f"{file.channels} channels; at most {CHANNELS}")
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise RecordError("invalid", f"{file.samplerate} Hz; it must be between {RATES[0]} and {RATES[1]}")
            rate, length = file.samplerate, file.frames / file.samplerate
            samples = file.read(min(file.frames, math.ceil(seconds * rate)), dtype="float64", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        why = getattr(error, "error_string", error)
        raise RecordError("undecodable", f"neither a WAV nor a FLAC sound, or a broken one: {why}") from error
    if not len(samples):
        raise RecordError("invalid", "the sound has no samples")
    if not np.isfinite(samples).all():
        raise RecordError("invalid", "the sound has samples that are not finite")
    return samples, rate, length


def _mel(frequency: float) -> float:
    return 2595 * math.log10(1 + frequency / 700)


def _decibels(power: float) -> float:
    return 10 * math.log10(max(power, 1e-12))
