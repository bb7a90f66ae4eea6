"""The demo: real input through the whole platform, and a report of what happened."""
