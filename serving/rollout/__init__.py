"""The rollout of a candidate: a pure state machine, its guards, and the replay of its decisions."""

from serving.rollout.evidence import Answered, Audited, Failed, Observation
from serving.rollout.state import Action, RolloutState
from serving.rollout.step import begin, command, step

__all__ = ["Action", "Answered", "Audited", "Failed", "Observation", "RolloutState", "begin", "command", "step"]
