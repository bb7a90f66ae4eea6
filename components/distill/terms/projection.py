"""What brings a student's state to the teacher's width."""

from __future__ import annotations

from torch import nn

from components.contracts.errors import ConfigError
from components.contracts.spec.objective import Projection


def projection(kind: Projection, student: int, teacher: int) -> nn.Module:
    """A map from the width ``student`` to the width ``teacher``, freshly drawn.

    Raises:
        ConfigError: there is to be none, and the widths differ.

    """
    if kind == "linear":
        return nn.Linear(student, teacher)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(student, teacher), nn.GELU(), nn.Linear(teacher, teacher))
    if student != teacher:
        raise ConfigError(
            "project", kind, f"the student's state is {student} wide, the teacher's {teacher}: use linear"
        )
    return nn.Identity()
