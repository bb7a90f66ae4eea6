"""A notice as a request's body: for Slack's incoming webhooks (others take their form too), or as a CloudEvent 1.0."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NamedTuple

from components.notify.events import Event

SYMBOLS = {
    "rollout.promoted": ":white_check_mark:", "rollout.rolled_back": ":rotating_light:",
    "rollout.aborted": ":rotating_light:", "rollout.paused": ":double_vertical_bar:", "drift.alarm": ":warning:",
    "pipeline.failed": ":x:", "teacher.changed": ":warning:",
}  # fmt: skip

TEXT_CHARACTERS = 2900
"""What fits into a Slack section (3,000) with some markup around it."""


class Body(NamedTuple):
    """Headers and bytes of a request."""

    headers: dict[str, str]
    content: bytes


def slack(event: Event) -> Body:
    """A message with a plain ``text`` (what notifications show) and blocks; the rollback's link ends both."""
    url = event.data.get("rollback_url", "")
    rollback = f" Roll back: {_escaped(url)}" if url else ""
    text = _escaped(event.text)[: TEXT_CHARACTERS - len(rollback)] + rollback
    when = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    message = {
        "text": text,
        "blocks": [
            {
                "type": "section",
                "text": {"type": "mrkdwn", "text": f"{SYMBOLS.get(event.name, ':information_source:')} {text}"},
            },
            {
                "type": "context",
                "elements": [{"type": "mrkdwn", "text": f"{event.name} · {when} · {_escaped(event.id)}"}],
            },
        ],
    }
    return Body({"Content-Type": "application/json"}, json.dumps(message).encode())


def _escaped(text: str) -> str:
    """Text in which nobody can be called and no link hidden (Slack: 'Escaping text')."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cloudevent(event: Event) -> Body:
    """A CloudEvent in structured mode; ``source`` and ``id`` are the same each time it is sent."""
    from cloudevents.core.bindings.http import to_structured
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    attributes = {
        "id": event.id,
        "source": f"/cohobate/{event.workload}",
        "type": f"dev.cohobate.{event.name}.v1",
        "time": datetime.fromtimestamp(event.at, UTC),
        "subject": str(event.data.get("rollout") or event.data.get("run") or event.workload),
        "datacontenttype": "application/json",
    }
    data = {"workload": event.workload, "actor": event.actor, "text": event.text, **event.data}
    message = to_structured(CloudEvent(attributes, data), JSONFormat())
    return Body(dict(message.headers), message.body)


FORMATS = {"slack": slack, "cloudevents": cloudevent}
"""How a notice is written, by the webhook's ``format``."""
