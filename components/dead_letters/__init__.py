"""Dead letters: what could not be labelled, with its reason, and how it is tried again."""
