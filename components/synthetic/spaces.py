"""What inputs of a kind look like, as far as a spec declares it: how one is drawn, changed, and written as a payload.

Drawn at random they are the floor that every other method has to beat: independent cells of a table, independent words
of a text, independent pixels of an image.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

from components.contracts.errors import ConfigError
from components.contracts.records import json_bytes
from components.contracts.spec import Spec
from components.contracts.spec.data_free import FIELD, Column, ImageInputs, TableInputs, TextInputs
from components.contracts.spec.references import folder_of
from components.teachers.contract import Teacher, vocabulary

LEAST_WORDS = 20
"""Words that a vocabulary has at least: of fewer no texts can be made that differ."""

CUTS = 100
"""How often a normal is drawn again that falls beyond its limits, before it is put on the limit."""


class Space(Protocol):
    """Inputs of one kind. ``preferred``: for :meth:`change`, what the class that is sought likes; may be empty."""

    def draw(self, chance: Random) -> Any:
        """One at random."""

    def change(self, item: Any, chance: Random, preferred: Sequence[Any]) -> Any:
        """Another one that differs in one place."""

    def parts(self) -> list[Any]:
        """Items of a single part, by which the teacher tells what each class likes; empty: there are none."""

    def payload(self, item: Any) -> bytes:
        """As it would come with an input."""


class Texts:
    """Texts: lists of words of a vocabulary.

    Raises:
        ConfigError: there is no vocabulary.

    """

    def __init__(self, inputs: TextInputs, words: Sequence[str]) -> None:
        if len(words) < LEAST_WORDS:
            raise ConfigError(
                f"{FIELD}.inputs.vocabulary", len(words),
                f"words are known, and {LEAST_WORDS} are needed: name a file of words, one a line, or take a teacher "
                "that has vocabulary(), as those of transformers do",
            )  # fmt: skip
        self._words, (self._least, self._most) = list(words), inputs.words

    def draw(self, chance: Random) -> list[str]:
        """Independent words, as many as may be."""
        return chance.choices(self._words, k=chance.randint(self._least, self._most))

    def change(self, item: list[str], chance: Random, preferred: Sequence[str]) -> list[str]:
        """A word put in the place of another, added, or left out."""
        word = chance.choice(preferred if preferred and chance.random() < 0.75 else self._words)
        made, at, act = list(item), chance.randrange(len(item)), chance.random()
        if act < 0.2 and len(item) > self._least:
            del made[at]
        elif act < 0.4 and len(item) < self._most:
            made.insert(at, word)
        else:
            made[at] = word
        return made

    def parts(self) -> list[list[str]]:
        """Texts of one word."""
        return [[word] for word in self._words]

    def payload(self, item: list[str]) -> bytes:
        """The words with spaces between them, in UTF-8."""
        return " ".join(item).encode()


class Tables:
    """Rows of a table: mappings, as JSON objects.

    Raises:
        ConfigError: no columns are declared.

    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        if not columns:
            raise ConfigError(
                f"{FIELD}.inputs.columns", {}, "must declare the columns: mean and deviation, low and high, or values"
            )
        self._columns = dict(columns)

    def draw(self, chance: Random) -> dict[str, Any]:
        """Every column by itself; what is missing is left out."""
        cells = {name: _cell(column, chance) for name, column in self._columns.items()}
        return {name: cell for name, cell in cells.items() if cell is not None}

    def change(self, item: dict[str, Any], chance: Random, preferred: Sequence[Any]) -> dict[str, Any]:
        """One column drawn anew."""
        name = chance.choice(list(self._columns))
        made = {n: item[n] for n in self._columns if n in item and n != name}
        cell = _cell(self._columns[name], chance)
        return made if cell is None else {**made, name: cell}

    def parts(self) -> list[Any]:
        """None: one cell is no row."""
        return []

    def payload(self, item: dict[str, Any]) -> bytes:
        """A JSON object."""
        return json_bytes(item)


def _cell(column: Column, chance: Random) -> str | float | bool | None:
    if chance.random() < column.missing:
        return None
    if column.values:
        return chance.choices(column.values, column.chances or None)[0]
    low = -math.inf if column.low is None else column.low
    high = math.inf if column.high is None else column.high
    if column.mean is None or column.deviation is None:
        found = chance.uniform(low, high)
    else:
        draws = (chance.gauss(column.mean, column.deviation) for _ in range(CUTS))
        found = next((d for d in draws if low <= d <= high), min(max(column.mean, low), high))
    return round(found) if column.whole else float(f"{found:.6g}")


class Images:
    """PNG images of independent pixels."""

    def __init__(self, inputs: ImageInputs) -> None:
        self.inputs = inputs

    def draw(self, chance: Random) -> Any:
        """Pixels of a normal, (height, width) or (height, width, 3), bytes."""
        import numpy as np

        given = self.inputs
        shape = (given.height, given.width) if given.colour == "grey" else (given.height, given.width, 3)
        pixels = np.random.default_rng(chance.getrandbits(32)).normal(given.mean, given.deviation, shape)
        return pixels.round().clip(0, 255).astype(np.uint8)

    def change(self, item: Any, chance: Random, preferred: Sequence[Any]) -> Any:
        """Another image: pixels one by one would lead nowhere."""
        return self.draw(chance)

    def parts(self) -> list[Any]:
        """None."""
        return []

    def payload(self, item: Any) -> bytes:
        """The image as PNG."""
        return png(item)


def png(pixels: Any) -> bytes:
    """Pixels (height, width) or (height, width, 3), bytes, as a PNG file."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def space_of(spec: Spec, teacher: Teacher) -> Space | None:
    """What the inputs of a workload look like; None where neither the spec nor the teacher tells.

    Where the spec has no ``student.data_free.inputs``: texts where the payload is text and the teacher has a
    vocabulary, rows of the columns that the featuriser declares where the payload is JSON.

    Raises:
        ConfigError: what is declared is not enough.

    """
    inputs = spec.student.data_free.inputs
    if isinstance(inputs, ImageInputs):
        return Images(inputs)
    if isinstance(inputs, TextInputs):
        return Texts(inputs, _words(spec, inputs.vocabulary) if inputs.vocabulary else vocabulary(teacher))
    if isinstance(inputs, TableInputs):
        return Tables(inputs.columns or declared_columns(spec))
    if spec.payload.decoder == "text" and (words := vocabulary(teacher)):
        return Texts(TextInputs(), words)
    if spec.payload.decoder == "json" and (columns := declared_columns(spec)):
        return Tables(columns)
    return None


def declared_columns(spec: Spec) -> dict[str, Column]:
    """The columns that a featuriser of tables is told of: normals of their mean and scale, and the values there are."""
    options, found = spec.features.options, {}
    for given in (*options.get("numbers", ()), *options.get("columns", ())):
        found[str(given["name"])] = Column(mean=float(given.get("mean", 0.0)), deviation=float(given.get("scale", 1.0)))
    for given in options.get("categories", ()):
        found[str(given["name"])] = Column(values=tuple(given["values"]))
    return found


def _words(spec: Spec, name: str) -> tuple[str, ...]:
    path = Path(folder_of(spec.source)) / name
    if not path.is_file():
        raise ConfigError(f"{FIELD}.inputs.vocabulary", name, f"there is no such file: {path}")
    return tuple(dict.fromkeys(word for line in path.read_text("utf-8").splitlines() if (word := line.strip())))
