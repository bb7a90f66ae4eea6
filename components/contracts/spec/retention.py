"""How long the platform keeps what it has of inputs."""

from __future__ import annotations

from components.contracts.spec.fields import Positive, Section

DAY = 86_400.0
"""Seconds of a day."""


class Retention(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ages, in days, beyond which the platform deletes what it keeps of inputs; None: it is kept.

    ``rows``: rows of snapshots and of what was made of them (the offline sources of features, inputs without labels),
    by the time of the input. The newest window stays, and held-out rows that judge students stay while a champion
    serves: without them nobody could say whether the next one forgets. ``questions``: questions to people that were
    answered and published, by when they were asked. ``reports``: drift and quality reports, by when their window was
    frozen. ``topics``: what ``retention.ms`` of an Apache Kafka's topics is set to at most; it is to leave time for
    labelers to read inputs, and for a window to freeze labels. Requests that are answered later have
    ``serve.asynchronous.keep_seconds``.
    """

    rows: Positive | None = None
    questions: Positive | None = None
    reports: Positive | None = None
    topics: Positive | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything is deleted by its age."""
        return any(age is not None for age in (self.rows, self.questions, self.reports, self.topics))
