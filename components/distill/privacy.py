"""Learning in private: DP-SGD by Opacus, as the training loop asks for it, and what networks cannot learn so.

A step takes each row with the same chance, clips the gradient of each row's loss to a length, adds Gaussian noise in
multiples of it to the sum, and divides by the rows that a step has on average (M. Abadi et al., arXiv 1607.00133).
Gradients of single rows are never held: their lengths alone are computed first ("ghost clipping", X. Li et al., arXiv
2110.05679).
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from components.contracts.errors import ConfigError
from components.distill.account import Spent, quiet_opacus, rate_of
from components.distill.networks.bag import WeightedBag
from components.distill.networks.contract import FIELD
from components.distill.networks.entity import modules_of

if TYPE_CHECKING:
    from components.distill.lesson import Lesson

PROBED = 4
"""Rows that a network is tried on before it learns in private."""

SHARPER = 0.1
"""Part of the shortest gradient of those rows that they are clipped to: all of them are then clipped."""

SLACK = 1e-2
"""What the sums of gradients may be off by, as a part of the clipping length."""

TOGETHER = 64
"""Inputs of a bag whose weights are laid out over all buckets at a time: 8 MiB of 32,768 buckets."""

UNFIT = (AttributeError, NotImplementedError, RuntimeError, ValueError, TypeError, KeyError, IndexError)
"""What Opacus raises of a network whose rows it cannot take apart."""


class PrivateSteps:
    """The private way through an epoch: batches, steps, and the account of what they spend.

    The batches and the noise come from generators that nobody can draw again: their seeds are the operating system's,
    unless ``seed`` is given, which is for tests. Their states, and what has been spent, are the checkpoint's
    (``get_state``): a run that was killed goes on by the same draws, so that a step that is made again tells nothing
    new.
    """

    def __init__(
        self,
        lesson: Lesson,
        optimiser: torch.optim.Optimizer,
        *,
        rows: int,
        batch_size: int,
        noise: float,
        clip: float,
        device: str,
        seed: int | None = None,
    ) -> None:
        from opacus.accountants import RDPAccountant
        from opacus.optimizers import DPOptimizerFastGradientClipping

        if not lesson.objective.per_row:
            raise ConfigError(
                "student.objective", lesson.objective.names, "relates the rows of a batch: not in private"
            )
        self.rate, self.steps = rate_of(rows, batch_size)
        self._rows = rows
        seeds = [secrets.randbits(63) for _ in range(2)] if seed is None else [seed, seed + 1]
        self._sampling = torch.Generator().manual_seed(seeds[0])
        self._noise = torch.Generator(device=device).manual_seed(seeds[1])
        self.lesson = Clipped(lesson, clip)
        self.accountant = RDPAccountant()
        self.optimiser = DPOptimizerFastGradientClipping(
            optimiser,
            noise_multiplier=noise,
            max_grad_norm=clip,
            expected_batch_size=max(1, round(self.rate * rows)),
            generator=self._noise,
        )
        self.optimiser.attach_step_hook(self.accountant.get_optimizer_hook_fn(self.rate))

    def __len__(self) -> int:
        return self.steps

    def draw(self) -> Tensor:
        """The rows of a step, each with the same chance (Poisson sampling): now and then none."""
        return (torch.rand(self._rows, generator=self._sampling) < self.rate).nonzero().flatten()

    def step(self, batch: dict[str, Tensor], at: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Learn from a batch; returns its mean loss, and the part of it that each term has."""
        self.optimiser.zero_grad()
        found = self.lesson.backward(batch, at)
        self.optimiser.step()
        return found

    @property
    def spent(self) -> tuple[Spent, ...]:
        """What the steps so far were."""
        return tuple((float(noise), float(rate), int(steps)) for noise, rate, steps in self.accountant.history)

    def get_state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        generators = {"sampling": self._sampling.get_state(), "noise": self._noise.get_state()}
        return {**generators, "spent": list(self.spent)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._sampling.set_state(state["sampling"])
        self._noise.set_state(state["noise"])
        self.accountant.history = [tuple(entry) for entry in state["spent"]]


class Clipped:
    """A lesson whose rows' gradients are clipped to the length ``clip`` before they are added up.

    Raises:
        ConfigError: Opacus cannot take its rows apart.

    """

    def __init__(self, lesson: Lesson, clip: float) -> None:
        with quiet_opacus():
            from opacus.grad_sample import GradSampleModuleFastGradientClipping
            from opacus.grad_sample.utils import register_grad_sampler, register_norm_sampler
        register_norm_sampler(WeightedBag)(_bag_norms)
        register_grad_sampler(WeightedBag)(_bag_gradients)
        self.lesson = lesson
        try:
            self.module = GradSampleModuleFastGradientClipping(lesson, loss_reduction="sum", max_grad_norm=clip)
        except UNFIT as error:
            raise _unfit(lesson.net, str(error)) from error
        self.parameters = [p for p in lesson.parameters() if p.requires_grad]

    def backward(self, batch: dict[str, Tensor], at: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Leave the sum of the clipped gradients in the parameters; returns the mean loss and the terms' parts."""
        if not len(next(iter(batch.values()))):
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)
            return torch.zeros(()), {}
        with warnings.catch_warnings():
            # of a backward hook on a module whose inputs have no gradient, as an embedding's have not
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            losses_KB = self.lesson.losses(batch, at)
            losses_B = losses_KB.sum(dim=0)
            losses_B.sum().backward(retain_graph=True)
            shares_B = self.module.get_clipping_coef().detach()
            self._forget()
            self.module.disable_hooks()
            try:
                (shares_B * losses_B).sum().backward()
            finally:
                self.module.enable_hooks()
        parts_K = losses_KB.detach().mean(dim=1)
        return parts_K.sum(), dict(zip(self.lesson.objective.names, parts_K.unbind(), strict=True))

    def _forget(self) -> None:
        """Drop gradients, and lengths too: those of one batch must not be taken for another's."""
        for parameter in self.parameters:
            parameter.grad = None
            if hasattr(parameter, "_norm_sample"):
                del parameter._norm_sample

    def gradient(self, batch: dict[str, Tensor], clip: float) -> Tensor:
        """The sum of the gradients clipped to this length, as one vector."""
        self.module.max_grad_norm = clip
        self._forget()
        self.backward(batch, 0.0)
        found = torch.cat([p.grad.flatten() for p in self.parameters])
        self._forget()
        return found


def _bag_norms(layer: WeightedBag, given: list[Tensor], slopes_BD: Tensor) -> dict[nn.Parameter, Tensor]:
    """How long each input's gradient of the table is: its row of an id is the input's weight of it times the slope."""
    pairs = zip(*(t.split(TOGETHER) for t in given), strict=True)
    lengths = [
        weights.new_zeros(len(ids), layer.num_embeddings).scatter_add_(1, ids, weights).norm(dim=1)
        for ids, weights in pairs
    ]
    return {layer.weight: torch.cat(lengths) * slopes_BD.norm(dim=1)}


def _bag_gradients(layer: WeightedBag, given: list[Tensor], slopes_BD: Tensor) -> dict[nn.Parameter, Tensor]:
    """Each input's gradient of the table, (B, V, D)."""
    ids, weights = given
    weights_BV = weights.new_zeros(len(ids), layer.num_embeddings).scatter_add_(1, ids, weights)
    return {layer.weight: weights_BV.unsqueeze(2) * slopes_BD.unsqueeze(1)}


def rest(lesson: Lesson, batch: dict[str, Tensor]) -> None:
    """Keep weights that the objective does not reach out of training: they have no gradient, and no noise either."""
    lesson.losses(batch, 0.0).sum().backward()
    for parameter in lesson.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None


def check_modules(net: nn.Module) -> None:
    """Refuse modules that no row can be told apart in.

    Raises:
        ConfigError: names them.

    """
    with quiet_opacus():
        from opacus.validators import ModuleValidator

    for name, module in net.named_modules():
        if why := _misread(module):
            raise ConfigError(FIELD, f"{name} ({type(module).__name__})", f"{why}, or leave out student.privacy")
        found = ModuleValidator.VALIDATORS.get(type(module), lambda _: [])(module)
        if found:
            why = str(found[0]).split(". ")[0].rstrip(".")
            remedy = f"{why}: take LayerNorm or GroupNorm, or a layer of opacus.layers, or leave out student.privacy"
            raise ConfigError(FIELD, f"{name} ({type(module).__name__})", remedy)


def _misread(module: nn.Module) -> str | None:
    """Why Opacus 1.6 makes other gradients of a module's rows than PyTorch, by how it is set; None where it does not.

    The rows that a network is tried on may be such that it does not show: texts without a word that comes twice.
    """
    if isinstance(module, nn.EmbeddingBag):
        return "counts an id once that a row has several times: take nn.Embedding, and add up what it gives"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.padding_mode != "zeros":
        return "has its gradients reckoned as if it were padded with zeros: pad before it by functional.pad"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "shortens rows of its table, those that are named, without noise: leave out max_norm"
    if isinstance(module, nn.Embedding) and module.scale_grad_by_freq:
        return "weighs a row's gradient by what the other rows have: leave out scale_grad_by_freq"
    return None


def check_states(net: nn.Module, names: Collection[str], returned: Collection[str]) -> None:
    """Refuse states that are read off a layer: Opacus sees the gradient of what a layer hands on to the next alone.

    PyTorch shows a layer's output to who looks at it before the hook by which Opacus takes the layer's gradient, which
    would lack the part of the term that reads the state.

    Raises:
        ConfigError: names the state.

    """
    for name, module in modules_of(net).items():
        if name in names and name not in returned and any(p.requires_grad for p in module.parameters(recurse=False)):
            remedy = f"is read off a {type(module).__name__}, whose gradient would lack the term's part in private: "
            raise ConfigError("student.objective", name, remedy + "let the network return the state by a name")


def check_influence(lesson: Lesson, batch: dict[str, Tensor]) -> None:
    """Refuse a network in which clipping does not bound what one row does: tried on the rows of a batch.

    The sum of the clipped gradients with and without a row must differ by the clipping length at most, and no number
    that the network keeps beside its weights may change.

    Raises:
        ConfigError: it does not.

    """
    net, rows = lesson.net, len(next(iter(batch.values())))
    apart = [{name: t[torch.arange(rows) != i] for name, t in batch.items()} for i in range(rows)]
    before = {name: b.clone() for name, b in net.named_buffers()}
    try:
        with _without_dropout(net):
            clipped = Clipped(lesson, 1.0)
            lengths = _influences(clipped, batch, apart, float("inf"))
            clip = SHARPER * min((n for n in lengths if n > 0), default=1.0)
            worst = max(_influences(clipped, batch, apart, clip)) / clip
    except UNFIT as error:
        unreached = [n for n, p in net.named_parameters() if p.requires_grad and not hasattr(p, "_norm_sample")]
        raise _unfit(net, f"{', '.join(unreached)} is not reached" if unreached else str(error)) from error
    if not worst <= 1 + SLACK:
        raise _unfit(net, f"one row moves the sum {worst:.2f} times as far as it is clipped to")
    if moved := [n for n, b in net.named_buffers() if not torch.equal(b, before[n])]:
        raise _unfit(net, f"{', '.join(moved)} keeps numbers of the rows beside the weights")


def _influences(clipped: Clipped, batch: dict[str, Tensor], apart: list[dict[str, Tensor]], clip: float) -> list[float]:
    whole = clipped.gradient(batch, clip)
    return [float((whole - clipped.gradient(others, clip)).norm()) for others in apart]


@contextmanager
def _without_dropout(net: nn.Module) -> Iterator[None]:
    """Units that are dropped by chance would differ from batch to batch."""
    dropping = [m for m in net.modules() if isinstance(m, _DropoutNd) and m.training]
    for module in dropping:
        module.eval()
    try:
        yield
    finally:
        for module in dropping:
            module.train()


def _unfit(net: nn.Module, why: str) -> ConfigError:
    remedy = (
        "cannot learn in private, since its rows cannot be taken apart (" + why + "): use every weight in a module of "
        "torch.nn that is called once in a pass, by position, with the rows along its first axis (nn.Embedding and not "
        "functional.embedding_bag, nn.Dropout and not functional.dropout), or leave out student.privacy"
    )
    return ConfigError(FIELD, type(net).__name__, remedy)
