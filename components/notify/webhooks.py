"""Who is notified: the webhooks that the settings name."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.notify.events import EVENTS

SETTING = "COHOBATE_WEBHOOKS"


class Webhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A receiver of notices.

    ``name`` stands for it in the outbox and the ledger; its ``url`` often is a secret and stands nowhere.
    ``events``: names of :data:`~components.notify.events.EVENTS`, or ``rollout.*`` for all of a kind; none: all.
    ``workloads``: only these; none: all. ``token``: sent as a bearer token.

    Raises:
        ConfigError: the name, the URL or an event is none.

    """

    name: str
    url: str
    format: Literal["slack", "cloudevents"]
    events: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    token: str | None = None

    def __post_init__(self) -> None:
        """Check the fields; the URL is not shown."""
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.name):
            raise ConfigError(SETTING, self.name[:64], "a webhook's name has 1 to 64 letters, digits, '.', '_' or '-'")
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError(SETTING, self.name, "its url must have the form http(s)://host/path")
        kinds = {f"{e.partition('.')[0]}.*" for e in EVENTS}
        if unknown := sorted(set(self.events) - set(EVENTS) - kinds):
            raise ConfigError(SETTING, unknown, f"events of {self.name} must be of {', '.join(EVENTS)}, or KIND.*")

    def wants(self, event: str, workload: str) -> bool:
        """Whether it hears of an event of a workload."""
        heard = not self.events or event in self.events or f"{event.partition('.')[0]}.*" in self.events
        return heard and (not self.workloads or workload in self.workloads)


def webhooks_of(settings: Settings) -> tuple[Webhook, ...]:
    """The webhooks of ``COHOBATE_WEBHOOKS``, or of the file of ``COHOBATE_WEBHOOKS_FILE``.

    Raises:
        ConfigError: it is no JSON list of webhooks, or two have one name.

    """
    text = settings.secret("webhooks")
    if not text:
        return ()
    try:
        hooks = msgspec.json.decode(text, type=tuple[Webhook, ...])
    except msgspec.DecodeError as error:
        allowed = f"must be a JSON list of objects with name, url and format: {error}"
        raise ConfigError(SETTING, "what was given", allowed) from None
    names = [hook.name for hook in hooks]
    if len(set(names)) != len(names):
        raise ConfigError(SETTING, sorted(names), "each webhook needs a name of its own")
    return hooks
