"""Structured pruning: a trained network without its least important units, and what it learns to answer again.

A network may cut itself (``cut``); any other is cut by torch-pruning, which follows the dependencies between layers in
the network's own graph (G. Fang et al., "DepGraph: towards any structural pruning", CVPR 2023, arXiv 2301.12900).

Shapes: N rows, C outputs.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from components.contracts.errors import ConfigError
from components.distill import columns
from components.distill.data import NO_TRUTH, TrainingSet
from components.distill.loop import TORCH_THREADS
from components.distill.networks.contract import head_of, logits, measured, probabilities, tensors
from components.student.card import StudentCard
from components.student.features import Features, made_up

BATCH = 256
"""Rows that are looked at together; more take memory and save no time."""

FIELD = "student.export.pruning"


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A smaller network, and the rows by which it learns to answer as the larger one does."""

    net: nn.Module
    lesson: TrainingSet


def pruned(net: nn.Module, card: StudentCard, data: TrainingSet, share: float) -> Pruned:
    """Remove ``share`` of a network's units, at most all but one of each layer; the head's rows stay.

    Raises:
        ConfigError: the network cannot be pruned.

    """
    torch.set_num_threads(TORCH_THREADS)  # sums over more threads differ in their last digits
    net = copy.deepcopy(net).cpu().eval()
    out = answers(net, data.features)
    small = net.cut(data.features, share) if hasattr(net, "cut") else _cut(net, card, share)
    return Pruned(net=small, lesson=_lesson(card, data, out))


def check_pruning(net: nn.Module) -> None:
    """Refuse a network whose layers share weights and that has no cut of its own.

    Raises:
        ConfigError: it is such a network.

    """
    if not hasattr(net, "cut") and (tied := _tied(net)):
        remedy = f"torch-pruning would cut {' and '.join(tied)}, which are the same weights, apart: give it a cut()"
        raise ConfigError(FIELD, type(net).__name__, remedy)


def answers(net: nn.Module, features: Features) -> Tensor:
    """Logits (N, C) of rows, a few at a time."""

    def said(span: slice) -> columns.Arrays:
        with torch.no_grad():
            return {"": logits(net(**tensors({name: array[span] for name, array in features.items()}))).numpy()}

    return torch.from_numpy(columns.filled(len(next(iter(features.values()))), said, BATCH)[""])


def _cut(net: nn.Module, card: StudentCard, share: float) -> nn.Module:
    import torch_pruning

    head = net.get_submodule(head_of(net, card.outputs))
    before = sum(p.numel() for p in net.parameters())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_pruning.pruner.BasePruner(
                net,
                tensors(made_up(card.inputs, 2, 8)),
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=share,
                ignored_layers=[head],
            ).step()
    except Exception as error:  # torch-pruning's errors are those of whatever it traced
        raise ConfigError(FIELD, type(net).__name__, f"torch-pruning cannot cut this network: {error}") from error
    if sum(p.numel() for p in net.parameters()) == before:
        raise ConfigError(FIELD, share, f"torch-pruning finds nothing in {type(net).__name__} that it may remove")
    return net


def _tied(net: nn.Module) -> list[str]:
    """The paths of weights that several layers have in common; none where each has its own."""
    paths: dict[nn.Parameter, list[str]] = {}
    for name, module in net.named_modules():
        for own, weight in module.named_parameters(prefix=name, recurse=False):
            paths.setdefault(weight, []).append(own)
    return next((found for found in paths.values() if len(found) > 1), [])


def _lesson(card: StudentCard, data: TrainingSet, out: Tensor) -> TrainingSet:
    """The same rows with the larger network's answers in the teacher's place, and no truth: parity is all it is for."""
    numbers = card.task in ("regression", "embedding")

    def answer(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
        given = torch.from_numpy(logits)
        soft = measured(given, card.task) if numbers else probabilities(given, card.task)
        return soft.numpy()  # type: ignore[no-any-return]

    unknown = np.full(out.shape if card.task == "multilabel" else len(out), np.nan, np.float32)
    none = np.full(len(out), NO_TRUTH, np.int64) if card.task == "classification" else unknown
    return replace(data, soft=columns.changed(out.numpy(), answer), truth=none)
