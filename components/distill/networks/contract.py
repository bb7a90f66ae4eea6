"""The contract of a student's network: any ``torch.nn.Module`` that is called with named arrays.

A spec names a class (``student.network``), and it is made as ``Net(task=, inputs=, outputs=, **options)``: ``inputs``
is the featuriser's signature, ``outputs`` the numbers that it gives for an input, and the options are the spec's with
those of the variant on top; a class that takes ``spec_folder`` is given the folder of the spec too. It is called with
the arrays of a batch by name and returns logits, (B, outputs): one for each class, or for a regression its value and a
scale before softplus, or for an embedding a vector of any length and the logarithm of the distance that it expects; of
a tagging (B, L, outputs), one for each tag of each of the L tokens. Instead of the logits it may return a dictionary of
them (``logits``) and of inner states by name, for terms that look inside; states may also be named by the path of the
module that gives them.

What else it may have:

``head``
    its last layer, a ``Linear`` that grows by a row for each new class; ``HEAD`` names another path. Without either the
    last ``Linear`` with as many rows as there are outputs is taken.
``begin()``
    called once before a fresh network learns: to take weights from elsewhere.
``TABLE``
    the path of an embedding and the name of the array of its row numbers, where few rows are named by an update's
    inputs: the others are then left out while it learns.
``QUANTISED``
    the ONNX operators whose weights the int8 export holds in 8 bits; all that ONNX Runtime can where it is left out.
``RATE``
    the learning rate that suits it, where the spec names none.
``EMBEDS``
    the state by which a fresh student learns its teacher's embedding before its labels (``student.pretrain``).
``FED``
    the name of what its head is fed, in the graph of its own: where features of the entity come in.
``graph()`` and ``cut(features, share)``
    its own ONNX graph and its own structured pruning, see :mod:`components.distill.export` and
    :mod:`components.distill.prune`, in place of PyTorch's exporter and of torch-pruning.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from components.contracts.errors import ConfigError
from components.contracts.records import NAMED, Task
from components.contracts.spec import Factory, build, placed
from components.distill.data import MIN_SCALE
from components.distill.grow import Arrays
from components.distill.networks.entity import WithEntity
from components.student.card import StudentCard
from components.student.entity import ENTITY
from components.student.features import Features, Signature, made_up

FIELD = "student.network"

SHORTEST = 1e-8
"""Least length that an embedding student's vector is divided by."""

LOG_DISTANCES = (math.log(1e-4), math.log(2.0))
"""Of the distances that an embedding student may expect: float32 tells no smaller one of unit vectors for certain, and
there is no larger one."""

TRIED = (3, 5)
"""Batch and length of the made-up inputs that a network is tried on before anything is trained."""


def network(card: StudentCard, source: str = "") -> nn.Module:
    """A fresh network of the kind, options, inputs and outputs that a card describes.

    Raises:
        ConfigError: there is no such network, it does not take its options, or its output or head is not of the form
            that the contract asks for.

    """
    return made(card.network, card.task, card.inputs, card.outputs, source)


def made(factory: Factory, task: Task, inputs: Signature, outputs: int, source: str = "") -> nn.Module:
    """The same, from its parts; where features of the entity are among the inputs, it is told of them."""
    own = {name: tensor for name, tensor in inputs.items() if name != ENTITY}
    net = _alone(factory, task, own, outputs, source)
    if ENTITY not in inputs:
        return net
    head = net.get_submodule(path := head_of(net, outputs))
    if head.bias is None:
        raise ConfigError(FIELD, factory.factory, "needs a head with a bias, where features.entity are fed to it")
    return WithEntity(net, path, int(inputs[ENTITY].shape[1]))


def _alone(factory: Factory, task: Task, inputs: Signature, outputs: int, source: str) -> nn.Module:
    torch.backends.mha.set_fastpath_enabled(False)  # by it nn.TransformerEncoder answers otherwise where no_grad is
    options = {**placed(factory, source).options, "task": task, "inputs": inputs, "outputs": outputs}
    net = build(Factory(factory=factory.factory, options=options), source)
    if not isinstance(net, nn.Module):
        raise ConfigError(FIELD, factory.factory, f"must make a torch.nn.Module, not a {type(net).__name__}")
    head_of(net, outputs)
    batch, length = TRIED
    was = net.training
    net.eval()
    try:
        with torch.no_grad():
            said = logits(net(**tensors(made_up(inputs, batch, length))))
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
        raise ConfigError(FIELD, factory.factory, f"cannot be called with {_told(inputs)}: {error}") from error
    finally:
        net.train(was)
    shape = (batch, length, outputs) if task == "tagging" else (batch, outputs)
    if tuple(said.shape) != shape:
        each, of = ("a token", f"inputs of {length} tokens") if task == "tagging" else ("an input", "inputs")
        wanted = f"must give {outputs} numbers {each}, shape {shape} of {batch} {of}"
        raise ConfigError(FIELD, factory.factory, f"{wanted}, not {tuple(said.shape)}")
    return net


def logits(said: Tensor | dict[str, Tensor]) -> Tensor:
    """The logits of what a network returned."""
    return said["logits"] if isinstance(said, dict) else said


def value_and_scale(output_B2: Tensor) -> tuple[Tensor, Tensor]:
    """A regression student's value and its scale (> 0), both (B,), in the unit that it learns in."""
    return output_B2[:, 0], nn.functional.softplus(output_B2[:, 1]) + MIN_SCALE


def probabilities(logits_BC: Tensor, task: Task) -> Tensor:
    """The probabilities of classes, (B, C): of multilabel each by itself."""
    return torch.sigmoid(logits_BC) if task == "multilabel" else torch.softmax(logits_BC, dim=1)


def vector_and_scale(output_BO: Tensor) -> tuple[Tensor, Tensor]:
    """An embedding student's vector at length 1, (B, D), and the cosine distance that it expects (> 0), (B,)."""
    vector_BD = output_BO[:, :-1]
    length_B1 = vector_BD.norm(dim=1, keepdim=True).clamp_min(SHORTEST)
    return vector_BD / length_B1, output_BO[:, -1].clamp(*LOG_DISTANCES).exp()


def measured(output_BO: Tensor, task: Task) -> Tensor:
    """What a student of numbers answers, its scale last: (B, 2) of regression, (B, D + 1) of embedding."""
    if task == "embedding":
        vector_BD, scale_B = vector_and_scale(output_BO)
        return torch.cat([vector_BD, scale_B.unsqueeze(1)], dim=1)
    return torch.stack(value_and_scale(output_BO), dim=1)


def needs(inputs: Signature, of_them: int = 0, **arrays: tuple[str, int]) -> Signature:
    """The arrays of a signature that a network takes, each with its type and its number of axes.

    ``of_them``: how many of them there must be at least, 0 for all. No other array may be there but a ``mask``.

    Raises:
        ConfigError: some are not there, are of another type or number of axes, or there are others.

    """
    fitting = {n: t for n, t in inputs.items() if (t.dtype, len(t.shape)) == arrays.get(n)}
    integers = [n for n, t in fitting.items() if t.dtype == "int64" and n != "mask" and t.below is None]
    if len(fitting) < (of_them or len(arrays)) or integers or inputs.keys() - {*fitting, "mask"}:
        wanted = ", ".join(f"{name} ({kind}, {axes} axes)" for name, (kind, axes) in arrays.items())
        raise ConfigError(FIELD, _told(inputs), f"takes {wanted}; name a featuriser that gives them in features")
    return fitting


def tensors(features: Features, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """A batch's arrays as tensors of their own: what Ray hands to a worker is read-only."""
    return {name: torch.tensor(array, device=device) for name, array in features.items()}


def head_of(net: nn.Module, outputs: int) -> str:
    """The path of a network's head.

    Raises:
        ConfigError: it has none of this size.

    """
    fitting = [n for n, m in net.named_modules() if isinstance(m, nn.Linear) and m.out_features == outputs]
    named = getattr(net, "HEAD", "head" if "head" in fitting else None)
    if named is None and fitting:
        return str(fitting[-1])
    if named not in fitting:
        have = f"it has {', '.join(fitting)}" if fitting else "it has none"
        raise ConfigError(
            FIELD,
            type(net).__name__,
            f"needs a Linear layer with {outputs} rows as its head, at {named or 'head'}; {have}",
        )
    return str(named)


def check_growth(net: nn.Module, card: StudentCard, source: str = "") -> None:
    """Refuse a card's network of which more than the head hangs on the number of outputs: its head would not grow.

    Raises:
        ConfigError: it is such a network.

    """
    if card.task not in NAMED:
        return
    grown = made(card.network, card.task, card.inputs, card.outputs + 1, source)
    head = head_of(net, card.outputs)
    before, after = (_shapes(n) for n in (net, grown))
    allowed = {f"{head}.weight", f"{head}.bias"}
    if others := sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n) and n not in allowed):
        raise ConfigError(
            FIELD,
            card.network.factory,
            f"cannot grow by a class: with one more output {', '.join(others[:3])} change too, and only {head} may",
        )


def _shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def load(net: nn.Module, state: Arrays) -> nn.Module:
    """Put weights into a network.

    Raises:
        ConfigError: they are not those of such a network.

    """
    try:
        net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    except RuntimeError as error:
        lines = " ".join(line.strip() for line in str(error).splitlines())
        allowed = f"does not take the weights that it once gave; name a changed network otherwise: {lines}"
        raise ConfigError(FIELD, type(net).__name__, allowed) from error
    return net


def state_of(net: nn.Module) -> dict[str, Any]:
    """A network's weights as arrays."""
    return {name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}


def _told(inputs: Signature) -> str:
    return ", ".join(f"{name} {list(t.shape)}" for name, t in inputs.items())
