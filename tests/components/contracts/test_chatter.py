"""What libraries say at INFO is for whoever asks for DEBUG."""

import logging

import pytest

from components.contracts.chatter import hush
from components.contracts.settings import Settings
from components.stream.kafka import KafkaBroker


@pytest.fixture
def library():
    """A logger that nobody has named before, below one that speaks at INFO."""
    parent = logging.getLogger("chatter_test")
    parent.setLevel(logging.INFO)
    logger = logging.getLogger("chatter_test.library")
    yield logger
    logger.setLevel(logging.NOTSET)
    parent.setLevel(logging.NOTSET)


def test_a_library_says_warnings_alone(library):
    hush(library.name, "INFO")
    assert not library.isEnabledFor(logging.INFO) and library.isEnabledFor(logging.WARNING)


def test_at_debug_and_where_somebody_chose_a_level_it_says_what_it_did(library):
    hush(library.name, "DEBUG")
    assert library.isEnabledFor(logging.INFO)
    library.parent.setLevel(logging.DEBUG)
    hush(library.name, "INFO")
    assert library.isEnabledFor(logging.DEBUG)
    library.setLevel(logging.INFO)
    library.parent.setLevel(logging.INFO)
    hush(library.name, "INFO")
    assert library.isEnabledFor(logging.INFO)


def test_a_client_of_kafka_hushes_its_library():
    logger, root = logging.getLogger("kafka"), logging.getLogger()
    before = logger.level, root.level
    try:
        logger.setLevel(logging.NOTSET)
        root.setLevel(logging.INFO)
        KafkaBroker(Settings(log_level="DEBUG"))
        assert logger.isEnabledFor(logging.INFO)
        KafkaBroker(Settings())
        assert not logger.isEnabledFor(logging.INFO)
    finally:
        logger.setLevel(before[0])
        root.setLevel(before[1])
