"""Messages: a teacher of one's own. Put the model that you have in the place of the words."""

import hashlib
import math
from collections.abc import Sequence

from components.contracts.records import SoftLabel

WORDS = {
    "complaint": {"broken", "late", "refund", "wrong", "missing"},
    "praise": {"great", "love", "thanks", "perfect", "friendly"},
    "question": {"how", "when", "where", "which", "why"},
}


class Teacher:
    """Counts words, and is the surer the more it finds.

    ``digest`` identifies what decides the answers (a model's weights, its prompt): labels of another are not learnt
    from. ``space`` names the classes with their version.
    """

    name = "words"
    task = "classification"
    classes = tuple(WORDS)

    def __init__(self, space: str, sharpness: float = 3.0) -> None:
        self.space, self.sharpness = space, sharpness
        content = repr((sorted((name, sorted(words)) for name, words in WORDS.items()), sharpness))
        self.digest = hashlib.sha256(content.encode()).hexdigest()
        self.size_bytes = len(content)

    def label(self, payloads: Sequence[str]) -> list[SoftLabel]:
        """One soft label for each text: probabilities of the classes, in their order."""
        return [self._one(set(text.lower().split())) for text in payloads]

    def _one(self, words: set[str]) -> SoftLabel:
        weights = [math.exp(self.sharpness * len(words & WORDS[name])) for name in self.classes]
        return SoftLabel.of(self.space, self.classes, [w / sum(weights) for w in weights])
