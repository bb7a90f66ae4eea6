"""What a site of a federation does, and who mixes: the sub-command ``cohobate federate``."""
