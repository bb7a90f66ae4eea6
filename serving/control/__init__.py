"""The controller of rollouts: who leads, what was ordered, what the replicas acknowledged."""
