"""The rollout of a candidate: a pure state machine, its guards, and the replay of its decisions.

Import from its modules: whoever only wants to see a workload's :mod:`.condition` needs none of the others.
"""
