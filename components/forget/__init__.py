"""Forgetting: an entity is erased from all topics and stores of a workload, and its students are made anew."""
