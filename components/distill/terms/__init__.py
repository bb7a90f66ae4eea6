"""What a student can minimise: one file a term, and :class:`Objective`, which adds them up.

Shapes in all files: B rows of a batch, C classes, L positions, D width of a state, H heads.
"""

from components.distill.terms.contract import Said, Shapes, Taught, Term
from components.distill.terms.objective import Objective, build, scheduled

__all__ = ["Objective", "Said", "Shapes", "Taught", "Term", "build", "scheduled"]
