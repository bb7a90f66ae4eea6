#!/usr/bin/env bash
# One CloudEvent says different data in the two modes of its HTTP binding, by the Python SDK: a text, a truth value or an
# empty text of content type application/json is JSON in structured mode, and in binary mode whatever Python's str makes
# of it, so that a receiver reads an object, a text or nothing; and an object of another content type is JSON in binary
# mode and Python's notation in structured mode. Only dictionaries, lists and numbers of JSON go alike.
#
# Version: cloudevents 2.2.0.
# Seen, as data sent and as read again by the same SDK from structured and from binary mode:
#   application/json: the text {"a": 1} is itself, and then a dictionary; True is True, and the text True (the body is
#   "True", which is no JSON); "" is "", and None. text/plain: {"a": 1} is the text {'a': 1}, and the text {"a": 1}.
# Expected: the same data in both modes, or an error.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cloudevents==2.2.0
cat > "$folder/look.py" <<'PYTHON'
import sys

from cloudevents.core.bindings.http import from_binary_event, from_structured_event, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

FORMAT = JSONFormat()


def read(kind, data):
    """The data as a receiver of each mode reads it."""
    event = CloudEvent({"id": "1", "source": "/s", "type": "t", "datacontenttype": kind}, data)
    structured = from_structured_event(to_structured(event, FORMAT), FORMAT).get_data()
    return structured, from_binary_event(to_binary(event, FORMAT), FORMAT).get_data()


TEXT = '{"a": 1}'
seen = True
for kind, data, wanted in (
    ("application/json", TEXT, (TEXT, {"a": 1})), ("application/json", True, (True, "True")),
    ("application/json", "", ("", None)), ("application/json", "plain", ("plain", "plain")),
    ("application/json", {"a": 1}, ({"a": 1}, {"a": 1})), ("application/json", [1, 2.5], ([1, 2.5], [1, 2.5])),
    ("text/plain", {"a": 1}, ("{'a': 1}", TEXT)),
):
    found = read(kind, data)
    print(f"{kind}, {data!r}: structured {found[0]!r}, binary {found[1]!r}")
    seen &= repr(found) == repr(wanted)
sys.exit(0 if seen else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
