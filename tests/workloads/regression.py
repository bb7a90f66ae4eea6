"""A regression workload: three readings of a weather station become the temperature two hours later, in °C."""

import hashlib
import math

import msgspec

from components.contracts.errors import RecordError
from components.contracts.records import SoftLabel
from components.student.table import TableColumns

COLUMNS = [
    {"name": "now", "mean": 12.0, "scale": 8.0},
    {"name": "trend", "mean": 0.0, "scale": 2.0},
    {"name": "wind", "mean": 15.0, "scale": 10.0},
]


def decode(payload: bytes) -> list[float]:
    """Temperature now (°C), its trend (°C/h) and the wind (km/h), from a JSON list of three numbers."""
    try:
        return msgspec.json.decode(payload, type=tuple[float, float, float])
    except msgspec.MsgspecError as error:
        raise RecordError("bad_reading", f"not a list of three numbers: {error}") from error


class Physicist:
    """A teacher whose rule is known: the stronger the wind, the less sure it is."""

    name = "physicist"
    task = "regression"
    space = "celsius"
    classes = ()
    rule = "now + 2 * trend * exp(-wind / 40); scale 0.5 + wind / 20"
    digest = hashlib.sha256(rule.encode()).hexdigest()
    size_bytes = len(rule)

    def label(self, payloads: list[list[float]]) -> list[SoftLabel]:
        """One value with its scale for each reading."""
        return [self._one(*reading) for reading in payloads]

    def _one(self, now: float, trend: float, wind: float) -> SoftLabel:
        value = now + 2 * trend * math.exp(-wind / 40)
        return SoftLabel(task="regression", space=self.space, value=value, scale=0.5 + abs(wind) / 20)


class Features(TableColumns):
    """The readings, standardised; one written from nothing follows ``components.student.features``."""

    def __init__(self) -> None:
        super().__init__(COLUMNS)
