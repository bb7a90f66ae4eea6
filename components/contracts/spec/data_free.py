"""Inputs that are made up, for a workload whose own may not be kept: how, how many, and what they look like.

::

    student:
      data_free:
        method: search
        rows: 2000
        inputs:
          kind: table
          columns:
            age: {low: 18, high: 99, whole: true}
            income: {mean: 3200, deviation: 1400, low: 0, missing: 0.1}
            region: {values: [north, south], chances: [0.7, 0.3]}
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from components.contracts.spec.fields import Count, Positive, Section, Share

Method = Literal["auto", "noise", "search", "inversion", "generator", "chat"]
"""How inputs are made up; :mod:`components.synthetic.methods` says what each does."""

METHODS: tuple[str, ...] = get_args(Method)

FIELD = "student.data_free"


class Column(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands in a column, drawn apart from all others: a normal, a range, or one of some values.

    ``mean`` and ``deviation``: of a normal, cut off at ``low`` and ``high`` where they are given; these two alone: of a
    uniform range. ``whole``: rounded to whole numbers. ``values``: one of these, with ``chances`` that sum to one, or
    each alike. ``missing``: share of rows in which the column has no value.
    """

    mean: float | None = None
    deviation: Positive | None = None
    low: float | None = None
    high: float | None = None
    whole: bool = False
    values: tuple[str | float | bool, ...] = ()
    chances: tuple[Share, ...] = ()
    missing: Share = 0.0


class TableInputs(Section, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="table"):
    """JSON objects of these columns; left out: those that the featuriser's ``numbers`` and ``categories`` declare."""

    columns: dict[str, Column] = msgspec.field(default_factory=dict)


class ImageInputs(Section, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="image"):
    """PNG images whose pixels (0 to 255) have this ``mean`` and ``deviation``."""

    height: Count
    width: Count
    colour: Literal["grey", "rgb"] = "grey"
    mean: Annotated[float, Meta(ge=0.0, le=255.0)] = 127.5
    deviation: Positive = 64.0


class TextInputs(Section, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="text"):
    """Texts of a number of ``words`` from the least to the most.

    ``vocabulary``: file of words beside the spec, one a line; left out: the words that the teacher itself knows.
    """

    words: tuple[Count, Count] = (3, 12)
    vocabulary: str = ""


Inputs = TableInputs | ImageInputs | TextInputs


class DataFree(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How inputs are made up for the pipeline ``data-free``.

    ``method``: ``noise`` draws at random what the ``inputs`` declare; ``search`` changes texts and rows until the
    teacher finds them likely for a class; ``inversion`` and ``generator`` follow the gradient of a teacher that can be
    differentiated; ``chat`` has a chat teacher write examples of each class; ``auto`` takes the best that the teacher
    and the inputs allow. ``rows``: how many. ``steps``: of the optimiser, or rounds of the search; left out: what the
    method needs. ``seed``: the spec's where it is left out.
    """

    method: Method = "auto"
    rows: Count = 2_000
    steps: Count | None = None
    seed: int | None = None
    inputs: Inputs | None = None


def check_data_free(data_free: DataFree, task: Task) -> None:
    """Refuse inputs that cannot be drawn, and methods that have no meaning in the task.

    Raises:
        ConfigError: names the field and the remedy.

    """
    if task == "regression" and data_free.method not in ("auto", "noise"):
        raise ConfigError(f"{FIELD}.method", data_free.method, "makes inputs for classes: in a regression take noise")
    inputs = data_free.inputs
    if isinstance(inputs, TextInputs) and inputs.words[0] > inputs.words[1]:
        raise ConfigError(f"{FIELD}.inputs.words", list(inputs.words), "must be the least and the most")
    if isinstance(inputs, TableInputs):
        for name, column in inputs.columns.items():
            _check_column(f"{FIELD}.inputs.columns.{name}", column)


def _check_column(field: str, column: Column) -> None:
    for name, value in msgspec.structs.asdict(column).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{field}.{name}", value, "must be a finite number")
    normal, ranged = (column.mean, column.deviation), (column.low, column.high)
    if column.values:
        if {*normal, *ranged} != {None} or column.whole:
            raise ConfigError(
                field, list(column.values), "has values, or numbers (mean, deviation, low, high): not both"
            )
        if column.chances and (
            len(column.chances) != len(column.values) or abs(math.fsum(column.chances) - 1.0) > 1e-6
        ):
            raise ConfigError(f"{field}.chances", list(column.chances), f"must be {len(column.values)} that sum to one")
        return
    if column.chances:
        raise ConfigError(f"{field}.chances", list(column.chances), "go with values")
    if (normal[0] is None) != (normal[1] is None):
        raise ConfigError(field, normal, "needs both mean and deviation of a normal, or neither")
    if None in ranged and normal[0] is None:
        raise ConfigError(field, ranged, "needs values, or mean and deviation, or low and high")
    if column.low is not None and column.high is not None and not column.low < column.high:
        raise ConfigError(field, ranged, "low must be below high")
