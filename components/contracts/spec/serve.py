"""The gateway, and who is asked where the student is not sure."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from components.contracts.errors import ConfigError
from components.contracts.spec.fields import Count, Factory, OpenShare, Positive, Section, Share

DeferTo = Literal["expert", "teacher", "review"]


class Deferral(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is asked, in order, where the student is not sure and the request allows it, and what that may cost.

    ``to``: the mid-size ``expert`` (a teacher by its contract, of the same label space), the teacher, or the queue of
    questions to people, whose answer comes later. An expert's answer of a confidence below ``expert_below`` is given
    only when nobody after it answers. One that does not answer within ``timeout_seconds`` counts as failed; after
    ``breaker_failures`` of them in a row it is left alone for ``breaker_seconds``. ``per_minute``: questions to each,
    from each replica; None for no limit. ``replicas``: the most processes that the expert, and the teacher behind the
    gateway, may have; each is started when there are more questions than one can take in a batch.

    The teacher's calls count for ``label.budget``, and its answers become labels. Where the budget is spent, or paced,
    an input of classification or multilabel that it is not asked about may be given what it said of the nearest of the
    newest ``neighbours`` inputs that it was asked about (at most 20,000, of 4 KB each), where that is right more often
    than the student (:mod:`serving.neighbours`). With 0 the student's answer stands; left out, they are 2,000 wherever
    that is possible, and none of other tasks, without a budget, or beside ``student.privacy``.
    """

    to: tuple[DeferTo, ...] = ("teacher",)
    expert: Factory | None = None
    expert_below: Share = 0.0
    timeout_seconds: Positive = 5.0
    per_minute: Count | None = None
    replicas: Count = 1
    breaker_failures: Count = 5
    breaker_seconds: Positive = 30.0
    neighbours: Annotated[int, Meta(ge=0, le=20_000)] | None = None


class Asynchronous(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests that are answered later.

    ``callbacks``: addresses below which an answer may be sent, ``https://host/path``; with none an answer can be asked
    for alone. ``keep_seconds``: how long from its acceptance an answer can be had, and how long one is sought.
    ``max_waiting``: requests without an answer, beyond which no more are taken.

    Raises:
        ConfigError: an address is none.

    """

    callbacks: tuple[str, ...] = ()
    keep_seconds: Positive = 86_400.0
    max_waiting: Count = 10_000

    def __post_init__(self) -> None:
        """Check the addresses."""
        for url in self.callbacks:
            try:
                parts = urlsplit(url)
                fit = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
            except ValueError:
                fit = False
            if not fit or "@" in url or parts.query or parts.fragment:
                raise ConfigError("serve.asynchronous.callbacks", url, "must have the form https://host[:port][/path]")


class Serve(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway.

    ``defer_below``: confidence under which an answer says ``defer``; 0 sets none. With ``max_disagreement`` the limit
    of each version is the one that its evaluation certified: of the answers that are not deferred at most this share
    disagrees with the teacher, at a chance of 95 %; a version for which none could be certified defers everything.
    ``novelty``: inputs are deferred too whose p-value of novelty is at or below it, whatever the confidence; of traffic
    like that which a version knows it is at most this share. A version that tells no novelty is served without. None
    defers nothing for its novelty: each deferred input may cost a question, which a spec from before did not ask for.
    ``audit_share``: share of requests whose input is audited against the teacher (by a hash of the input id, so that
    it can be recomputed); ``buffer_records``: telemetry kept while the stream is slow, beyond which it is dropped and
    counted. ``max_under_way``: requests that one replica takes at once, beyond which it sheds the least urgent;
    ``request_seconds``: for a body to come, and for a batch to be answered. ``file_bytes``: of a file of inputs.
    ``asynchronous``: requests that are answered later, which the control database holds; None: none are taken.
    """

    replicas: Count = 2
    defer_below: Share = 0.0
    max_disagreement: Share | None = None
    novelty: OpenShare | None = None
    deferral: Deferral = Deferral()
    audit_share: Share = 0.1
    max_batch: Count = 256
    buffer_records: Count = 10_000
    max_under_way: Count = 256
    request_seconds: Positive = 10.0
    file_bytes: Count = 268_435_456
    asynchronous: Asynchronous | None = None

    @property
    def defers(self) -> bool:
        """Whether any answer may say ``defer``."""
        return self.defer_below > 0.0 or self.max_disagreement is not None or self.novelty is not None
