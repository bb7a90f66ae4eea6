import pytest

from tests.clock import Clock


@pytest.fixture(params=["sqlite", "postgres"])
def store(request):
    """A control database of the test's own, of each kind that can be."""
    return request.getfixturevalue("store" if request.param == "sqlite" else "postgres_store")


@pytest.fixture
def clock():
    return Clock(1_000.0)


@pytest.fixture
def clocked(store, clock):
    """The control database goes by the test's clock."""
    store.clock = clock
