"""Convolutions along the time of a spectrogram, with the mean and the maximum over it.

Shapes: B inputs, M mels, T frames of the longest one, K channels, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.contracts.errors import ConfigError
from components.distill.networks.contract import needs
from components.student.features import Signature


class AudioConvolution(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Logits (B, C) of ``spectrogram`` (B, M, T), of which the frames where ``mask`` (B, T) is 0 are padding.

    ``channels``: of each stage; every stage but the first halves the frames. ``width``: frames that a filter sees, odd.
    Padding is set to zero before every convolution, which is what a shorter batch has beyond its end.
    """

    def __init__(
        self,
        *,
        task: str,
        inputs: Signature,
        outputs: int,
        channels: Sequence[int] = (48, 64, 64),
        width: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        spectrogram = needs(inputs, spectrogram=("float32", 3), mask=("int64", 2))["spectrogram"]
        if not channels or width % 2 == 0:
            options = {"channels": channels, "width": width}
            raise ConfigError("student.network.options", options, "needs channels of one stage at least, an odd width")
        sizes = [int(spectrogram.shape[1]), *channels]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, width, 1 if i == 0 else 2, padding=width // 2, bias=False)
            for i, (a, b) in enumerate(zip(sizes, channels, strict=False))
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in channels)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * channels[-1], outputs)

    def forward(self, spectrogram: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """The logits, and mean and maximum of the last stage's frames: ``pooled``, (B, 2 K)."""
        real_B1T = mask.unsqueeze(1).to(spectrogram.dtype)
        found = spectrogram * real_B1T
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            real_B1T = real_B1T if i == 0 else real_B1T[:, :, ::2]
            found = torch.relu(norm(convolution(found))) * real_B1T
        mean = found.sum(dim=2) / real_B1T.sum(dim=2).clamp(min=1.0)
        pooled = torch.cat([mean, found.amax(dim=2)], dim=1)
        return {"logits": self.head(self.dropout(pooled)), "pooled": pooled}
