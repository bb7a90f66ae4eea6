"""What a transformer of PyTorch knows inside: states by the path of the module that gives them, and its embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from components.contracts.errors import ConfigError

if TYPE_CHECKING:
    from components.teachers.contract import States

EMBEDDING = "embedding"
"""The mean of the last layer's states over the tokens, at unit length (Reimers and Gurevych, arXiv 1908.10084)."""


def words_of(tokens: Iterable[str]) -> tuple[str, ...]:
    r"""The whole words among a tokenizer's tokens, in alphabetical order: letters alone, two at least, no pieces.

    A token that begins a word has the sign of its tokenizer before it (``Ġ`` of byte pairs, ``▁`` of SentencePiece), or
    lacks the one of pieces that go on (``##`` of WordPiece).

    >>> words_of(["[CLS]", "cat", "##s", "7", "dog"])
    ('cat', 'dog')
    >>> words_of(["<s>", "\u2581cat", "s", "\u2581dog"])
    ('cat', 'dog')
    """
    known = set(tokens)
    signs = [sign for sign in ("\u0120", "\u2581") if any(t.startswith(sign) for t in known)]
    begun = {t[1:] for t in known if t[:1] in signs} if signs else known
    return tuple(sorted(t for t in begun if len(t) > 1 and t.isalpha()))


def inner_states(
    model: Any, encode: Callable[[list[str]], Any], texts: Sequence[str], names: Sequence[str], batch: int
) -> States:
    """States of texts by name: (N, width), or (N, tokens, width) with the mask of the tokens.

    ``encode`` gives the model's inputs as tensors, with ``attention_mask``. A name is :data:`EMBEDDING`, or the path of
    a module of the model (``encoder.layer.5.attention.self.query``).

    Raises:
        ConfigError: the model has no such module, or it gives no state of every token.

    """
    import torch

    from components.teachers.contract import States

    modules = dict(model.named_modules())
    caught: dict[str, Any] = {}
    handles = []
    for name in names:
        if name != EMBEDDING and name not in modules:
            last = ", ".join(sorted(n for n in modules if n.endswith(name.rsplit(".", 1)[-1]))[:6])
            raise ConfigError(
                "student.objective", name, f"is no state of the teacher: {EMBEDDING}, or a module ({last})"
            )
    try:
        for name in set(names) - {EMBEDDING}:
            handles.append(modules[name].register_forward_hook(_catch(caught, name)))
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        pieces = []
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            encoded = encode([texts[i] for i in some])
            with torch.inference_mode():
                out = model(**encoded)
                found = {name: _first(caught[name]) for name in names if name != EMBEDDING}
                mask = encoded["attention_mask"]
                if EMBEDDING in names:
                    found[EMBEDDING] = pooled(out, mask)
            pieces.append((some, {n: t.float().cpu().numpy() for n, t in found.items()}, mask.bool().cpu().numpy()))
    finally:
        for handle in handles:
            handle.remove()
    return _joined(pieces, len(texts), States)


def pooled(out: Any, mask: Any) -> Any:
    """The embedding (B, D) of a model's output."""
    import torch

    hidden = out.last_hidden_state if hasattr(out, "last_hidden_state") else out.hidden_states[-1]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)


def _catch(caught: dict[str, Any], name: str) -> Any:
    def hook(_module: Any, _given: Any, out: Any) -> None:
        caught[name] = out

    return hook


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) else out


def _joined(pieces: list[tuple[list[int], dict[str, Any], Any]], count: int, states: type[States]) -> States:
    """Batches of different lengths in one array, with zeros where a text has no more tokens."""
    longest = max((mask.shape[1] for _, _, mask in pieces), default=1)
    whole = np.zeros((count, longest), dtype=np.bool_)
    arrays: dict[str, Any] = {}
    for some, found, mask in pieces:
        whole[some, : mask.shape[1]] = mask
        for name, array in found.items():
            of_tokens = array.ndim > 2 or (array.ndim == 2 and array.shape[:2] == mask.shape and name != EMBEDDING)
            if array.shape[0] != len(some) or (of_tokens and array.shape[1] != mask.shape[1]):
                raise ConfigError("student.objective", name, f"gives {array.shape}, not a state of every token")
            shape = (count, longest, *array.shape[2:]) if of_tokens else (count, *array.shape[1:])
            into = arrays.setdefault(name, np.zeros(shape, dtype=np.float32))
            if of_tokens:
                into[some, : array.shape[1]] = array
            else:
                into[some] = array
    return states(arrays=arrays, mask=whole if any(a.ndim > 2 for a in arrays.values()) else None)
