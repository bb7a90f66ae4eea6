"""Benchmarks: each module has ``main()``, prints what it measured, and both sides of every ratio from one run."""
