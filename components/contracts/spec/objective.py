"""What a student minimises: a list of terms with weights, each a section of its own by the field ``term``.

Terms against outputs compare what student and teacher (or truth) answer: ``kl``, ``dkd``, ``mse-logits``, ``truth``,
``normal``, ``bernoulli``, ``token-kl``, ``cosine``, ``distance``. Terms against the inside compare named states of both
networks: ``hidden``, ``attention``, ``relation``, ``contrastive``, ``rkd``, ``pkt``, ``spkd``. Formulas, shapes and
papers stand in :mod:`components.distill.terms`.

::

    - {term: kl, weight: 0.7, temperature: 2}
    - {term: truth, weight: 0.3}
    - {term: hidden, weight: 0.5, schedule: linear-decay, student: pooled, teacher: embedding, project: linear}
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Annotated, ClassVar, Literal, get_args

import msgspec
from msgspec import Meta

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from components.contracts.spec.fields import Count, Positive, Section

Schedule = Literal["constant", "linear-warmup", "linear-decay", "cosine-warmup", "cosine-decay"]
"""How a weight runs over a stage: as it is; from 0 up to it (warmup) or from it down to 0 (decay), in a straight line
or along half a cosine."""

StateName = Annotated[str, Meta(min_length=1)]
"""A state's name: for the student a path in its network, for the teacher what the teacher calls it."""

Rows = Literal["labelled", "unlabelled"]
"""The rows that a stage learns from: with the teacher's answers, or inputs of which only its states are known."""

NotNegative = Annotated[float, Meta(ge=0.0)]

FIELD = "student.objective"

VECTOR = "vector"
"""In an embedding, the state of both sides that is the answer itself, at length 1: for terms that relate the rows of a
batch, such as ``{term: rkd, student: vector, teacher: vector}``."""


class Weighted(Section, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="term"):
    """Base of the terms. ``weight`` (> 0) times the schedule's value is what a term's loss is multiplied by."""

    outputs: ClassVar[bool] = True
    """Whether the term compares outputs; else it compares states."""
    per_row: ClassVar[bool] = True
    """Whether a row's loss depends on that row alone; else it relates the rows of a batch."""
    tasks: ClassVar[tuple[Task, ...]] = ("classification", "regression", "multilabel", "tagging")
    """The tasks that it has a meaning in."""

    weight: Positive = 1.0
    schedule: Schedule = "constant"

    @property
    def name(self) -> str:
        """The term's name, as in the field ``term``."""
        return str(self.__struct_config__.tag)

    @property
    def student_states(self) -> tuple[str, ...]:
        """Names of the student's states that it reads."""
        return ()

    @property
    def teacher_states(self) -> tuple[str, ...]:
        """Names of the teacher's states that it reads."""
        return ()


class Kl(Weighted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="kl"):
    """Divergence of the student's distribution from the teacher's (arXiv 1503.02531).

    ``temperature`` softens both. ``direction``: ``forward`` is KL(teacher || student), which covers all that the
    teacher finds possible; ``reverse`` is KL(student || teacher), which keeps to what it finds likely;
    ``jensen-shannon`` lies between, the nearer to forward the smaller ``beta`` (0.5 where it is left out; arXiv
    2306.13649). ``standardise``: logits of both are brought to mean 0 and deviation 1 first, so that the student need
    not learn their size (arXiv 2403.01427).
    """

    tasks: ClassVar[tuple[Task, ...]] = ("classification",)

    temperature: Positive = 2.0
    direction: Literal["forward", "reverse", "jensen-shannon"] = "forward"
    beta: Annotated[float, Meta(gt=0.0, lt=1.0)] | None = None
    standardise: bool = False


class Dkd(Weighted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="dkd"):
    """Decoupled distillation: of the target against all others, and among the others (arXiv 2203.08679).

    ``alpha`` weighs the first, ``beta`` the second part. The paper's settings; they cost small students much accuracy,
    so try it beside ``kl``.
    """

    tasks: ClassVar[tuple[Task, ...]] = ("classification",)

    temperature: Positive = 4.0
    alpha: NotNegative = 1.0
    beta: NotNegative = 8.0


class MseLogits(Weighted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="mse-logits"):
    """Mean squared difference of centred logits (arXiv 1312.6184)."""

    tasks: ClassVar[tuple[Task, ...]] = ("classification",)


class Truth(Weighted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="truth"):
    """Cross entropy on truth; for regression the negative log likelihood of the student's normal.

    Of multilabel it is the sum of a binary cross entropy for each class, of tagging the mean over a text's tokens.

    ``smoothing``: share of a row's target that is spread over all classes (arXiv 1512.00567); classification alone.
    """

    smoothing: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0


class Normal(Weighted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="normal"):
    """Divergence KL(teacher || student) of two normals, for regression."""

    tasks: ClassVar[tuple[Task, ...]] = ("regression",)


class Bernoulli(Weighted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="bernoulli"):
    """Divergence of the student's chance of each class from the teacher's, for multilabel (arXiv 2308.06453).

    ``temperature`` softens both.
    """

    tasks: ClassVar[tuple[Task, ...]] = ("multilabel",)

    temperature: Positive = 2.0


class TokenKl(Weighted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="token-kl"):
    """Divergence of the student's tags from the teacher's, the mean over a text's tokens (arXiv 1606.07947).

    ``temperature`` softens both.
    """

    tasks: ClassVar[tuple[Task, ...]] = ("tagging",)

    temperature: Positive = 2.0


class Cosine(Weighted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="cosine"):
    """Cosine distance of the student's vector from the teacher's, for embedding."""

    tasks: ClassVar[tuple[Task, ...]] = ("embedding",)


class Distance(Weighted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="distance"):
    """Likelihood of the student's cosine distance by the one that it expects, which alone it teaches; for embedding."""

    tasks: ClassVar[tuple[Task, ...]] = ("embedding",)


class Inside(Weighted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=None):
    """Base of the terms that compare one state of the student with one of the teacher.

    ``student``: a path in its network; ``teacher``: a name among the states that it gives.
    """

    outputs: ClassVar[bool] = False
    tasks: ClassVar[tuple[Task, ...]] = get_args(Task)

    student: StateName
    teacher: StateName

    @property
    def student_states(self) -> tuple[str, ...]:
        """The one state of the student."""
        return (self.student,)

    @property
    def teacher_states(self) -> tuple[str, ...]:
        """The one state of the teacher."""
        return (self.teacher,)


Projection = Literal["none", "linear", "mlp"]
"""What brings the student's state to the teacher's width: nothing, a linear map, or one with a hidden layer. It is
learnt beside the student and is no part of what is exported."""


class Hidden(Inside, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="hidden"):
    """Distance of hidden states (FitNets 1412.6550, TinyBERT 1909.10351; its cosine: DistilBERT 1910.01108)."""

    project: Projection = "linear"
    distance: Literal["mse", "cosine"] = "mse"


class Attention(Inside, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="attention"):
    """Distance of attention maps (``kl``: MiniLM 2002.10957; ``mse``: TinyBERT 1909.10351)."""

    distance: Literal["kl", "mse"] = "kl"


class Relation(Inside, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="relation"):
    """Relations among a layer's queries, keys and values (MiniLMv2 2012.15828); widths may differ.

    ``student`` and ``teacher`` name the layers: the states read are ``<layer>.query`` and so on, of those in ``of``.
    ``heads``: relation heads; they divide both widths, and need not be the heads of either attention.
    """

    of: Annotated[tuple[Literal["query", "key", "value"], ...], Meta(min_length=1)] = ("query", "key", "value")
    heads: Count = 8

    @property
    def student_states(self) -> tuple[str, ...]:
        """One state for each of ``of``."""
        return tuple(f"{self.student}.{part}" for part in self.of)

    @property
    def teacher_states(self) -> tuple[str, ...]:
        """One state for each of ``of``."""
        return tuple(f"{self.teacher}.{part}" for part in self.of)


class Contrastive(Inside, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="contrastive"):
    """InfoNCE (1807.03748) with the teacher's states of the same batch as candidates; after CRD (1910.10699)."""

    per_row: ClassVar[bool] = False

    project: Projection = "linear"
    temperature: Positive = 0.1


class Rkd(Inside, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="rkd"):
    """Relational distillation (1904.05068): distances and angles among the rows of a batch; widths may differ.

    Weights within the term; the paper's are 1 to 2. Angles take time and memory by the cube of the batch.
    """

    per_row: ClassVar[bool] = False

    distances: NotNegative = 1.0
    angles: NotNegative = 2.0


class Pkt(Inside, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="pkt"):
    """Probabilistic knowledge transfer (1803.10837): who is near whom in a batch; widths may differ."""

    per_row: ClassVar[bool] = False


class Spkd(Inside, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="spkd"):
    """Similarity-preserving distillation (1907.09682): inner products in a batch; widths may differ."""

    per_row: ClassVar[bool] = False


Term = (
    Kl
    | Dkd
    | MseLogits
    | Truth
    | Normal
    | Bernoulli
    | TokenKl
    | Cosine
    | Distance
    | Hidden
    | Attention
    | Relation
    | Contrastive
    | Rkd
    | Pkt
    | Spkd
)  # fmt: skip
"""Any term: the field ``term`` says which."""


def imitating(task: Task, temperature: float, weight: float = 1.0) -> Term:
    """The term that a student learns another's answers by, where nobody names one."""
    match task:
        case "classification":
            return Kl(weight=weight, temperature=temperature)
        case "multilabel":
            return Bernoulli(weight=weight, temperature=temperature)
        case "tagging":
            return TokenKl(weight=weight, temperature=temperature)
        case "embedding":
            return Cosine(weight=weight)
        case _:
            return Normal(weight=weight)


def term_names(objective: Sequence[Term]) -> list[str]:
    """A name for each term, to log it under: a term's second appearance is ``name-2``, and so on.

    >>> term_names([Truth(), Hidden(student="a", teacher="b"), Hidden(student="c", teacher="d")])
    ['truth', 'hidden', 'hidden-2']
    """
    found: list[str] = []
    for i, term in enumerate(objective):
        before = sum(other.name == term.name for other in objective[:i])
        found.append(f"{term.name}-{before + 1}" if before else term.name)
    return found


def check_objective(objective: Sequence[Term], task: Task, *, rows: Rows = "labelled", field: str = FIELD) -> None:
    """Refuse an objective that cannot be learnt from.

    ``rows``: of the stage that it is for; ``field``: where it stands in the spec, for the message.

    Raises:
        ConfigError: it has no term, or none that the rows can be judged by; a term has no meaning in the task or on
            the rows, or contradicts itself.

    """
    if not objective:
        raise ConfigError(field, [], "has at least one term: add {term: " + _first(task) + "}")
    for i, term in enumerate(objective):
        where = f"{field}[{i}]"
        if task not in term.tasks:
            other = "distance" if task == "embedding" else "truth"
            raise ConfigError(f"{where}.term", term.name, f"has no meaning in a {task}: take {_first(task)} or {other}")
        if rows == "unlabelled" and term.outputs:
            raise ConfigError(f"{where}.term", term.name, "needs labels: an unlabelled stage has terms on states alone")
        if rows == "unlabelled" and task == "embedding" and VECTOR in term.teacher_states:
            allowed = "is the teacher's answer, so it needs labels: name a state, or take the stage's rows: labelled"
            raise ConfigError(f"{where}.teacher", VECTOR, allowed)
        _check_term(term, task, where)
    if rows == "labelled" and not any(term.outputs for term in objective):
        names = ", ".join(term_names(objective))
        raise ConfigError(field, names, f"has no term against outputs, so the answer is not learnt: add {_first(task)}")


def check_states(
    objective: Sequence[Term], *, student: Collection[str], teacher: Collection[str], field: str = FIELD
) -> None:
    """Refuse an objective that reads a state which the student's network or the teacher does not have.

    Raises:
        ConfigError: names the term's field, the state, and those that there are.

    """
    for i, term in enumerate(objective):
        sides = (("student", term.student_states, student), ("teacher", term.teacher_states, teacher))
        for side, wanted, there in sides:
            for name in wanted:
                if name not in there:
                    has = f"has {', '.join(sorted(there))}" if there else "gives no states: leave the term out"
                    raise ConfigError(f"{field}[{i}].{side}", name, f"is no state of the {side}, which {has}")


def _first(task: Task) -> str:
    return imitating(task, 1.0).name


def _check_term(term: Term, task: Task, where: str) -> None:
    """Refuse a term whose fields contradict each other or the task."""
    for name, value in msgspec.structs.asdict(term).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}.{name}", value, "must be a finite number")
    if isinstance(term, Kl) and term.beta is not None and term.direction != "jensen-shannon":
        raise ConfigError(f"{where}.beta", term.beta, "goes with direction: jensen-shannon alone")
    if isinstance(term, Truth) and term.smoothing and task != "classification":
        raise ConfigError(f"{where}.smoothing", term.smoothing, f"spreads over classes: leave it out in a {task}")
    if isinstance(term, Dkd) and term.alpha == term.beta == 0:
        raise ConfigError(f"{where}.alpha", term.alpha, "and beta are both 0, so nothing is learnt: raise one")
    if isinstance(term, Rkd) and term.distances == term.angles == 0:
        raise ConfigError(f"{where}.distances", term.distances, "and angles are both 0: raise one")
    if isinstance(term, Relation) and len(set(term.of)) < len(term.of):
        raise ConfigError(f"{where}.of", list(term.of), "names each of query, key and value once at most")
