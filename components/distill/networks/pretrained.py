"""Weights of encoders of the kind of BERT from a folder on the disk, by the names of :class:`Transformer`.

Read are ``config.json`` and ``model.safetensors``, as Hugging Face's library writes them; that library is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from components.contracts.errors import ConfigError
from components.contracts.spec import located
from components.distill.networks.contract import FIELD

START = f"{FIELD}.options.start"

LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "between": "intermediate.dense",
    "after": "output.dense",
    "norm": "output.LayerNorm",
}
"""Parts of a layer of :class:`Transformer`, and of BERT's."""

DISTILLED = {
    "attention.query": "attention.q_lin",
    "attention.key": "attention.k_lin",
    "attention.value": "attention.v_lin",
    "attention.out": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "between": "ffn.lin1",
    "after": "ffn.lin2",
    "norm": "output_layer_norm",
}
"""The same of DistilBERT's."""

SIZES = {"dim": "hidden_size", "heads": "num_attention_heads", "hidden": "intermediate_size", "eps": "layer_norm_eps"}
"""Names of sizes in a configuration."""

OF_DISTILLED = {"dim": "dim", "heads": "n_heads", "hidden": "hidden_dim"}

KINDS = ("bert", "roberta", "xlm-roberta", "distilbert")

DISTILBERT_EPS = 1e-12
"""Of DistilBERT's norms, which its configuration does not tell."""


class Pretrained:
    """A pretrained encoder.

    Raises:
        ConfigError: the folder is not there, or holds none that this reads.

    """

    def __init__(self, start: str, spec_folder: str = "") -> None:
        self.start, self.folder = start, located(start, spec_folder, START)
        for name in ("config.json", "model.safetensors"):
            if not (self.folder / name).is_file():
                raise ConfigError(START, start, f"has no {name}: give the folder that save_pretrained wrote")
        try:
            self.config: Mapping[str, Any] = json.loads((self.folder / "config.json").read_bytes())
            self.kind = str(self.config["model_type"])
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(START, start, f"its config.json is broken: {error}") from error
        positions = self.config.get("position_embedding_type") or "absolute"
        act = self.config.get("hidden_act", self.config.get("activation", "gelu"))
        if self.kind not in KINDS or positions != "absolute" or act != "gelu":
            found = f"it is a {self.kind} with {positions} positions and {act}"
            raise ConfigError(START, start, f"must be one of {', '.join(KINDS)}, absolute positions, gelu; {found}")

    def require(self, **sizes: float) -> None:
        """Refuse other sizes than the encoder's.

        Raises:
            ConfigError: one is another; all of them are told, as options to write.

        """
        names = OF_DISTILLED if self.kind == "distilbert" else SIZES
        own = {name: self.config.get(names[name]) if name in names else DISTILBERT_EPS for name in sizes}
        if own != sizes:
            wanted = ", ".join(f"{name}: {value}" for name, value in own.items())
            raise ConfigError(START, self.start, f"needs its own sizes in student.network.options: {{{wanted}}}")

    def state(self, layers: Sequence[int], vocabulary: int, positions: int) -> dict[str, Tensor]:
        """Weights of the embeddings, as many rows as are wanted, and of some layers.

        Raises:
            ConfigError: it has not so many rows, lacks a layer, or the file is broken.

        """
        found = self._read()
        parts, path = (LAYER, "encoder.layer") if self.kind != "distilbert" else (DISTILLED, "transformer.layer")
        there = {int(n.removeprefix(f"{path}.").split(".")[0]) for n in found if n.startswith(f"{path}.")}
        if missing := sorted(set(layers) - there):
            last = max(there, default=-1)
            raise ConfigError(f"{FIELD}.options.layers", list(layers), f"{missing} are not there: it has 0 to {last}")
        out = self._embeddings(found, vocabulary, positions)
        for i, number in enumerate(layers):
            for mine, its in parts.items():
                for kind in ("weight", "bias"):
                    out[f"layers.{i}.{mine}.{kind}"] = found[f"{path}.{number}.{its}.{kind}"]
        return out

    def _embeddings(self, found: Mapping[str, Tensor], vocabulary: int, positions: int) -> dict[str, Tensor]:
        words = found["embeddings.word_embeddings.weight"]
        places = found["embeddings.position_embeddings.weight"]
        if "roberta" in self.kind:  # its positions begin behind the number of the padding
            places = places[int(self.config.get("pad_token_id", 1)) + 1 :]
        if (kinds := found.get("embeddings.token_type_embeddings.weight")) is not None:
            places = places + kinds[0]  # all of a text's tokens are of the first kind
        for name, wanted, table in (("ids of the featuriser", vocabulary, words), ("positions", positions, places)):
            if wanted > len(table):
                raise ConfigError(START, self.start, f"has {len(table)} {name}, not {wanted}: use its own tokenizer")
        return {
            "tokens.weight": words[:vocabulary],
            "positions.weight": places[:positions],
            "norm.weight": found["embeddings.LayerNorm.weight"],
            "norm.bias": found["embeddings.LayerNorm.bias"],
        }

    def _read(self) -> dict[str, Tensor]:
        """All weights, in float32, by their names without the model's."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            whole = load_file(self.folder / "model.safetensors")
        except SafetensorError as error:
            raise ConfigError(START, self.start, f"its model.safetensors is broken: {error}") from error
        inner = {n.removeprefix(f"{self.kind.removeprefix('xlm-')}."): w.to(torch.float32) for n, w in whole.items()}
        if "embeddings.word_embeddings.weight" not in inner:
            raise ConfigError(START, self.start, f"its weights are not those of a {self.kind}")
        return inner
