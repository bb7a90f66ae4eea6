"""What one run of training is given, and the modules that it begins with."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from components.contracts.errors import ConfigError
from components.contracts.spec import Spec, Variant
from components.contracts.spec.objective import FIELD, Term
from components.distill.batches import sample_of
from components.distill.data import TrainingSet
from components.distill.grow import Arrays
from components.student.card import StudentCard

if TYPE_CHECKING:
    import torch

    from components.distill.lesson import Lesson


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a worker needs.

    ``objective``: what is minimised over ``epochs`` passes over the data, and ``field`` where the spec has it;
    ``start``: weights to start from; ``shape``: a pickled network of another shape than the card's (a pruned one);
    ``peers``: variants that learn beside it, each afresh; ``checkpoint``: URI of this run's checkpoint, which
    :class:`components.distill.fit.Run` gives it.
    ``noise``: of an update in private, in multiples of the clipping length; ``secret``: the seed of its noise, which
    tests alone give: else nobody knows it.
    """

    spec: Spec
    card: StudentCard
    data: TrainingSet
    objective: tuple[Term, ...]
    field: str = FIELD
    epochs: int
    start: Arrays | None
    seed: int
    checkpoint: str = ""
    shape: bytes | None = None
    peers: tuple[Variant, ...] = ()
    noise: float | None = None
    secret: int | None = None

    @property
    def narrows(self) -> bool:
        """Whether rows of a table that no input names may be left out while it learns."""
        return not self.peers and self.noise is None


def device_of(spec: Spec) -> str:
    """Where a spec's network is trained.

    Raises:
        ConfigError: it wants CUDA, and there is no device.

    """
    import torch

    there = torch.cuda.is_available()
    if spec.student.device == "cuda" and not there:
        raise ConfigError("student.device", "cuda", "PyTorch sees no CUDA device here: use auto, or cpu")
    return "cuda" if there and spec.student.device != "cpu" else "cpu"


def seeded(card: StudentCard, source: str, seed: int, *, begin: bool) -> torch.nn.Module:
    """A network as a card describes it, equal for equal seeds; ``begin``: from weights elsewhere, where it has such.

    Raises:
        ConfigError: it is none that can be trained.

    """
    import torch

    from components.distill.networks.contract import network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = network(card, source)
        if begin and hasattr(net, "begin"):
            net.begin()
    return net


def fresh(work: Work) -> torch.nn.Module:
    """The network that a run begins with: equal for equal work."""
    from components.distill.networks.contract import load

    net = seeded(work.card, work.spec.source, work.seed, begin=work.shape is None and work.start is None)
    if work.shape is not None:
        # A network of the user's own file is known by its module once the line above has read that file.
        net = pickle.loads(work.shape)  # noqa: S301  (made by this update)
    return net if work.start is None else load(net, work.start)


def lesson_of(work: Work, net: torch.nn.Module, data: TrainingSet) -> Lesson:
    """The network, and its peers, with what they learn by, as one module."""
    from components.distill.lesson import Lesson

    peers = []
    for variant in work.peers:
        card = msgspec.structs.replace(work.card, network=work.spec.student.network_of(variant))
        peer = seeded(card, work.spec.source, work.seed, begin=True)
        terms = work.spec.student.objective_of(variant, work.spec.task)
        peers.append((peer, terms, work.spec.student.field_of(variant)))
    cohort = work.spec.student.cohort
    weight = cohort.weight if cohort else 0.0
    sample = sample_of(data, 2)
    return Lesson(
        net, work.objective, work.spec.task, sample, seed=work.seed, peers=peers, mutual=weight, field=work.field
    )
