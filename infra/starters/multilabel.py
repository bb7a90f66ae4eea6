"""Reviews by what they are about: a teacher of one's own. Put the model that you have in the place of the classifier.

Whatever has scikit-learn's ``predict_proba`` with one column for each class fits in as it is: a ``OneVsRestClassifier``
of anything, a ``MultiOutputClassifier``'s columns, or a network with a sigmoid for each class.
"""

import hashlib
from collections.abc import Sequence
from itertools import combinations, product

import sklearn
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from components.contracts.records import SoftLabel

WORDS = {
    "delivery": ("driver", "courier", "shipping", "arrived", "tracking"),
    "price": ("cheap", "expensive", "discount", "refund", "cost"),
    "quality": ("broken", "sturdy", "flimsy", "material", "scratched"),
    "service": ("support", "hotline", "friendly", "rude", "helpful"),
}


class Teacher:
    """Knows topics by their words; a review may be about several, or about none.

    ``digest`` identifies what decides the answers (a model's weights, its data): labels of another are not learnt from.
    ``space`` names the classes with their version.
    """

    name = "topics"
    task = "multilabel"
    classes = tuple(WORDS)

    def __init__(self, space: str) -> None:
        self.space = space
        topics = [("",), *combinations(self.classes, 1), *combinations(self.classes, 2)]
        texts = [(" ".join(words), set(of)) for of in topics for words in product(*(WORDS.get(t, ("",)) for t in of))]
        self._model = make_pipeline(
            CountVectorizer(vocabulary=[w for words in WORDS.values() for w in words], binary=True),
            OneVsRestClassifier(LogisticRegression(C=100.0)),
        )
        self._model.fit([text for text, _ in texts], [[int(c in of) for c in self.classes] for _, of in texts])
        self.digest = hashlib.sha256(repr((sorted(WORDS.items()), sklearn.__version__)).encode()).hexdigest()
        self.size_bytes = 8 * sum(e.coef_.size for e in self._model[-1].estimators_)

    def label(self, payloads: Sequence[str]) -> list[SoftLabel]:
        """For each text the probability of each class by itself: the answer is the set of those of one half or more."""
        if not payloads:
            return []
        chances = self._model.predict_proba(list(payloads)).tolist()
        return [SoftLabel.multilabel(self.space, self.classes, row) for row in chances]
