"""A small residual network for images.

After K. He et al., "Deep residual learning for image recognition" (CVPR 2016, arXiv 1512.03385).

Shapes: B inputs, K channels, H and W pixels of height and width, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.contracts.errors import ConfigError
from components.distill.networks.contract import needs
from components.student.features import Signature


class ImageConvolution(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Logits (B, C) of ``pixels`` (B, K, H, W).

    ``channels``: of each stage; every stage but the first halves height and width. ``dropout``: of what is pooled, in
    training.
    """

    def __init__(
        self,
        *,
        task: str,
        inputs: Signature,
        outputs: int,
        channels: Sequence[int] = (16, 32, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        pixels = needs(inputs, pixels=("float32", 4))["pixels"]
        if not channels:
            raise ConfigError("student.network.options.channels", channels, "needs the channels of one stage at least")
        self.stem = nn.Conv2d(int(pixels.shape[1]), channels[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels[0])
        before = (channels[0], *channels[:-1])
        self.blocks = nn.Sequential(
            *(_Block(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(zip(before, channels, strict=True)))
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], outputs)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """The logits, and the mean of the last stage: ``pooled``, (B, channels)."""
        pooled = self.blocks(torch.relu(self.norm(self.stem(pixels)))).mean(dim=(2, 3))
        return {"logits": self.head(self.dropout(pooled)), "pooled": pooled}


class _Block(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Two convolutions, and the way around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        same = (before, stride) == (after, 1)
        self.around = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, given: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(given)))
        return torch.relu(self.second_norm(self.second(inner)) + self.around(given))
