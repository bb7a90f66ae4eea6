"""Workloads to start from, one for each kind of payload: what ``cohobate init`` writes into a user's folder.

``<kind>.yaml`` is the spec, with ``NAME`` for the workload's name; ``<kind>.py`` becomes ``teacher.py`` beside it as it
is; :mod:`infra.starters.samples` makes the history.
"""
