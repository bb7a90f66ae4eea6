import pytest

from components.student.card import StudentCard
from tests.students import bag


@pytest.fixture(scope="module")
def card(letter_spec):
    return StudentCard(
        workload="letters", task="classification", space="letters@1", classes=("a", "b", "c"),
        features=letter_spec.features, payload=letter_spec.payload, **bag(1024, 8, 16), variant="tiny",
        snapshots=("0" * 64,), teacher="t@1", parent=None, code="0",
    )  # fmt: skip
