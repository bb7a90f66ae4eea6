"""Teachers of images, sounds and rows: small models of scikit-learn, on data that it ships or on made-up tones."""

import hashlib
import io
import random
import wave
from functools import cache

import numpy as np
from PIL import Image as pillow
from sklearn.datasets import load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components.contracts.records import SoftLabel
from components.student.audio import Spectrogram
from components.student.image import Image

DIGITS = ("zero", "one", "two", "three", "four")
WINES = ("barolo", "grignolino", "barbera")
PITCHES = {"low": 300.0, "middle": 900.0, "high": 2400.0}
SHADES = ("pale", "medium", "deep")
RATE = 8_000


def digit(chance: random.Random, kind: str) -> tuple[bytes, dict[str, str]]:
    """A scanned digit (UCI's optical digits), a little lighter or darker and with noise, as PNG."""
    images, labels = _digits()
    pixels = images[chance.choice(np.flatnonzero(labels == DIGITS.index(kind)).tolist())] * chance.uniform(11, 15)
    noise = np.random.default_rng(chance.randrange(1 << 30)).normal(0, 8, pixels.shape)
    buffer = io.BytesIO()
    pillow.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue(), {"label": kind}


def pair(chance: random.Random, kind: str) -> tuple[bytes, dict[str, tuple[str, ...]]]:
    """Up to two scanned digits beside each other, with noise, as PNG: ``one+two``, ``one``, or nothing at all."""
    images, labels = _digits()
    names = [name for name in kind.split("+") if name]
    sides = [images[chance.choice(np.flatnonzero(labels == DIGITS.index(n)).tolist())] for n in names]
    sides += [np.zeros((8, 8))] * (2 - len(sides))
    chance.shuffle(sides)
    noise = np.random.default_rng(chance.randrange(1 << 30)).normal(0, 8, (8, 16))
    buffer = io.BytesIO()
    pillow.fromarray((np.hstack(sides) * 13 + noise).clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue(), {"labels": tuple(sorted(names))}


def tone(chance: random.Random, kind: str) -> tuple[bytes, dict[str, str]]:
    """A tone with an overtone and noise, a tenth to a quarter of a second long, as WAV."""
    hertz, n = PITCHES[kind] * chance.uniform(0.85, 1.18), chance.randint(RATE // 10, RATE // 4)
    at = 2 * np.pi * hertz * np.arange(n) / RATE
    noise = np.random.default_rng(chance.randrange(1 << 30)).normal(0, 0.05, n)
    samples = 0.4 * np.sin(at) + 0.1 * np.sin(2 * at) + noise
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 30_000).astype("<i2").tobytes())
    return buffer.getvalue(), {"label": kind}


def wine(chance: random.Random, kind: str) -> tuple[dict[str, float | str], dict[str, str]]:
    """A row of the wine data, its numbers moved by a few per cent; its colour in words, and now and then unknown."""
    table, labels, names = _wines()
    row = table[chance.choice(np.flatnonzero(labels == WINES.index(kind)).tolist())]
    cells: dict[str, float | str] = {
        n: round(float(v) * chance.gauss(1, 0.03), 4) for n, v in zip(names, row, strict=True)
    }
    colour = float(cells.pop("color_intensity"))
    if chance.random() > 0.1:
        cells["shade"] = SHADES[int(colour > 3.5) + int(colour > 5.5)]
    if chance.random() < 0.05:
        del cells["magnesium"]
    return cells, {"label": kind}


@cache
def _digits():
    images, labels = load_digits(n_class=5, return_X_y=True)
    return images.reshape(-1, 8, 8), labels


@cache
def _wines():
    found = load_wine()
    return found.data, found.target, [str(n) for n in found.feature_names]


class _Fitted:
    """A logistic regression on numbers that ``_numbers`` makes of payloads, fitted on made-up inputs of each class."""

    task = "classification"
    make = None
    rows = 80

    def __init__(self) -> None:
        chance = random.Random(11)
        labels = [c for c in self.classes for _ in range(self.rows)]
        inputs = self._numbers([type(self).make(chance, c)[0] for c in labels])
        self._model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(inputs, labels)
        weights = np.round(self._model[-1].coef_, 6)
        self.digest = hashlib.sha256(weights.tobytes()).hexdigest()
        self.size_bytes = weights.nbytes

    def label(self, payloads):
        if not payloads:
            return []
        found = self._model.predict_proba(self._numbers(payloads))
        order = [list(self._model.classes_).index(c) for c in self.classes]
        return [SoftLabel.of(self.space, self.classes, row[order]) for row in found]


class Digits(_Fitted):
    """Knows digits by their pixels."""

    name, space, classes, make = "digits", "digits@1", DIGITS, staticmethod(digit)

    def _numbers(self, payloads):
        return Image(height=8, width=8, colour="grey").encode(payloads)["pixels"].reshape(len(payloads), -1)


class Tones(_Fitted):
    """Knows tones by the mean of their spectrogram."""

    name, space, classes, make = "tones", "pitches@1", tuple(PITCHES), staticmethod(tone)

    def _numbers(self, payloads):
        features = Spectrogram(rate=RATE, seconds=0.3, mels=24).encode(payloads)
        return features["spectrogram"].sum(axis=2) / features["mask"].sum(axis=1, keepdims=True)


class Wines(_Fitted):
    """Knows wines by their numbers and their shade."""

    name, space, classes, make = "wines", "wines@1", WINES, staticmethod(wine)

    def _numbers(self, payloads):
        names = [n for n in _wines()[2] if n != "color_intensity"]
        means = dict(zip(_wines()[2], _wines()[0].mean(axis=0), strict=True))
        numbers = [[row.get(n, means[n]) for n in names] for row in payloads]
        shades = [[float(row.get("shade") == shade) for shade in SHADES] for row in payloads]
        return np.concatenate([np.array(numbers, dtype=float), np.array(shades)], axis=1)


class Pairs:
    """Knows which digits are in a picture: a logistic regression looks at its left and at its right half."""

    name, task, space, classes = "pairs", "multilabel", "digits-in@1", DIGITS

    def __init__(self) -> None:
        images, labels = _digits()
        chance = np.random.default_rng(5)
        seen = np.concatenate([images, np.zeros((200, 8, 8))])
        flat = (seen * 13 + chance.normal(0, 8, seen.shape)).clip(0, 255).reshape(len(seen), -1) / 127.5 - 1
        names = [*(DIGITS[i] for i in labels), *[""] * 200]
        self._model = LogisticRegression(max_iter=1_000, C=10.0).fit(flat, names)
        self.digest = hashlib.sha256(np.round(self._model.coef_, 4).tobytes()).hexdigest()
        self.size_bytes = self._model.coef_.nbytes

    def label(self, payloads):
        if not payloads:
            return []
        pixels = Image(height=8, width=16, colour="grey").encode(payloads)["pixels"].reshape(len(payloads), 8, 16)
        halves = [self._model.predict_proba(p.reshape(len(payloads), -1)) for p in (pixels[..., :8], pixels[..., 8:])]
        there = 1.0 - (1.0 - halves[0]) * (1.0 - halves[1])
        order = [list(self._model.classes_).index(c) for c in self.classes]
        return [SoftLabel.multilabel(self.space, self.classes, row[order].tolist()) for row in there]
