"""Which inputs the teacher is asked about, and what that may cost."""
