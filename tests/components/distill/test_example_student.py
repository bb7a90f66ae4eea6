"""README's example is one that works: its student learns many classes from a few rows each as well as the usual way."""

import random
from pathlib import Path

import msgspec
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from components.contracts.records import SoftLabel
from components.contracts.spec import Payload, load_spec
from components.contracts.storage import get_bytes
from components.distill.train import distill
from components.student.runtime import Student

EXAMPLE = Path(__file__).parents[2] / "workloads" / "tickets" / "tickets.yaml"
CLASSES, ROWS, WORDS, COMMON = 60, 10, 4, 150
FORMS = ("", "s", "ed", "ing", "er", "ly", "est", "able")

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


def utterances(rows, seed):
    """Texts of two words of their class among some that all share, each in one of its forms; (text, class)."""
    made = random.Random(11)
    word = lambda: "".join(made.choices("abcdefghijklmnopqrstuvwxyz", k=6))  # noqa: E731
    shared, own = [word() for _ in range(COMMON)], [[word() for _ in range(WORDS)] for _ in range(CLASSES)]
    chance = random.Random(seed)
    texts = [
        (
            " ".join(
                word + chance.choice(FORMS)
                for word in chance.sample([*chance.sample(own[c], 2), *chance.sample(shared, 3)], 5)
            ),
            f"c{c:02d}",
        )
        for c in range(CLASSES)
        for _ in range(rows)
    ]
    chance.shuffle(texts)
    return texts


def test_the_example_s_student_is_as_good_as_logistic_regression(freeze_rows, tmp_path):
    example = load_spec(EXAMPLE)
    spec = msgspec.structs.replace(example, payload=Payload(decoder="text"))
    names = sorted({c for _, c in utterances(1, 0)})
    rest = 0.1 / (CLASSES - 1)

    def soft(name):
        return SoftLabel(task="classification", space="s", distribution={c: 0.9 if c == name else rest for c in names})

    window = freeze_rows(spec, [(t.encode(), soft(c), None) for t, c in utterances(ROWS, 1)], f"file://{tmp_path}", 1)
    made = distill(
        spec, [window], variant=spec.student.variants[0], parent=None, artifacts=f"file://{tmp_path}", seed=0
    )
    test = utterances(10, 2)
    answers = Student.load(get_bytes(made.uri), source=spec.source).predict([t.encode() for t, _ in test])
    right = sum(a.label == c for a, (_, c) in zip(answers, test, strict=True)) / len(test)

    vectoriser, train = TfidfVectorizer(ngram_range=(1, 2)), utterances(ROWS, 1)
    usual = LogisticRegression(max_iter=1_000).fit(
        vectoriser.fit_transform([t for t, _ in train]), [c for _, c in train]
    )
    baseline = usual.score(vectoriser.transform([t for t, _ in test]), [c for _, c in test])
    assert baseline > 0.5
    assert right >= baseline
