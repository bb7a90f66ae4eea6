"""Watching the teacher: probes, the verdicts over them, and the guard that notices when it changed."""
