"""Features of images: PNG and JPEG, decoded by Pillow, at one size."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from components.contracts.errors import ConfigError, RecordError
from components.student.arrays import BATCH, Features
from components.student.features import Signature, TensorSpec

FORMATS = ("PNG", "JPEG")

MAX_PIXELS = 1 << 24
"""Pixels that an image may have, 16.8 million: some kilobytes of PNG can unpack to gigabytes."""

DESCRIBED = (64, 64)
"""Width and height at which brightness and the like are taken."""


class Image:
    """Pixels of an image, resized to ``height`` x ``width`` whatever its proportions, and scaled to [-1, 1].

    ``colour``: ``rgb`` or ``grey``. An image is turned as its camera was held, and what is transparent is white.
    ``max_pixels``: more are refused before they are decoded.
    """

    def __init__(
        self,
        height: int = 32,
        width: int = 32,
        colour: Literal["rgb", "grey"] = "rgb",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        for name, value in (("height", height), ("width", width), ("max_pixels", max_pixels)):
            if value < 1:
                raise ConfigError(f"features.options.{name}", value, "must be >= 1")
        if colour not in ("rgb", "grey"):
            raise ConfigError("features.options.colour", colour, "must be rgb or grey")
        self.height, self.width, self.colour, self.max_pixels = height, width, colour, max_pixels
        shape = (BATCH, 3 if colour == "rgb" else 1, height, width)
        self.signature: Signature = {"pixels": TensorSpec(dtype="float32", shape=shape)}

    def encode(self, payloads: Sequence[bytes]) -> Features:
        """``pixels``, (B, channels, height, width).

        Raises:
            RecordError: ``undecodable`` or ``oversize``.

        """
        rows = [self._pixels(data) for data in payloads]
        shape = self.signature["pixels"].shape[1:]
        pixels = np.array(rows, dtype=np.float32).reshape(len(rows), *(int(n) for n in shape))
        return {"pixels": pixels / np.float32(127.5) - np.float32(1.0)}

    def _pixels(self, data: bytes) -> npt.NDArray[np.uint8]:
        mode = "RGB" if self.colour == "rgb" else "L"
        image, _ = opened(data, self.max_pixels, (self.width, self.height))
        found = np.asarray(image.convert(mode), dtype=np.uint8)
        return found.transpose(2, 0, 1) if mode == "RGB" else found[None]

    def describe(self, payload: bytes) -> dict[str, float | str]:
        """Size, and what a small grey copy tells: brightness and contrast in [0, 1], entropy in bits, edges.

        ``width`` and ``height`` in pixels, ``log_bytes`` the natural log of the file's size; ``entropy`` of the
        histogram of 256 greys; ``edges``: the mean difference of neighbouring pixels, small where an image is blurred;
        ``colourfulness``: the mean difference between a pixel's channels.

        Raises:
            RecordError: ``undecodable`` or ``oversize``.

        """
        image, (width, height) = opened(payload, self.max_pixels, DESCRIBED)
        colours = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
        greys = np.asarray(image.convert("L"))
        share = np.bincount(greys.ravel(), minlength=256) / greys.size
        seen, grey = share[share > 0], greys / 255
        return {
            "width": float(width),
            "height": float(height),
            "log_bytes": math.log1p(len(payload)),
            "brightness": float(grey.mean()),
            "contrast": float(grey.std()),
            "entropy": float(-(seen * np.log2(seen)).sum()) + 0.0,
            "edges": float((np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2),
            "colourfulness": float(np.ptp(colours, axis=2).mean()),
        }


def image_bytes(payload: bytes) -> bytes:
    """A decoder of payloads (``payload.decoder``) that gives the bytes of an image as they are, once they were decoded.

    With it, what is no image goes to the dead letters before a teacher is asked.

    Raises:
        RecordError: ``undecodable``, or ``oversize``: it has more than :data:`MAX_PIXELS`.

    """
    opened(payload, MAX_PIXELS, (1, 1))
    return payload


def opened(data: bytes, max_pixels: int, size: tuple[int, int] | None = None) -> tuple[Any, tuple[int, int]]:
    """A decoded image of ``size`` (width, height; None: its own), in RGB or in greys, and the size that it came with.

    Raises:
        RecordError: ``undecodable``, it is neither PNG nor JPEG, or broken; ``oversize``, it has more pixels.

    """
    from PIL import Image as pillow

    try:
        image = pillow.open(io.BytesIO(data), formats=FORMATS)
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise RecordError("oversize", f"an image of too many pixels; at most {max_pixels}: {error}") from error
    except Exception as error:  # Pillow's readers raise whatever they come upon
        raise RecordError("undecodable", f"neither a PNG nor a JPEG image: {error}") from error
    came = image.size
    if image.width * image.height > max_pixels:
        raise RecordError("oversize", f"{image.width} x {image.height} pixels; at most {max_pixels}")
    try:
        if size is None:
            return _upright(image), came
        image.draft(image.mode, (2 * size[0], 2 * size[1]))  # a JPEG is decoded at a half, quarter or eighth already
        return _upright(image).resize(size, pillow.Resampling.BILINEAR), came
    except Exception as error:
        raise RecordError("undecodable", f"a broken {image.format} image: {error}") from error


def _upright(image: Any) -> Any:
    """The image as it is looked at: turned, without transparency, 8 bits a channel."""
    from PIL import Image as pillow
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion cuts off what is above 255
        return pillow.fromarray((np.asarray(image).clip(0, 65_535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
