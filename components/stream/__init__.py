"""The stream: a small contract over Kafka, its Kafka implementation, and one in memory for in-process loops."""

from components.contracts.settings import Settings
from components.stream.contract import Broker


def open_broker(settings: Settings) -> Broker:
    """The broker that the settings name: a Kafka, or the embedded one that speaks its protocol."""
    from components.stream.kafka import KafkaBroker

    return KafkaBroker(settings)
