"""A student that answers from raw input: NumPy, its runtime and this folder are all that it needs.

>>> import cohobate_student                                        # doctest: +SKIP
>>> cohobate_student.load("the/bundle").predict([b"an input"])     # doctest: +SKIP

Exported by Cohobate (Apache-2.0). ``manifest.json`` beside this folder says what the student is, and has the SHA-256 of
every file; what it holds is described where it is read, in ``student.py``.
"""

from __future__ import annotations

from .errors import BundleError, ConfigError, RecordError
from .student import Answer, Student, load

__all__ = ["Answer", "BundleError", "ConfigError", "RecordError", "Student", "load"]
