"""Labelling: teachers behind one contract, and the labeler that asks them."""
