"""Which inputs of a batch go to the teacher: audited ones, those whose callers wait, those that the policy draws."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import msgspec

from components.contracts.records import Input, SoftLabel
from components.contracts.sampling import audited, bucket
from components.contracts.spec import Spec
from components.control.store import Clock
from components.query.budget import Budget, Reservation
from components.query.lacking import Lacking
from components.query.pace import need
from components.query.policies import UNCERTAINTY, Decision, Floats, Scores, decide, uncertainty
from components.student.runtime import Reply

log = logging.getLogger(__name__)

FIRST_SECONDS = 1.0
"""How long the first batch is taken to have gathered: nobody saw when it began."""

MEMORY = 1_000
"""Inputs over which the traffic's mean uncertainty is remembered (exponentially)."""

NOTHING_RESERVED = Reservation(id="", urgent=0, ordinary=0)


class Choice(NamedTuple):
    """A decision for each input, in order, and the calls that were reserved for those to label."""

    decisions: list[Decision]
    reservation: Reservation


class Selector:
    """Chooses for one labeler. ``budget`` None: no limit. ``lacking``: labels of a new regime that an update lacks.

    For every batch:

    1. ``choice = selector.choose(inputs, scores)``: reserves the calls that it decides on.
    2. Ask the teacher for the inputs whose decision is to label; policy, probability and audit go into their labels.
       What is skipped is done with: it is counted in :attr:`counts` and, where the budget was the reason, durably in
       the control database.
    3. ``selector.settle(choice, made)`` when the teacher has answered: ``made`` is how many calls were paid.

    A batch that is asked for again after step 3 is another choice, with a reservation of its own.

    Synthetic inputs are no part of the traffic: no policy draws them, none is audited, and all are labelled, as
    ordinary calls of the budget.
    """

    def __init__(
        self,
        spec: Spec,
        budget: Budget | None = None,
        clock: Clock = time.time,
        lacking: Lacking | None = None,
    ) -> None:
        self.spec, self._clock, self._lacking = spec, clock, lacking
        self.budget = budget if budget is not None and budget.limited else None
        self.counts: Counter[str] = Counter()
        """Decisions by reason."""
        self._typical: float | None = None
        self._seen = 0
        self._last: float | None = None
        self._exhausted = False

    def choose(
        self,
        inputs: Sequence[Input],
        scores: Scores | None = None,
        waiting: Collection[str] = (),
        answered: Collection[int] = (),
        first: Collection[int] = (),
    ) -> Choice:
        """Decide on a batch; ``scores`` as :class:`~components.query.scores.StudentScores` gives them.

        ``waiting``: ids of deferred inputs. Those that the gateway audits are known here: they are labelled as well.
        ``answered``: places in ``inputs`` of those that the teacher answered before they came here: they are labelled,
        and nothing is reserved for them. They are deferred inputs, which would be labelled with certainty in any case,
        but for a budget that is spent: so their chance is one, and that of the audit slice what it is.
        ``first``: places of inputs of the regime that an alarm tells of, which the policy asks about first.

        Raises:
            ValueError: a student has not one soft label for each input.
            UnavailableError: the budget could not be reserved.

        """
        # The audit slice comes first: nothing that is known of an input may decide whether it is in it.
        share = self.spec.label.audit_share
        made_up = [i for i, x in enumerate(inputs) if x.synthetic is not None]
        real = [i for i, x in enumerate(inputs) if x.synthetic is None]
        audits = [i for i in real if audited(self.spec.name, inputs[i].id, share)]
        rest = sorted(set(real) - set(audits))
        awaited = {i for i in rest if self._awaited(inputs[i].id)}
        urgent = [i for i in rest if i in answered or i in awaited]
        sure = set(urgent)
        urgent += self._neediest(inputs, [i for i in rest if i not in sure and inputs[i].id in waiting], scores)
        free = sorted(set(rest) - set(urgent))
        audit = Decision(label=True, policy="audit", probability=share, reason="audit", audit=True)
        asked = Decision(label=True, policy="priority", probability=1.0, reason="priority")
        decisions = dict.fromkeys(audits, audit) | dict.fromkeys(urgent, asked)
        wanted = Decision(label=True, policy="synthetic", probability=1.0, reason="synthetic")
        decisions |= self._drawn(inputs, free, scores, set(first)) | dict.fromkeys(made_up, wanted)
        self._promise(len(audits) + len(awaited), len(real))
        done = set(answered)
        # What is kept for audits is for the gateway's, too; where nothing is, those are as any that wait.
        kept = awaited if self.budget is not None and self.budget.limits.audits else set[int]()
        wanting = audits, [i for i in urgent if i in kept], [i for i in urgent if i not in kept]
        reservation = self._reserve(inputs, decisions, *([i for i in group if i not in done] for group in wanting))
        decisions |= {i: msgspec.structs.replace(decisions[i], reason="answered") for i in done}
        ordered = [decisions[i] for i in range(len(inputs))]
        self.counts.update(d.reason for d in ordered)
        return Choice(ordered, reservation)

    def settle(self, choice: Choice, made: int) -> None:
        """Say how many calls of a choice were paid; the rest of the reservation is given back."""
        if self.budget is not None:
            self.budget.settle(choice.reservation, made)

    def asking(self, choice: Choice) -> AbstractContextManager[None]:
        """Around the calls of a choice: see :meth:`.Budget.asking`."""
        return self.budget.asking(choice.reservation) if self.budget is not None else nullcontext()

    def gauge(self) -> dict[str, int | float]:
        """Decisions so far by reason, what the budget has left in its unit, and what it made skip."""
        found: dict[str, int | float] = {f"chosen_{reason}": n for reason, n in sorted(self.counts.items())}
        for period, spent in self.budget.spending().items() if self.budget is not None else ():
            if spent.left is not None:
                found |= {f"budget_left_{period}": spent.left, f"budget_kept_{period}": spent.kept}
            found[f"budget_skipped_{period}"] = spent.skipped
        for name, value in self.budget.pacing().items() if self.budget is not None else ():
            found[f"budget_pace_{name}"] = value
        return found

    def _neediest(self, inputs: Sequence[Input], waiting: list[int], scores: Scores | None) -> list[int]:
        """Those that wait and that the pace of the budget lets ask; the others are as inputs that do not wait.

        Without a student's scores of them one needs it as much as another.
        """
        if self.budget is None or not waiting:
            return waiting
        alpha = self.spec.serve.novelty
        wanted = {inputs[i].id: _need(scores[0][i], alpha) if scores else 1.0 for i in waiting}
        lacking = self._lacking if self.budget.limits.pace_deferred else None
        granted = set(self.budget.neediest(wanted, lacking() if lacking is not None else 0))
        if lacking is not None:
            lacking.asked(len(granted))
        found = [i for i in waiting if inputs[i].id in granted]
        if refused := len(waiting) - len(found):
            self.counts["paced"] += refused
        return found

    def _promise(self, audits: int, traffic: int) -> None:
        """Let room be kept for audits and for the part of the policy's labels that every input is promised."""
        if self.budget is not None:
            policy = self.spec.label.policy
            self.budget.promise(audits + policy.share * policy.floor * (traffic - audits))

    def _awaited(self, input_id: str) -> bool:
        """Whether the gateway audits the input, so that a rollout waits for its label, and it might get none."""
        choosy = self.budget is not None or self.spec.label.policy.kind != "all"
        return choosy and audited(self.spec.name, input_id, self.spec.serve.audit_share)

    def _drawn(
        self, inputs: Sequence[Input], free: list[int], scores: Scores | None, first: set[int]
    ) -> dict[int, Decision]:
        policy = self.spec.label.policy
        allowance = self._allowance()
        if not free:
            return {}
        if allowance <= 0:
            none = Decision(label=False, policy=policy.kind, probability=0.0, reason="exhausted")
            return dict.fromkeys(free, none)
        mine: Any = [[member[i] for i in free] for member in scores] if scores else None
        typical = self._remember(uncertainty(policy, mine, len(free)) if policy.kind in UNCERTAINTY else None)
        ids = [inputs[i].id for i in free]
        ahead = {place for place, i in enumerate(free) if i in first}
        found = decide(policy, ids, mine, allowance, self.spec.seed, typical=typical, first=ahead)
        return dict(zip(free, found, strict=True))

    def _allowance(self) -> float:
        if self.budget is None:
            return math.inf
        now = self._clock()
        elapsed = FIRST_SECONDS if self._last is None else max(0.0, now - self._last)
        self._last = now
        return self.budget.allowance(elapsed)

    def _remember(self, doubts: Floats | None) -> float | None:
        """The traffic's mean uncertainty, these inputs' included; None where it is not known."""
        if doubts is None:
            return None
        self._seen = min(self._seen + len(doubts), MEMORY)
        part = min(1.0, len(doubts) / self._seen)
        before = 0.0 if self._typical is None else self._typical
        self._typical = (1.0 - part) * before + part * float(doubts.mean())
        return self._typical

    def _reserve(
        self,
        inputs: Sequence[Input],
        decisions: dict[int, Decision],
        audits: list[int],
        awaited: list[int],
        urgent: list[int],
    ) -> Reservation:
        """Reserve what ``decisions`` want, and take back what is not granted: ordinary first, the audit slice last.

        ``awaited``: what is audited by the gateway alone.
        """
        if self.budget is None:
            return NOTHING_RESERVED
        drawn = [i for i, d in decisions.items() if d.label and d.reason not in ("audit", "priority")]
        unaffordable = sum(d.reason == "exhausted" for d in decisions.values())
        wanted = len(audits) + len(awaited), len(urgent), len(drawn)
        if not (any(wanted) or unaffordable):
            return NOTHING_RESERVED
        granted = self.budget.reserve(wanted[1], wanted[2], audits=wanted[0], skipped=unaffordable)
        for_slice = min(granted.audits, len(audits))
        self._thin(inputs, decisions, audits, for_slice)
        self._thin(inputs, decisions, awaited, granted.audits - for_slice)
        self._thin(inputs, decisions, urgent, granted.urgent)
        self._thin(inputs, decisions, drawn, granted.ordinary)
        refused = sum(wanted) - granted.calls + unaffordable
        if refused and not self._exhausted:
            log.warning("%s: the label budget is exhausted: inputs are skipped and counted", self.spec.name)
        self._exhausted = refused > 0
        return granted

    def _thin(self, inputs: Sequence[Input], decisions: dict[int, Decision], chosen: list[int], granted: int) -> None:
        """Keep ``granted`` of the chosen, drawn uniformly and apart from how they were chosen; chances follow.

        A weight of 1/(p k/n) stays unbiased as long as at least one of the n is kept: it is a second phase of sampling.
        """
        if granted >= len(chosen):
            return
        salt, part = f"grant {self.spec.seed}", granted / len(chosen)
        order = sorted(chosen, key=lambda i: bucket(self.spec.name, salt, inputs[i].id))
        for place, i in enumerate(order):
            thinned = msgspec.structs.replace(decisions[i], probability=decisions[i].probability * part)
            kept = place < granted
            decisions[i] = thinned if kept else msgspec.structs.replace(thinned, label=False, reason="exhausted")


def _need(said: SoftLabel | Reply | float, alpha: float | None) -> float:
    """An input's need by what a student says of it; of those that are measured by distance all need it alike."""
    if isinstance(said, float):
        return 1.0
    soft, novelty = (said.soft, said.novelty) if isinstance(said, Reply) else (said, None)
    return need(soft.confidence, novelty, alpha)
