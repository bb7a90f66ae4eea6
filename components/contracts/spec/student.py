"""The student, its update and its exports."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from components.contracts.spec.data_free import DataFree
from components.contracts.spec.fields import Count, Factory, Name, Positive, Section, Share
from components.contracts.spec.objective import FIELD, Cosine, Distance, Rows, Term, Truth, check_objective, imitating
from components.contracts.spec.privacy import Privacy

BAG = "components.distill.networks.bag:BagOfFeatures"
"""The network of a spec that names none."""


WIDTHS, NARROW = (128, 256), (32, 64)
"""Widths of the bag of features that a spec leaves open, and in private: there each weight brings noise of its own.

With 500 labels of 150 classes the first reach 57 %, 64 and 128 reach 54 % (``make bench BENCH=students``)."""

LEAST_EPOCHS, LEAST_STEPS = 12, 300
"""What an update takes whose spec names no epochs: passes over its rows, more of them where these are few steps."""

RATE = 0.005
"""Learning rate at the first step where neither the spec nor the network names one."""


class Variant(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shape of student, and how it learns.

    ``options``: of the network, beside those that the spec gives it and before them. ``recipe``: which of the student's
    recipes it learns by; empty: its objective.

    ``dim`` and ``hidden`` are short for the options of the bag of features, which a spec has that names no network: the
    width of the embedding, and that of the one hidden layer; left out, :data:`WIDTHS`. A few classes need no more than
    32 and 64: with 150 and 1,200 rows, 16 and 32 reach 40 % where 64 and 128 reach 72 %
    (``tests/bench/example_student.py``).
    """

    name: Name
    dim: Count | None = None
    hidden: Count | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    recipe: str = ""


class Stage(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a student learns before it learns its labels.

    ``rows``: ``unlabelled`` are the newest inputs of the workload, labelled or not, but none that is held out: of them
    the teacher is asked for its inner states alone. ``encoder``: whose states they are where it is not the teacher's:
    any model that has ``states`` as a teacher has, so that a student of a teacher behind a server can learn from inside
    a model that is at hand. ``updates``: whether a student that is warm-started goes through the stage too, and not a
    fresh one alone.
    """

    name: Name
    objective: tuple[Term, ...]
    rows: Rows = "unlabelled"
    encoder: Factory | None = None
    epochs: Count = 4
    updates: bool = False


Form = Literal["float32", "int8", "pruned", "pruned_int8"]
"""What a trained network is exported as: in full, with its embedding in 8 bits, with fewer units, or both."""


class Pruning(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the pruned exports lack.

    ``share``: of the embedding's dimensions, and of the hidden units, that are removed; their bytes fall by about as
    much. ``epochs``: passes over the update's rows in which the smaller network then learns the larger one's answers;
    0 leaves it as it was cut.
    """

    share: Annotated[float, Meta(gt=0.0, lt=1.0)]
    epochs: Annotated[int, Meta(ge=0)] = 6


class Export(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which exports of a student are made.

    ``serve``: the one that is judged, promoted and served; ``auto`` is ``int8`` where its labels keep
    ``limits.max_parity_gap``, else ``float32``. ``also``: exports that are written beside it, and whose parity the gate
    judges as it does that of the one to serve. ``pruning`` goes with the pruned ones. Training goes on from the full
    weights, whatever was served: a student does not shrink from update to update.
    """

    serve: Form | Literal["auto"] = "auto"
    also: tuple[Literal["int8", "pruned", "pruned_int8"], ...] = ()
    pruning: Pruning | None = None

    @property
    def declared(self) -> tuple[Form, ...]:
        """The exports that are named, the one to serve first."""
        return self.also if self.serve == "auto" else (self.serve, *self.also)


def check_export(export: Export) -> None:
    """Refuse exports that contradict each other.

    Raises:
        ConfigError: one is named twice, or ``pruning`` is given without a pruned one, or the other way round.

    """
    if len(set(export.declared)) < len(export.declared):
        raise ConfigError("student.export.also", export.also, "names every export once, and not the one to serve again")
    if any(form.startswith("pruned") for form in export.declared) != (export.pruning is not None):
        raise ConfigError("student.export.pruning", export.pruning, "goes with a pruned export, in serve or in also")


class Cohort(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Variants that learn from each other while they learn from the teacher.

    Deep mutual learning (Y. Zhang, T. Xiang, T. Hospedales & H. Lu, CVPR 2018, arXiv 1706.00384): to each one's
    objective comes ``weight`` times the mean divergence of its answers from those of each other variant.
    """

    weight: Positive = 0.5


class Begin(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An artifact of another platform, by its URI and SHA-256; its trainable weights lie beside it."""

    uri: Annotated[str, Meta(min_length=1)]
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Student(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The student and its update.

    ``network``: what is trained, a class of :mod:`components.distill.networks` or ``file.py:Net`` beside the spec; left
    out: a bag of features, for which the featuriser gives weighted ids in buckets.
    ``epochs``: passes over the rows of an update; left out, :data:`LEAST_EPOCHS`, or as many as make
    :data:`LEAST_STEPS` steps. ``learning_rate``: at the first step; left out, what suits the network, else
    :data:`RATE`.
    ``pretrain``: ``auto`` has a fresh student that has no ``stages`` learn the teacher's embedding first, on unlabelled
    traffic, where its classes are told apart by a teacher that shows one and by a network that names a state to learn
    it by (:mod:`components.distill.networks.contract`); not in private. ``off`` does not.
    ``objective``: what it minimises on labelled rows, terms with weights; left out: of an embedding :data:`VECTORS`,
    else ``temperature``, which softens teacher and student in the distillation loss (Hinton et al. 2015, arXiv
    1503.02531), and ``truth_weight``, the share of the loss that comes from truth for rows that have it. ``recipes``:
    objectives by name, for variants; ``search``: those among which each update chooses, by rows that it keeps back
    meanwhile, where the variant names none.
    ``cohort``: its variants, where a first student is made, learn from each other too. ``stages``: what comes before;
    an unlabelled one learns from the newest ``unlabelled_rows`` inputs of the workload, and of the histories that
    ``unlabelled`` names (paths are relative to the spec).
    ``replay_rows``: rows of older snapshots mixed into an update, drawn class-balanced; 0 turns replay off.
    ``holdout``: ``released`` holds out of each window what the verdict on its student needs (the limits at their
    confidence), at most ``holdout_share`` of it, and beside it the audit slice; once a champion serves, a newer window
    releases for learning what older ones held out but ``kept_share`` of their contents, which go on judging what is
    forgotten (more while those are too few to judge it). ``fixed`` holds out ``holdout_share`` of each for good.
    ``calibration``: ``crossfit`` fits the temperature of the export on a ``calibration_share`` of the rows that are
    new to the student, or more where that is few, by the answers of a second network that has not learnt from them; the
    one that serves learns from all. ``apart`` never learns from them. Left out, they are ``released`` and ``crossfit``;
    beside ``privacy`` nothing else than ``fixed`` and ``apart`` is allowed, since there one row would decide about
    others.
    ``near_duplicate``: similarity (Jaccard, of what is left of a payload's wording) from which on a row may not be
    learnt from beside one that is held out; None looks for equal content only.
    ``privacy``: what the weights may tell of a row; left out: nothing is promised.
    ``data_free``: how inputs are made up for the pipeline of that name.
    ``start``: what a fresh student begins from, such as the student of a federation; left out: from nothing.
    """

    network: Factory | None = None
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1)] = (Variant(name="base"),)
    epochs: Count | None = None
    batch_size: Count = 64
    accumulate: Count = 1
    """Batches whose gradients make one step (gradient accumulation): larger steps in the memory of one batch."""
    learning_rate: Positive | None = None
    objective: tuple[Term, ...] = ()
    recipes: dict[Name, tuple[Term, ...]] = msgspec.field(default_factory=dict)
    search: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    pretrain: Literal["auto", "off"] = "auto"
    cohort: Cohort | None = None
    unlabelled: tuple[str, ...] = ()
    unlabelled_rows: Count = 5_000
    temperature: Positive = 2.0
    truth_weight: Share = 0.3
    replay_rows: Annotated[int, Meta(ge=0)] = 1_500
    holdout: Literal["released", "fixed"] | None = None
    holdout_share: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.2
    kept_share: Annotated[float, Meta(ge=0.0, lt=0.5)] = 0.05
    calibration: Literal["crossfit", "apart"] | None = None
    calibration_share: Annotated[float, Meta(ge=0.0, lt=0.5)] = 0.1
    near_duplicate: Annotated[float, Meta(gt=0.0, le=1.0)] | None = 0.8
    workers: Annotated[int, Meta(ge=0)] = 0
    """Ray Train workers; 0 trains in the pipeline's own process (Ray Train's local mode)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network is trained: ``auto`` is CUDA where there is a device, in bfloat16 where that device has it."""
    export: Export = Export()
    privacy: Privacy | None = None
    data_free: DataFree = DataFree()
    start: Begin | None = None

    @property
    def releases(self) -> bool:
        """Whether holdouts are as large as they need be, and released when newer ones serve."""
        return self.privacy is None if self.holdout is None else self.holdout == "released"

    @property
    def crossfits(self) -> bool:
        """Whether the rows that calibrate are learnt from by the network that serves."""
        return self.privacy is None if self.calibration is None else self.calibration == "crossfit"

    def network_of(self, variant: Variant) -> Factory:
        """The network of a variant with all its options."""
        if self.network is not None:
            return Factory(factory=self.network.factory, options={**self.network.options, **variant.options})
        dim, hidden = WIDTHS if self.privacy is None else NARROW
        options = {"dim": variant.dim or dim, "hidden": variant.hidden or hidden, **variant.options}
        return Factory(factory=BAG, options=options)

    def epochs_of(self, rows: int) -> int:
        """Passes over so many rows; in private no more for fewer, since each is paid for."""
        if self.epochs is not None or self.privacy is not None:
            return self.epochs or LEAST_EPOCHS
        steps = math.ceil(rows / (self.batch_size * self.accumulate * max(1, self.workers)))
        return max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps))

    def rate(self, suits: float | None) -> float:
        """The learning rate at the first step, of a network that ``suits`` suits."""
        if self.learning_rate is not None:
            return self.learning_rate
        return RATE if suits is None or self.privacy is not None else suits

    def field_of(self, variant: Variant) -> str:
        """Where the spec has what a variant minimises on labelled rows."""
        return f"student.recipes.{variant.recipe}" if variant.recipe else FIELD

    def objective_of(self, variant: Variant, task: Task) -> tuple[Term, ...]:
        """What a variant minimises on labelled rows.

        Raises:
            ConfigError: it names a recipe that there is none of.

        """
        if variant.recipe:
            if variant.recipe not in self.recipes:
                there = f"there are {', '.join(self.recipes)}" if self.recipes else "there are none in student.recipes"
                raise ConfigError(f"student.variants.{variant.name}.recipe", variant.recipe, f"is no recipe: {there}")
            return self.recipes[variant.recipe]
        if self.objective:
            return self.objective
        if task == "embedding":
            return VECTORS
        taught = max(1 - self.truth_weight, TAUGHT)
        soft = imitating(task, self.temperature, taught)
        return (soft, Truth(weight=self.truth_weight)) if self.truth_weight else (soft,)


VECTORS: tuple[Term, ...] = (Cosine(), Distance(weight=0.1))
"""What an embedding student minimises where its spec says nothing else."""

TAUGHT = 1e-6
"""Weight of the teacher where truth has all of it: what rows count by whose truth is not known."""


def check_learning(student: Student, task: Task) -> None:
    """Refuse objectives that cannot be learnt from.

    Raises:
        ConfigError: a list of terms is empty, has a term without a meaning there, or none against outputs; a variant
            names a recipe that there is none of; two stages have one name.

    """
    if student.objective:
        check_objective(student.objective, task)
    for name, terms in student.recipes.items():
        check_objective(terms, task, field=f"student.recipes.{name}")
    for variant in student.variants:
        student.objective_of(variant, task)
    if student.cohort is not None and len(student.variants) < 2:
        raise ConfigError(
            "student.cohort", student.cohort.weight, "needs two variants or more, to learn from each other"
        )
    if student.cohort is not None and student.search:
        raise ConfigError("student.search", student.search, "does not go with a cohort: give each variant its recipe")
    if strange := [name for name in student.search if name not in student.recipes]:
        raise ConfigError(
            "student.search", strange, f"are no recipes: there are {', '.join(student.recipes) or 'none'}"
        )
    if len(student.search) == 1 or len(set(student.search)) < len(student.search):
        raise ConfigError("student.search", student.search, "names two recipes or more, each once")
    for i, stage in enumerate(student.stages):
        check_objective(stage.objective, task, rows=stage.rows, field=f"student.stages[{i}].objective")
        if stage.name in {s.name for s in student.stages[:i]}:
            raise ConfigError(f"student.stages[{i}].name", stage.name, "names another stage already")


def check_network(student: Student) -> None:
    """Refuse the bag's short options beside a network that the spec names.

    Raises:
        ConfigError: a variant has ``dim`` or ``hidden``, and the student a network of its own.

    """
    for variant in student.variants:
        if student.network is not None and (variant.dim, variant.hidden) != (None, None):
            raise ConfigError(
                "student.variants",
                variant.name,
                "dim and hidden are the bag of features'; write options of the network",
            )
