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
    frozen. Requests that are answered later have ``serve.asynchronous.keep_seconds``, topics the broker's retention.
    """

    rows: Positive | None = None
    questions: Positive | None = None
    reports: Positive | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything is deleted by its age."""
        return (self.rows, self.questions, self.reports) != (None, None, None)
