"""Sample histories of the workloads to start from: made up, seeded, in the form that docs/history.md describes."""

from __future__ import annotations

import base64
import io
import math
import random
import struct
import wave
from collections.abc import Callable, Iterator
from typing import Any

ROWS = 400
"""Enough for a first student: a fifth is held out, and 80 rows show 80 % with some room."""

SPACING = 600.0
"""Seconds between two inputs."""

FILLER = [
    "the",
    "my",
    "order",
    "parcel",
    "package",
    "you",
    "it",
    "was",
    "is",
    "came",
    "today",
    "yesterday",
    "box",
    "shop",
    "colour",
    "size",
    "please",
    "still",
    "again",
]
TALK = {
    "complaint": ["broken", "late", "refund", "wrong", "missing"],
    "praise": ["great", "love", "thanks", "perfect", "friendly"],
    "question": ["how", "when", "where", "which", "why"],
}
TOPICS = {
    "delivery": ["driver", "courier", "shipping", "arrived", "tracking"],
    "price": ["cheap", "expensive", "discount", "refund", "cost"],
    "quality": ["broken", "sturdy", "flimsy", "material", "scratched"],
    "service": ["support", "hotline", "friendly", "rude", "helpful"],
}
LIGHT = {"day": (120, 170, 230), "dusk": (210, 110, 70), "night": (20, 25, 50)}
PITCH = {"low": 250.0, "middle": 800.0, "high": 2500.0}
NAMES = {
    "PRODUCT": ["red kettle", "garden chair", "desk lamp", "rain coat"],
    "CITY": ["London", "New York", "Lisbon", "Port Louis"],
    "ORDER": [],
}
INITIALS = ["AB", "QX", "ZT", "LM"]
ASKED = [
    "where is my |PRODUCT|?",
    "the |PRODUCT| of order |ORDER| never came to |CITY|",
    "please send |ORDER| to |CITY|, not to |CITY|",
    "I moved to |CITY| and want the |PRODUCT| there",
    "thanks, all is well",
    "can I return it?",
    "order |ORDER|: the |PRODUCT| and the |PRODUCT| are broken",
]
"""Messages; what stands between bars is the kind of a name."""

SIDE, RATE = 16, 8_000
"""Pixels of an image's side, and samples of a sound in a second."""

STARTS = {"gzip": b"\x1f\x8b\x08\x00", "pdf": b"%PDF-1.7\n", "png": b"\x89PNG\r\n\x1a\n"}

Row = dict[str, Any]


def text(chance: random.Random) -> Row:
    """A message of a few words, two of which tell what it wants."""
    name = chance.choice(sorted(TALK))
    words = [*chance.sample(TALK[name], 2), *chance.choices(FILLER, k=chance.randint(4, 9))]
    chance.shuffle(words)
    return {"text": " ".join(words), "label": name}


def multilabel(chance: random.Random) -> Row:
    """A review of a few words, about up to three topics."""
    topics = chance.sample(sorted(TOPICS), chance.choice([0, 1, 1, 2, 2, 3]))
    words = [*(chance.choice(TOPICS[topic]) for topic in topics), *chance.choices(FILLER, k=chance.randint(4, 9))]
    chance.shuffle(words)
    return {"text": " ".join(words), "labels": sorted(topics)}


def embedding(chance: random.Random) -> Row:
    """A message as of :func:`text`, of which nothing is true: vectors have no truth."""
    return {"text": text(chance)["text"]}


def table(chance: random.Random) -> Row:
    """An order; now and then nobody knows how old the account is."""
    amount, items, days = chance.uniform(5, 300), chance.randint(1, 8), chance.randint(0, 600)
    known = {"account_days": days} if chance.random() > 0.05 else {}
    logit = 0.02 * amount + 0.3 * items - 0.01 * known.get("account_days", 0)
    risky = logit + chance.gauss(0, 0.3) > 0
    return {"json": {"amount": round(amount, 2), "items": items, **known}, "label": "review" if risky else "accept"}


def files(chance: random.Random) -> Row:
    """A file's beginning and some noise, or some text."""
    name = chance.choice([*STARTS, "other"])
    noise = chance.randbytes(chance.randint(40, 200))
    data = STARTS[name] + noise if name in STARTS else " ".join(chance.choices(FILLER, k=40)).encode()
    return {"payload_base64": base64.b64encode(data).decode(), "label": name}


def regression(chance: random.Random) -> Row:
    """A flat, and what it was let for."""
    metres, rooms, age = round(chance.uniform(25, 140)), chance.randint(1, 6), chance.randint(0, 90)
    rent = 200 + 9 * metres + 40 * rooms - 1.5 * age + chance.gauss(0, 25)
    return {"json": {"metres": metres, "rooms": rooms, "age": age}, "value": round(rent, 2)}


def image(chance: random.Random) -> Row:
    """A small PNG of one light, brighter here and darker there."""
    from PIL import Image

    name = chance.choice(sorted(LIGHT))
    colour = [c + chance.gauss(0, 8) for c in LIGHT[name]]
    pixels = [min(255, max(0, round(c + chance.gauss(0, 20)))) for _ in range(SIDE * SIDE) for c in colour]
    buffer = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), bytes(pixels)).save(buffer, "PNG")
    return {"payload_base64": base64.b64encode(buffer.getvalue()).decode(), "label": name}


def audio(chance: random.Random) -> Row:
    """A WAV of a tone with some noise, a tenth to three tenths of a second long."""
    name = chance.choice(sorted(PITCH))
    turn = 2 * math.pi * PITCH[name] * chance.uniform(0.8, 1.25) / RATE
    samples = [
        round(12_000 * math.sin(turn * i) + chance.gauss(0, 2_000))
        for i in range(chance.randint(RATE // 10, 3 * RATE // 10))
    ]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return {"payload_base64": base64.b64encode(buffer.getvalue()).decode(), "label": name}


def tagging(chance: random.Random) -> Row:
    """A message with names in it, and where they stand; now and then there is none."""
    out, spans = "", []
    for part in chance.choice(ASKED).split("|"):
        kind = part if part in NAMES else ""
        said = part
        if kind:
            said = (
                f"{chance.choice(INITIALS)}-{chance.randint(1000, 9999)}"
                if kind == "ORDER"
                else chance.choice(NAMES[kind])
            )
            spans.append({"start": len(out), "end": len(out) + len(said), "label": kind})
        out += said
    return {"text": f"{out} {' '.join(chance.choices(FILLER, k=chance.randint(2, 6)))}", "spans": spans}


MAKERS: dict[str, Callable[[random.Random], Row]] = {
    "text": text, "table": table, "bytes": files, "regression": regression, "image": image, "audio": audio,
    "multilabel": multilabel,
    "tagging": tagging,
    "embedding": embedding,
}  # fmt: skip
"""By the kind of payload: makes one row."""


def history(kind: str, until: float, rows: int = ROWS, seed: int = 0) -> Iterator[Row]:
    """Rows of a sample history whose last one is of the time ``until`` (Unix seconds)."""
    chance = random.Random(seed)  # noqa: S311
    for number in range(rows):
        about = {"id": f"h{number:04d}", "key": f"k{number % 40}", "time": until - SPACING * (rows - 1 - number)}
        yield about | MAKERS[kind](chance)
