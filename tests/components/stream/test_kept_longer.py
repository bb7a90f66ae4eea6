"""How long an Apache Kafka keeps the records of topics: read and set on a real one."""

import pytest

from components.contracts.settings import Settings
from components.stream.kafka import KafkaBroker
from tests.waiting import wait_for

DAY = 86_400.0


pytestmark = pytest.mark.integration


def heard(broker, topics, seconds, expected):
    """Wait until it tells this: a broker hears of a change from the controller."""
    wait_for(lambda: broker.kept_longer(topics, seconds) == expected)


def test_topics_that_keep_records_for_longer_are_named_and_shortened(kafka_address):
    broker = KafkaBroker(Settings(bootstrap_servers=kafka_address))
    topics = ("aged.inputs", "aged.labels")
    broker.ensure_topics(topics)
    broker.keep(topics, 7 * DAY)
    heard(broker, [*topics, "aged.nothing"], 6 * DAY, dict.fromkeys(topics, 7 * DAY))
    assert broker.kept_longer(topics, 7 * DAY) == {}
    broker.keep(["aged.inputs"], 2 * DAY)
    heard(broker, topics, 6 * DAY, {"aged.labels": 7 * DAY})
    assert broker.kept_longer(topics, 1 * DAY) == {"aged.inputs": 2 * DAY, "aged.labels": 7 * DAY}
    broker.keep(["aged.labels"], -0.001)  # Kafka's word for ever
    heard(broker, topics, 1_000 * DAY, {"aged.labels": None})


def test_what_was_shortened_to_a_fraction_of_a_day_is_not_too_long(kafka_address):
    broker, seconds = KafkaBroker(Settings(bootstrap_servers=kafka_address)), 0.7 * DAY
    assert 1e3 * seconds < round(1e3 * seconds), "a broker keeps whole milliseconds"
    broker.ensure_topics(["aged.fraction"])
    broker.keep(["aged.fraction"], seconds)
    heard(broker, ["aged.fraction"], 0.6 * DAY, {"aged.fraction": 60_480.0})
    assert broker.kept_longer(["aged.fraction"], seconds) == {}
