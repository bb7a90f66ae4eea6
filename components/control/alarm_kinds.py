"""The kinds of the alarms that a workload's monitor raises: each tells that the traffic is not what it was."""

from __future__ import annotations

from typing import Literal

Source = Literal["inputs", "predictions", "labels"]

DRIFT, DOUBT, ENTROPY, NOVELTY, CHANGE = "drift", "predictive_entropy", "entropy", "novelty", "change"
"""``drift``: windows of inputs, their descriptors and the mix of the champion's answers.

``predictive_entropy``: windows of inputs, how unsure the champion is. ``entropy``: windows of labels, the teacher's
entropy and what the champion's has more. ``novelty``: how unlike the champion's own data the inputs are that it
answered. ``change``: every input and every label by itself."""

GUARDED = "guarded"
"""The kind of the controller's own: what the champion answers is shown to break what was promised of it."""

UNKNOWN = (NOVELTY, GUARDED)
"""The kinds that tell that the champion does not know the traffic; the others tell only that it is another."""

MONITORED = (DRIFT, DOUBT, ENTROPY, NOVELTY, CHANGE)

SOURCES: dict[str, Source] = {DRIFT: "inputs", DOUBT: "inputs", ENTROPY: "labels", NOVELTY: "predictions"}
"""What an alarm of a kind is read from; one of ``change`` says it itself."""
