"""The verbs of the workload's page: their titles, which are offered, and in words what each will do."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from components.control.intent import Intent
from serving.rollout.state import RolloutState


class VerbView(msgspec.Struct, frozen=True, kw_only=True):
    """A verb as a button."""

    name: str
    title: str


TITLES = {
    "rollback": "Roll back",
    "pause": "Pause",
    "resume": "Resume",
    "promote": "Promote a step",
    "promote-full": "Promote fully",
    "abort": "Abort",
    "retry": "Retry",
    "undo": "Undo",
    "start": "Start a rollout",
}
"""In the order in which they are shown; the first is the biggest."""


def verb_of(name: str) -> VerbView:
    """A verb by its name."""
    return VerbView(name=name, title=TITLES[name])


def offered(intent: Intent, state: RolloutState | None) -> list[VerbView]:
    """What may be pressed now: what the rollout allows, and going back wherever there is something to go back to."""
    legal: set[str] = set(state.legal) if state is not None else set()
    if intent.previous is not None and (state is None or state.ended):
        legal.add("rollback")
    return [verb_of(name) for name in TITLES if name in legal]


def goes_back_to(intent: Intent, state: RolloutState | None) -> str:
    """Who serves after a rollback that names no version."""
    if state is not None and not state.ended:
        return f"v{state.champion.version}, the champion"
    return f"v{intent.previous.version}, the previous champion" if intent.previous is not None else "nobody"


def happens(verb: str, intent: Intent, state: RolloutState | None, version: str = "") -> str:
    """What a verb will do, in words for who is about to press."""
    champion = f"v{intent.champion.version}" if intent.champion else "no champion"
    if verb == "start":
        return (
            f"v{version} becomes the candidate of a new rollout against {champion}, from the first step of the "
            "spec's policy on. It is refused while another rollout is under way."
        )
    if verb == "rollback":
        if state is not None and not state.ended:
            return (
                f"The candidate v{state.candidate.version} is taken back at once: every replica answers by "
                f"v{state.champion.version} alone, and the rollout ends. No request fails."
            )
        return f"{goes_back_to(intent, None)}, serves again in the place of {champion}. No request fails."
    if state is None:
        return "There is no rollout: this will be refused."
    return _steers(verb, state)


def _steers(verb: str, state: RolloutState) -> str:
    candidate, champion = f"v{state.candidate.version}", f"v{state.champion.version}"
    following: Sequence[float] = [s.weight for s in state.policy.steps[state.step + 1 :]]
    goes_to = f"given {100 * following[0]:g} % of the requests" if following else f"champion in the place of {champion}"
    return {
        "pause": f"{candidate} keeps its share of {100 * state.weight:g} %, and no step is taken until somebody "
        "resumes. The guards go on, and take it back if they have to.",
        "resume": f"The rollout of {candidate} goes on from where it was paused.",
        "promote": f"{candidate} is {goes_to} now, whatever evidence is missing. The guards go on.",
        "promote-full": f"{candidate} becomes champion now, past all steps that are left. {champion} becomes the "
        "previous one.",
        "abort": f"The rollout ends as a change of mind: {champion} answers alone. {candidate} may be retried.",
        "retry": f"The rollout of {candidate} begins anew, at its first step and with fresh guards.",
        "undo": "The last change is taken back: a step, an abort, or a promotion. A step that is taken again is paused "
        "for you to look at.",
    }[verb]
