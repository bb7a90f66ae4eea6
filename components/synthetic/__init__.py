"""Inputs that are made up: for a first student of a workload whose own inputs may not be kept."""
