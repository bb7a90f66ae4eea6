"""The methods by which inputs are made up, and which of them a workload can use.

============= ================================================= ==================================================
method        needs                                             gives
============= ================================================= ==================================================
``noise``     a declaration of the inputs, or a teacher that    independent draws: the floor
              can be differentiated
``search``    texts or rows of a table, and classes             inputs that the teacher finds likely for each class
``inversion`` a teacher that can be differentiated, and classes inputs that are optimised one by one
``generator`` a teacher that can be differentiated, and classes what a generator makes of noise
``chat``      a chat teacher                                    texts that it writes as examples of each class
============= ================================================= ==================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from components.contracts.errors import ConfigError, RecordError, TeacherError
from components.contracts.payload import decoder
from components.contracts.records import SoftLabel
from components.contracts.spec import Spec
from components.contracts.spec.data_free import FIELD, METHODS, DataFree
from components.synthetic import gradient
from components.synthetic.search import STEPS, search
from components.synthetic.spaces import Images, Space, space_of
from components.teachers.contract import (
    Differentiable,
    Teacher,
    differentiable,
    examples,
    outcomes,
    reference,
    writes,
)

EXAMPLES = 20
"""Texts that a chat teacher is asked for at once."""

ASKED = 256
"""Inputs that a teacher is asked about at once."""

EMPTY_HANDED = 3
"""Requests in a row for a class that bring nothing new, after which a chat teacher has no more examples of it."""

Permit = Callable[[int], bool]
"""Whether the label budget lets the teacher be asked so many times; if so, they are paid for."""


class MadeUp(NamedTuple):
    """Payloads, all different, and how they were made: ``method;seed=0;steps=8``."""

    payloads: list[bytes]
    synthetic: str


def make_up(spec: Spec, teacher: Teacher, wanted: DataFree, permit: Permit = lambda calls: True) -> MadeUp:
    """The inputs that ``wanted`` asks for; equal payloads are there once, so that there may be fewer.

    Raises:
        ConfigError: the workload cannot use the method, the label budget is spent, or the spec's decoder takes no such
            payload.
        TeacherError: the teacher failed, or wrote no examples.
        UnavailableError: a remote teacher does not answer.

    """
    asks = _Asks(spec, teacher, permit)
    made = Maker(spec=spec, teacher=teacher, wanted=wanted, asks=asks)
    method = made.method
    payloads, about = made.by(method)
    for payload in payloads:
        asks.decoded(payload)
    seed = made.seed
    return MadeUp(list(dict.fromkeys(payloads)), ";".join([method, f"seed={seed}", *about]))


class _Asks:
    """Asks the teacher about items of a space, within the budget."""

    def __init__(self, spec: Spec, teacher: Teacher, permit: Permit) -> None:
        self.spec, self.teacher, self._permit = spec, teacher, permit
        self._decode = decoder(spec.payload, spec.source)

    def pay(self, calls: int) -> None:
        """Pay for calls before they are made."""
        if not self._permit(calls):
            raise ConfigError(
                "label.budget", calls, "more calls of the teacher are not left of it: raise the budget, wait for the "
                f"next period, or take fewer rows or steps, or {FIELD}.method: noise",
            )  # fmt: skip

    def decoded(self, payload: bytes) -> Any:
        """A payload as the teacher takes it."""
        try:
            return self._decode(payload)
        except RecordError as error:
            what = f"gives payloads that {self.spec.payload.decoder} cannot decode: {error}"
            raise ConfigError(f"{FIELD}.inputs", payload[:40], what) from error

    def of(self, space: Space) -> Callable[[Sequence[Any]], list[SoftLabel]]:
        """The teacher's answers to items; one that it has none to finds no class likely."""

        def ask(items: Sequence[Any]) -> list[SoftLabel]:
            found: list[SoftLabel] = []
            for first in range(0, len(items), ASKED):
                some = [self.decoded(space.payload(item)) for item in items[first : first + ASKED]]
                self.pay(len(some))
                found += [o if isinstance(o, SoftLabel) else self._none for o in outcomes(self.teacher, some)]
            return found

        return ask

    @property
    def _none(self) -> SoftLabel:
        names = self.teacher.classes
        return SoftLabel.of(self.teacher.space, names, [1 / len(names)] * len(names))


class Maker:
    """One order of synthetic inputs."""

    def __init__(self, *, spec: Spec, teacher: Teacher, wanted: DataFree, asks: _Asks) -> None:
        if wanted.method not in METHODS:
            raise ConfigError(f"{FIELD}.method", wanted.method, f"must be one of {', '.join(METHODS)}")
        self.spec, self.teacher, self.wanted, self._asks = spec, teacher, wanted, asks
        self.seed = spec.seed if wanted.seed is None else wanted.seed
        self._module, self._space = differentiable(teacher), space_of(spec, teacher)
        if self._classless and wanted.method not in ("auto", "noise"):
            raise ConfigError(f"{FIELD}.method", wanted.method, "makes inputs for classes: in a regression take noise")

    @property
    def _classless(self) -> bool:
        return self.spec.task == "regression"

    @property
    def _chance(self) -> Random:
        return Random(self.seed)  # noqa: S311  (nothing secret)

    @property
    def method(self) -> str:
        """The method that is wanted, or the best that the teacher and the inputs allow."""
        if self.wanted.method != "auto":
            return self.wanted.method
        if self._module is not None and not self._classless:
            return "inversion"
        if writes(self.teacher) and not self._classless:
            return "chat"
        searched = self._space is not None and not isinstance(self._space, Images)
        return "search" if searched and not self._classless else "noise"

    def by(self, method: str) -> tuple[list[bytes], list[str]]:
        """Payloads, and what is to be told of them beside method and seed."""
        if method == "noise":
            return self._noise(), []
        if method == "chat":
            return self._written(), []
        if method == "search":
            steps = self.wanted.steps or STEPS
            space = self._searchable()
            found = search(
                space, self.teacher.classes, self.wanted.rows, steps, self._chance, self._asks.of(space)
            )  # fmt: skip
            return [space.payload(item) for item in found], [f"steps={steps}"]
        given = self.wanted.steps
        if method == "inversion":
            steps = given or gradient.INVERSION_STEPS
            return self._by_gradient("inversion", steps), [f"steps={steps}"]
        steps = given or gradient.GENERATOR_STEPS
        return self._by_gradient("generator", steps), [f"steps={steps}"]

    def _noise(self) -> list[bytes]:
        if self._space is not None:
            chance = self._chance
            return [self._space.payload(self._space.draw(chance)) for _ in range(self.wanted.rows)]
        if self._module is not None:
            return self._module.payloads(gradient.noise(self._module, self.wanted.rows, self.seed))
        raise ConfigError(
            f"{FIELD}.inputs", None, "must tell what inputs look like (kind: text, table or image): neither the "
            f"teacher {self.teacher.name} nor the featuriser does",
        )  # fmt: skip

    def _searchable(self) -> Space:
        if self._space is None or isinstance(self._space, Images):
            raise ConfigError(
                f"{FIELD}.method", "search", "changes words or cells: declare inputs of kind text (with a vocabulary, "
                "where the teacher names none) or table",
            )  # fmt: skip
        return self._space

    def _by_gradient(self, method: gradient.Gradient, steps: int) -> list[bytes]:
        teacher: Differentiable | None = self._module
        if teacher is None:
            raise ConfigError(
                f"{FIELD}.method", method, f"needs a teacher that has differentiable(), and {reference(self.teacher)} "
                "has not: take search or noise",
            )  # fmt: skip
        classes = len(self.teacher.classes)
        try:
            arrays = gradient.synthesise(teacher, method, classes, self.wanted.rows, steps, self.seed)
        except (RuntimeError, ValueError, IndexError) as error:  # what PyTorch raises
            raise TeacherError(self.teacher.name, f"cannot be differentiated: {error}") from error
        return teacher.payloads(arrays)

    def _written(self) -> list[bytes]:
        """Texts that a chat teacher writes; a class of which it has no more to say has fewer."""
        found: dict[str, None] = {}
        each = -(-self.wanted.rows // len(self.teacher.classes))
        for place, name in enumerate(self.teacher.classes):
            mine: dict[str, None] = {}
            turn = idle = 0
            while len(mine) < each and idle < EMPTY_HANDED:
                self._asks.pay(1)
                wrote = examples(
                    self.teacher, name, min(EXAMPLES, each - len(mine)), self.seed + 1_000 * place + turn
                )  # fmt: skip
                before = len(mine)
                mine |= dict.fromkeys(text for text in wrote if text not in found)
                turn, idle = turn + 1, idle + 1 if len(mine) == before else 0
            found |= dict.fromkeys(list(mine)[:each])
        return [text.encode() for text in list(found)[: self.wanted.rows]]
