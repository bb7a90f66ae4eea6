"""How long an Apache Kafka keeps the records of topics: read and set on a real one."""

import contextlib
import uuid

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from components.contracts.errors import AccessError, RefusedError
from components.contracts.settings import Settings
from components.stream.kafka import KafkaBroker, client_config
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


def allow(secured, topic, *operations):
    """Let the stranger do this with a topic, and wait until the broker has heard of it from the controller."""
    with contextlib.closing(KafkaAdminClient(**client_config(secured.settings()))) as admin:
        pattern = ResourcePattern(ResourceType.TOPIC, topic)
        admin.create_acls([ACL("User:stranger", "*", o, ACLPermissionType.ALLOW, pattern) for o in operations])
        asked = ACLFilter("User:stranger", "*", ACLOperation.ANY, ACLPermissionType.ANY, pattern)
        wait_for(lambda: {acl.operation for acl in admin.describe_acls(asked)[0]} >= set(operations))


def test_a_broker_that_does_not_tell_or_does_not_let_us_refuses(secured_kafka):
    topic, ours = f"aged-{uuid.uuid4().hex[:8]}", KafkaBroker(secured_kafka.settings())
    ours.ensure_topics([topic])
    ours.keep([topic], 7 * DAY)
    heard(ours, [topic], 6 * DAY, {topic: 7 * DAY})
    stranger = KafkaBroker(secured_kafka.settings(sasl_username="stranger"))
    allow(secured_kafka, topic, ACLOperation.DESCRIBE)
    with pytest.raises(AccessError, match=f"{topic}.*DescribeConfigs") as refusal:
        stranger.kept_longer([topic], 6 * DAY)
    assert refusal.value.cause == "permission" and "kafka-acls" in refusal.value.remedy
    allow(secured_kafka, topic, ACLOperation.DESCRIBE_CONFIGS)
    assert stranger.kept_longer([topic], 6 * DAY) == {topic: 7 * DAY}
    with pytest.raises(AccessError, match=f"{topic}.*TopicAuthorizationFailedError.*AlterConfigs") as refusal:
        stranger.keep([topic], 1 * DAY)
    assert refusal.value.cause == "permission"
    assert ours.kept_longer([topic], 6 * DAY) == {topic: 7 * DAY}
    allow(secured_kafka, topic, ACLOperation.ALTER_CONFIGS)
    stranger.keep([topic], 1 * DAY)
    heard(stranger, [topic], 6 * DAY, {})
    with pytest.raises(RefusedError, match=f"{topic}.*retention.ms"):
        ours.keep([topic], -7.0)
