import pytest


@pytest.fixture(params=["sqlite", "postgres"])
def store(request):
    """A control database of the test's own, of each kind that can be."""
    return request.getfixturevalue("store" if request.param == "sqlite" else "postgres_store")
