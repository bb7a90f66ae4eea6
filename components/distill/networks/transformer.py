"""A transformer encoder of a chosen size, fresh or started from layers of a pretrained one.

The arithmetic is BERT's: learnt positions, each layer's norm after its sum, GELU (J. Devlin et al., NAACL 2019, arXiv
1810.04805). Which layers to start from: V. Sanh et al., "DistilBERT" (arXiv 1910.01108), take every second one.

Shapes: B inputs, L places of the longest one, D ``dim``, H ``heads``, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from components.contracts.errors import ConfigError
from components.distill.networks.contract import FIELD, needs
from components.distill.networks.pretrained import Pretrained
from components.distill.networks.units import kept, linear, watched
from components.student.features import Features, Signature

EMBEDDING_DEVIATION = 0.02
"""Of fresh weights, as BERT's."""


class Transformer(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Logits (B, C) of a sequence of ids; places where ``mask`` is 0, or the id where there is no mask, are padding.

    ``layers``: how many; with ``start`` the numbers of those to start from, from 0 on, or the first so many of them.
    ``hidden``: units between; ``positions``: places that are told apart, all behind them are the last one; ``pooling``:
    of a text's places, their ``mean`` or the ``first``; ``eps``: of the norms.

    ``start``: the folder of a pretrained encoder (``config.json``, ``model.safetensors``) of the kind of BERT, RoBERTa
    or DistilBERT: a path that is absolute or relative to the spec, or ``package/folder`` within an installed package.
    ``dim``, ``heads``, ``hidden`` and ``eps`` must then be its own, and the ids its tokenizer's. It is read when a
    fresh student begins, and never again. Of its embeddings the first rows are taken, as many as there are ids and
    positions.
    """

    TABLE = ("tokens", "ids")

    def __init__(
        self,
        *,
        task: str,
        inputs: Signature,
        outputs: int,
        layers: int | Sequence[int] = 2,
        dim: int = 128,
        heads: int = 4,
        hidden: int = 512,
        positions: int = 128,
        pooling: Literal["mean", "first"] = "mean",
        dropout: float = 0.1,
        eps: float = 1e-12,
        start: str | None = None,
        spec_folder: str = "",
    ) -> None:
        super().__init__()
        ids = needs(inputs, ids=("int64", 2))["ids"]
        for name, value, good, wanted in (
            ("heads", heads, heads >= 1 and dim % heads == 0, f"must divide dim, which is {dim}"),
            ("pooling", pooling, pooling in ("mean", "first"), "must be mean or first"),
            ("layers", layers, isinstance(layers, int) or start is not None, "is a number where there is no start"),
            ("layers", layers, layers != 0 and layers != [], "must be one at least"),
            ("positions", positions, positions >= 1, "must be >= 1"),
        ):
            if not good:
                raise ConfigError(f"{FIELD}.options.{name}", value, wanted)
        self._taken = list(range(layers)) if isinstance(layers, int) else list(layers)
        self._start, self._folder, self._pooling = start, spec_folder, pooling
        self.tokens, self.positions = nn.Embedding(ids.below or 0, dim), nn.Embedding(positions, dim)
        self.norm, self.dropout = nn.LayerNorm(dim, eps), nn.Dropout(dropout)
        self.layers = nn.ModuleList(_Layer(dim, heads, hidden, dropout, eps) for _ in self._taken)
        self.head = nn.Linear(dim, outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=EMBEDDING_DEVIATION)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def begin(self) -> None:
        """Take the weights of ``start``, where there is one.

        Raises:
            ConfigError: it is not there, is of another kind or of other sizes, or lacks a layer.

        """
        if self._start is None:
            return
        source = Pretrained(self._start, self._folder)
        source.require(
            dim=self.tokens.embedding_dim,
            heads=self.layers[0].attention.heads,
            hidden=self.layers[0].between.out_features,
            eps=self.norm.eps,
        )
        self.load_state_dict(
            {
                **self.state_dict(),
                **source.state(self._taken, self.tokens.num_embeddings, self.positions.num_embeddings),
            }
        )

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """The logits and the inner states, which are at hand anyway.

        ``hidden.0`` (after the embeddings) to ``hidden.N``, ``query.i``, ``key.i``, ``value.i`` of layer i from 0 on,
        (B, L, D) each; ``attention.i``, (B, H, L, L), rows of probabilities; ``pooled``, (B, D).
        """
        mask = ids.ne(0) if mask is None else mask.ne(0)
        places = torch.arange(ids.shape[1], device=ids.device).clamp(max=self.positions.num_embeddings - 1)
        hidden = self.dropout(self.norm(self.tokens(ids) + self.positions(places)))
        real_BL1 = mask.unsqueeze(2).to(hidden.dtype)
        # Finite, so that an input without a place, whose rows are all masked, does not become NaN.
        bias_B11L = (1.0 - real_BL1).transpose(1, 2).unsqueeze(1) * torch.finfo(torch.float32).min
        states = {"hidden.0": hidden}
        for i, layer in enumerate(self.layers):
            hidden, inner = layer(hidden, bias_B11L)
            states |= {f"hidden.{i + 1}": hidden, **{f"{name}.{i}": state for name, state in inner.items()}}
        if self._pooling == "first":
            pooled = hidden[:, 0]
        else:
            pooled = (hidden * real_BL1).sum(dim=1) / real_BL1.sum(dim=1).clamp(min=1.0)
        return {"logits": self.head(self.dropout(pooled)), "pooled": pooled, **states}

    def cut(self, features: Features, share: float) -> Transformer:
        """Remove ``share`` of each layer's hidden units and attention heads, at most all but one of each.

        Hidden units by :func:`components.distill.networks.units.kept`; a head counts by what it adds to the sum of its
        layer: the deviation of what it gives, times the weights that take it. The width of the sum stays, as do the
        embeddings.
        """
        fed = watched(self, [m for layer in self.layers for m in (layer.attention.out, layer.after)], features)
        with torch.no_grad():
            for i, layer in enumerate(self.layers):
                layer.attention.cut(fed[2 * i], share)
                stay = kept(layer.after, fed[2 * i + 1], share)
                layer.between = linear(layer.between.weight[stay], layer.between.bias[stay])
                layer.after = linear(layer.after.weight[:, stay], layer.after.bias)
        return self


class _Layer(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """One layer: (B, L, D) to (B, L, D), and what is inside its attention."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.attention = _Attention(dim, heads, dropout)
        self.attention_norm, self.norm = nn.LayerNorm(dim, eps), nn.LayerNorm(dim, eps)
        self.between, self.after = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, bias: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        attended, inner = self.attention(hidden, bias)
        hidden = self.attention_norm(hidden + self.dropout(attended))
        further = self.after(nn.functional.gelu(self.between(hidden)))
        return self.norm(hidden + self.dropout(further)), inner


class _Attention(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Attention of ``heads`` heads, softmax(Q K^T / sqrt(size) + bias) V."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.size = heads, dim // heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out, self.dropout = nn.Linear(dim, dim), nn.Dropout(dropout)

    def forward(self, hidden: Tensor, bias: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        query, key, value = self.query(hidden), self.key(hidden), self.value(hidden)
        scores = self._parted(query) @ self._parted(key).transpose(2, 3) / self.size**0.5 + bias
        attention = torch.softmax(scores, dim=3)
        context = (self.dropout(attention) @ self._parted(value)).transpose(1, 2).flatten(2)
        return self.out(context), {"query": query, "key": key, "value": value, "attention": attention}

    def _parted(self, state: Tensor) -> Tensor:
        """(B, L, H size) to (B, H, L, size)."""
        return state.unflatten(2, (self.heads, self.size)).transpose(1, 2)

    def cut(self, fed: Tensor, share: float) -> None:
        """Remove heads; ``fed``: what the output's layer was fed, (N, H size)."""
        moves = (self.out.weight.norm(dim=0) * fed.std(dim=0, correction=0)).view(self.heads, self.size).norm(dim=1)
        count = max(1, self.heads - round(share * self.heads))
        heads = moves.argsort(descending=True, stable=True)[:count].sort().values
        places = (heads[:, None] * self.size + torch.arange(self.size)).flatten()
        gone = torch.ones(len(moves) * self.size, dtype=torch.bool)
        gone[places] = False
        self.out = linear(
            self.out.weight[:, places], self.out.bias + self.out.weight[:, gone] @ fed[:, gone].mean(dim=0)
        )
        for name in ("query", "key", "value"):
            layer: Any = getattr(self, name)
            setattr(self, name, linear(layer.weight[places], layer.bias[places]))
        self.heads = count
