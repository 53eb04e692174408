"""Random views of images, as a few operations on the whole batch: crop, flip, colours.

Each image's view is drawn from a separate generator, then all are made together: one `grid_sample` for crop, resize and
flip, and one 3 x 3 matrix a pixel for brightness, contrast, saturation and hue (a rotation of the colour plane in YIQ).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from openjepa.core.config import BaseConfig, Interval

DRAWS = 11  # uniform numbers a view is made from
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # RGB -> luma and chroma


class AugmentConfig(BaseConfig):
    """How views of an image may differ."""

    FIRST = ("area", "flip")

    area: Interval = (1.0, 1.0)
    """least and largest part of the image that a crop keeps; [1, 1] = no crop"""
    aspect: Interval = (0.75, 1.3333)
    """width / height of a crop, drawn on a log scale; not used without crop"""
    flip: float = Field(0.0, ge=0, le=1)
    """probability of a mirror image"""
    jitter: float = Field(0.0, ge=0, le=1)
    """probability of changed colours"""
    brightness: float = Field(0.4, ge=0, lt=1)
    """largest relative change"""
    contrast: float = Field(0.4, ge=0, lt=1)
    """largest relative change"""
    saturation: float = Field(0.4, ge=0, le=1)
    """largest relative change"""
    hue: float = Field(0.1, ge=0, le=0.5)
    """largest turn of the colour wheel, in turns"""
    grey: float = Field(0.0, ge=0, le=1)
    """probability of a colourless image"""

    @field_validator("area")
    @classmethod
    def _is_a_part(cls, value: Interval) -> Interval:
        if value[1] > 1:
            raise ValueError("a crop keeps at most the whole image: 1")
        return value

    @property
    def moves(self) -> bool:
        """Whether views differ in geometry."""
        return self.area[0] < 1 or self.flip > 0

    @property
    def colours(self) -> bool:
        """Whether views differ in colour."""
        return self.jitter > 0 or self.grey > 0


def augment(
    images: Tensor, config: AugmentConfig, generators: Sequence[torch.Generator], pixels: int | None = None
) -> Tensor:
    """One random view of each image: [B, 3, H, W] in [-1, 1] -> [B, 3, pixels, pixels]; None = of the images' size.

    View i depends only on image i and generator i; every generator advances by the same number of draws. Pixels are
    interpolated between their neighbours: a view much smaller than its crop shows aliasing.
    """
    draws = torch.stack([torch.rand(DRAWS, generator=generator) for generator in generators])  # [B, DRAWS]
    size = images.shape[-2:] if pixels is None else (pixels, pixels)
    if config.moves or size != images.shape[-2:]:
        theta = crops(draws[:, :5], config)  # [B, 2, 3]
        grid = F.affine_grid(theta, [len(images), 3, *size], align_corners=False)  # [B, H, W, 2]
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if config.colours:
        images = recolour(images, colour_matrices(draws[:, 5:], config), contrasts(draws[:, 5:], config))
    return images


def crops(draws: Tensor, config: AugmentConfig) -> Tensor:
    """draws [B, 5] in [0, 1) -> affine maps [B, 2, 3] from a view to its crop, both with corners at -1 and 1.

    A crop that its aspect makes wider or higher than the image is cut to it. Source: Szegedy et al. 2015.
    """
    area = _between(config.area, draws[:, 0])
    log_aspect = _between((math.log(config.aspect[0]), math.log(config.aspect[1])), draws[:, 1])
    stretch = torch.exp(log_aspect / 2) if config.area[0] < 1 else torch.ones_like(area)
    width = (area.sqrt() * stretch).clamp(max=1)  # [B] parts of the image
    height = (area.sqrt() / stretch).clamp(max=1)  # [B]
    x = (1 - width) * (2 * draws[:, 2] - 1)
    y = (1 - height) * (2 * draws[:, 3] - 1)
    mirror = torch.where(draws[:, 4] < config.flip, -1.0, 1.0)
    zero = torch.zeros_like(x)
    return torch.stack([torch.stack([width * mirror, zero, x], 1), torch.stack([zero, height, y], 1)], 1)


def colour_matrices(draws: Tensor, config: AugmentConfig) -> Tensor:
    """draws [B, 6] -> [B, 3, 3], RGB to RGB: hue turned, saturation and brightness scaled."""
    jittered = (draws[:, 0] < config.jitter).float()  # [B]
    brightness = 1 + jittered * config.brightness * (2 * draws[:, 1] - 1)
    saturation = (1 + jittered * config.saturation * (2 * draws[:, 3] - 1)) * (draws[:, 5] >= config.grey)
    turn = jittered * 2 * math.pi * config.hue * (2 * draws[:, 4] - 1)
    cos = saturation * turn.cos()
    sin = saturation * turn.sin()
    zero = torch.zeros_like(turn)
    luma = torch.stack([torch.ones_like(turn), zero, zero], 1)
    chroma = torch.stack([luma, torch.stack([zero, cos, -sin], 1), torch.stack([zero, sin, cos], 1)], 1)  # [B, 3, 3]
    return brightness[:, None, None] * (torch.linalg.inv(YIQ) @ chroma @ YIQ)


def contrasts(draws: Tensor, config: AugmentConfig) -> Tensor:
    """draws [B, 6] -> [B] factors on the distance of each pixel from the image's mean."""
    return 1 + (draws[:, 0] < config.jitter) * config.contrast * (2 * draws[:, 2] - 1)


def recolour(images: Tensor, matrices: Tensor, contrast: Tensor) -> Tensor:
    """images [B, 3, H, W] in [-1, 1], matrices [B, 3, 3] on RGB in [0, 1], contrast [B] -> images in [-1, 1]."""
    pixels = (images.flatten(2) + 1) / 2  # [B, 3, H W]
    pixels = matrices @ pixels
    mean = pixels.mean((1, 2), keepdim=True)  # [B, 1, 1]
    pixels = mean + contrast[:, None, None] * (pixels - mean)
    return (2 * pixels.clamp(0, 1) - 1).view_as(images)


def _between(span: Interval, draw: Tensor) -> Tensor:
    return span[0] + (span[1] - span[0]) * draw
