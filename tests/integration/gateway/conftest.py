from tests.conftest import store  # noqa: F401
from tests.serving.conftest import broker, clock, model, registry, signs, spec  # noqa: F401
