"""The local stack, the command ``cohobate``, and the demo."""
