"""Evaluation: what a candidate's exported artifact does on inputs that no training has seen, and the gate's verdict."""
