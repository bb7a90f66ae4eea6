from tests.pipelines.conftest import broker, clock, label_of, settings, spec, store, tickets  # noqa: F401
