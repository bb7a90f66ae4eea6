from tests.conftest import store  # noqa: F401
