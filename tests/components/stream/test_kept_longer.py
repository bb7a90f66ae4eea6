"""How long an Apache Kafka keeps the records of topics: read and set on a real one."""

import pytest

from components.contracts.settings import Settings
from components.stream.kafka import KafkaBroker

DAY = 86_400.0


@pytest.mark.integration
def test_topics_that_keep_records_for_longer_are_named_and_shortened(kafka_address):
    broker = KafkaBroker(Settings(bootstrap_servers=kafka_address))
    topics = ("aged.inputs", "aged.labels")
    broker.ensure_topics(topics)
    broker.keep(topics, 7 * DAY)
    assert broker.kept_longer([*topics, "aged.nothing"], 6 * DAY) == dict.fromkeys(topics, 7 * DAY)
    assert broker.kept_longer(topics, 7 * DAY) == {}
    broker.keep(["aged.inputs"], 2 * DAY)
    assert broker.kept_longer(topics, 6 * DAY) == {"aged.labels": 7 * DAY}
    assert broker.kept_longer(topics, 1 * DAY) == {"aged.inputs": 2 * DAY, "aged.labels": 7 * DAY}
    broker.keep(["aged.labels"], -0.001)  # Kafka's word for ever
    assert broker.kept_longer(topics, 1_000 * DAY) == {"aged.labels": None}
