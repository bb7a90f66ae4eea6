"""A small workload for every network that ships: its featuriser, its options, and inputs of classes to tell apart."""

import io
import random
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from components.contracts.spec import Factory, Payload, Student, Variant
from components.contracts.spec.student import BAG

NETWORKS, FEATURES = "components.distill.networks.", "components.student."

WORDS = {
    "a": ["refund", "invoice", "charged", "price", "billing"],
    "b": ["password", "locked", "token", "reset", "account"],
    "c": ["parcel", "courier", "delivery", "late", "address"],
}
FILLER = [f"word{i}" for i in range(40)]
PITCH = {"a": 300.0, "b": 900.0, "c": 2500.0}


def text(label: str, chance: random.Random) -> bytes:
    words = [*chance.sample(WORDS[label], 2), *chance.sample(FILLER, chance.randint(3, 8))]
    chance.shuffle(words)
    return " ".join(words).encode()


def row(label: str, chance: random.Random) -> bytes:
    """Class a by a number, b and c by a category; some cells are missing, and some values are seen nowhere else."""
    made: dict[str, Any] = {"amount": chance.gauss(4.0 if label == "a" else -1.0, 1.0), "noise": chance.random()}
    made["colour"] = {"a": "grey", "b": "red", "c": "blue"}[label] if chance.random() > 0.05 else f"x{chance.random()}"
    if chance.random() < 0.1:
        del made["noise"]
    return msgspec.json.encode(made)


def picture(label: str, chance: random.Random) -> bytes:
    """Light at the top, at the left, or in the middle, on noise; PNG."""
    pixels = np.random.default_rng(chance.randrange(1 << 30)).integers(0, 90, (12, 12, 3))
    bright = {"a": np.s_[:4, :], "b": np.s_[:, :4], "c": np.s_[4:8, 4:8]}[label]
    pixels[bright] += 120
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def tone(label: str, chance: random.Random) -> bytes:
    """A tone of a pitch that tells its class, of some length, with noise; WAV."""
    noise = np.random.default_rng(chance.randrange(1 << 30))
    at = np.arange(chance.randint(1200, 3200)) / 8000
    samples = 0.4 * np.sin(2 * np.pi * PITCH[label] * chance.uniform(0.95, 1.05) * at) + noise.normal(0, 0.1, len(at))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((samples.clip(-1, 1) * 32_000).astype("<i2").tobytes())
    return buffer.getvalue()


def tokenizer(path: str) -> None:
    """A WordPiece tokenizer of these words and of single characters, as BERT's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = [w for some in WORDS.values() for w in some]
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters), *words, "word"]
    made = Tokenizer(models.WordPiece({e: i for i, e in enumerate(entries)}, unk_token="[UNK]"))  # noqa: S106
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.save(path)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One network's workload. ``files``: called with the spec's folder, writes what the featuriser reads there."""

    make: Callable[[str, random.Random], bytes]
    features: Factory
    network: Factory | None = None
    payload: Payload = field(default_factory=Payload)
    epochs: int = 6
    rate: float = 0.01
    files: Callable[[str], None] | None = None

    @property
    def student(self) -> Student:
        return Student(
            network=self.network, variants=(Variant(name="small"),), epochs=self.epochs, batch_size=32,
            learning_rate=self.rate, replay_rows=200, calibration_share=0.15,
        )  # fmt: skip


EXAMPLES = {
    "bag": Example(
        make=text, payload=Payload(decoder="text"), epochs=10, rate=0.02,
        features=Factory(factory=f"{FEATURES}text:TextNgrams", options={"buckets": 2048}),
        network=Factory(factory=BAG, options={"dim": 16, "hidden": 16}),
    ),
    "text convolution": Example(
        make=text, payload=Payload(decoder="text"),
        features=Factory(factory=f"{FEATURES}words:WordSequence", options={"buckets": 2048, "length": 40}),
        network=Factory(
            factory=f"{NETWORKS}text_convolution:TextConvolution", options={"dim": 24, "filters": 16, "widths": [1, 2]}
        ),
    ),
    "transformer": Example(
        make=text, payload=Payload(decoder="text"), epochs=10, rate=0.005,
        features=Factory(
            factory=f"{FEATURES}tokens:Tokens", options={"tokenizer": "tokenizer.json", "length": 48, "vocabulary": 90}
        ),
        network=Factory(
            factory=f"{NETWORKS}transformer:Transformer",
            options={"layers": 1, "dim": 32, "heads": 4, "hidden": 64, "positions": 48},
        ),
        files=lambda folder: tokenizer(f"{folder}/tokenizer.json"),
    ),
    "table": Example(
        make=row, payload=Payload(decoder="json"), epochs=10,
        features=Factory(
            factory=f"{FEATURES}columns:MixedColumns",
            options={
                "numbers": [{"name": "amount", "mean": 1, "scale": 3}, {"name": "noise", "mean": 0.5, "scale": 0.3}],
                "categories": [{"name": "colour", "values": ["grey", "red", "blue"]}],
            },
        ),
        network=Factory(factory=f"{NETWORKS}table:TableNetwork", options={"dim": 4, "hidden": [24, 16]}),
    ),
    "image convolution": Example(
        make=picture, payload=Payload(decoder=f"{FEATURES}image:image_bytes"),
        features=Factory(factory=f"{FEATURES}image:Image", options={"height": 12, "width": 12}),
        network=Factory(
            factory=f"{NETWORKS}image_convolution:ImageConvolution", options={"channels": [8, 16]}
        ),
    ),
    "audio convolution": Example(
        make=tone, payload=Payload(decoder=f"{FEATURES}audio:sound_bytes"),
        features=Factory(
            factory=f"{FEATURES}audio:Spectrogram", options={"rate": 8000, "seconds": 0.4, "mels": 20}
        ),
        network=Factory(
            factory=f"{NETWORKS}audio_convolution:AudioConvolution", options={"channels": [16, 24], "width": 3}
        ),
    ),
}  # fmt: skip
