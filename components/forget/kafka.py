"""Deleting an entity's records from an Apache Kafka, which can only delete a partition from its beginning on.

Everything up to the last of the records goes, the records of others too. So it goes when those who work on the topic
have read it: inputs, when the labelers have committed a later position; labels and truths, when a window has frozen
them. Predictions are read as they come. Of letters and quarantined labels, which wait for a person, those of others are
sent again first: a letter is the same one wherever it lies, and a label is told by its key.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from typing import TYPE_CHECKING

from components.contracts.errors import OrderError
from components.contracts.spec import Spec
from components.contracts.stream_record import TopicPartition
from components.control.store import ControlStore
from components.forget.traces import INPUTS, Places
from components.stream.contract import Broker, read_to_end

if TYPE_CHECKING:
    from components.stream.kafka import KafkaBroker

FROZEN = ("labels", "truth")

KEPT = ("inputs.dlq", "labels.refused", "labels.quarantine")


def delete(spec: Spec, store: ControlStore, broker: KafkaBroker, places: Places) -> None:
    """Delete these records, and all before them.

    1. Refuse while anything before them is still to be read.
    2. Send again what others wait for.
    3. Delete.

    Raises:
        OrderError: something is still to be read; names what, and what to do.
        UnavailableError: the broker does not answer.

    """
    kinds = spec.kinds
    # Step 1
    for place, offsets in places.items():
        _require_read(spec, store, broker, place, kinds[place.topic], max(offsets))
    # Step 2
    for place, offsets in places.items():
        if kinds[place.topic] in KEPT:
            _send_again(broker, place, offsets)
    # Step 3
    broker.delete_through(places)


def _require_read(spec: Spec, store: ControlStore, broker: Broker, place: TopicPartition, kind: str, last: int) -> None:
    if kind in INPUTS:
        with closing(broker.consumer([place.topic], group=f"{spec.name}.labeler", partitions=[place])) as consumer:
            read = consumer.positions()[place]
        remedy = "the labelers have not read it yet: give the order again when they have ('cohobate status --all': lag)"
    elif kind in FROZEN:
        windows = store.windows(spec.name)
        read = int(windows[-1].manifest.get("anchors", {}).get(place.name, (-1, ""))[0]) + 1 if windows else 0
        remedy = "no window has frozen it yet: run the pipeline 'continual', then give the order again"
    else:
        return
    if read <= last:
        raise OrderError("forget in", spec.name, f"{place.name} is read up to {read}, not {last}: {remedy}")


def _send_again(broker: Broker, place: TopicPartition, erased: Collection[int]) -> None:
    last, gone = max(erased), set(erased)
    with (
        closing(broker.consumer([place.topic], partitions=[place])) as consumer,
        closing(broker.producer()) as producer,
    ):
        for record in read_to_end(consumer):
            if record.offset <= last and record.offset not in gone:
                producer.send(place.topic, record.key, record.value, record.headers)
        producer.flush()
