"""A vision transformer that encodes only given patches (Dosovitskiy et al. 2021; as in MAE, He et al. 2022).

Patches are chosen by their number in raster order *before* anything mixes them, so other patches cost nothing in the
trunk and cannot leak. Two stems turn pixels into tokens. `linear` maps each patch separately. `conv` is a stack of
overlapping convolutions (Xiao et al. 2021), which learns faster but reaches over patch borders: when only some patches
are given, the pixels of all others are set to 0 (mid-grey) first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from openjepa.core.config import BaseConfig
from openjepa.core.encoder import Encoder, Modality
from openjepa.core.errors import ConfigError
from openjepa.core.masks import Grid
from openjepa.models.transformer import Trunk, gather_positions, key_mask

LONGEST_PERIOD = 10_000.0  # of sin-cos positions, over 2 pi, in patches


class ViTConfig(BaseConfig):
    """The image encoder."""

    FIRST = ("patch", "dim", "depth", "heads")

    patch: int = Field(6, ge=1)
    """side of a patch in pixels; must divide data.size"""
    dim: int = Field(192, ge=8)
    """width of the latents"""
    depth: int = Field(4, ge=1, le=512)
    """transformer blocks"""
    heads: int = Field(3, ge=1)
    """attention heads; must divide dim"""
    stem: Literal["linear", "conv"] = "linear"
    """how pixels become tokens: patch by patch, or by overlapping convolutions"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """in the MLPs"""


class ViT(nn.Module):
    """Images to latents of their patches. Raises ConfigError for sizes that do not fit together.

    `grid` is that of square images of `pixels` x `pixels`. Images of other sizes are read too, square or not, if they
    are made of whole patches: their grid is laid over the same area (see `sincos_positions`).
    """

    modality: Modality = "image"
    position_embedding: Tensor

    def __init__(self, config: ViTConfig, pixels: int) -> None:
        super().__init__()
        if pixels % config.patch:
            raise ConfigError(
                f"{pixels} pixels cannot be cut into patches of {config.patch}; let encoder.patch divide data.size"
            )
        side = pixels // config.patch
        self.patch = config.patch
        self.dim = config.dim
        self.grid = (side, side)
        self.max_len = side * side
        self.stem: nn.Module
        if config.stem == "linear":
            self.stem = nn.Linear(3 * config.patch**2, config.dim)
        else:
            self.stem = conv_stem(config.patch, config.dim)
        self.register_buffer("position_embedding", sincos_positions(self.grid, config.dim))
        self.trunk = Trunk(config.dim, config.depth, config.heads, dropout=config.dropout)

    def states(self, images: Tensor, positions: Tensor | None = None, valid: Tensor | None = None) -> list[Tensor]:
        """images [B, 3, H, W], positions [B, V] of the patches to read (None: all) -> depth + 1 latents [B, V, D].

        The patches with their positions come first, then the output of every block, the last one normed. `valid` [B, V]
        is False where a row has fewer patches than V. No latent depends on any patch that is not read.
        """
        x = self.tokens(images, positions, valid)  # [B, V, D]
        return [x, *self.trunk.states(x, None if valid is None else key_mask(valid))]

    def forward(self, images: Tensor, positions: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """The last layer's latents [B, V, D]."""
        return self.states(images, positions, valid)[-1]

    def tokens(self, images: Tensor, positions: Tensor | None, valid: Tensor | None) -> Tensor:
        """The trunk's inputs [B, V, D]: stem output and position embedding of each chosen patch."""
        embedding = self.position_embeddings(images)  # [N, D]
        if isinstance(self.stem, nn.Linear):
            pixels = patchify(images, self.patch)  # [B, N, 3 P P]
            tokens = self.stem(pixels if positions is None else gather_positions(pixels, positions))
        else:
            if positions is not None:
                images = images * self._visible_pixels(images, positions, valid)
            tokens = self.stem(images).flatten(2).transpose(1, 2)  # [B, N, D]
            tokens = tokens if positions is None else gather_positions(tokens, positions)
        return tokens + (embedding if positions is None else embedding[positions])

    def position_embeddings(self, images: Tensor) -> Tensor:
        """[N, D] position embeddings of the patches of `images` [B, 3, H, W], of this ViT's grid or of another."""
        grid = self.grid_of(images)
        if grid == self.grid:
            return self.position_embedding
        return sincos_positions(grid, self.dim, self.grid, self.position_embedding.device)

    def grid_of(self, images: Tensor) -> Grid:
        """Rows and columns of the patches of `images` [B, 3, H, W]. Raises ConfigError if they are not whole."""
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ConfigError(f"images of {height} x {width} pixels cannot be cut into patches of {self.patch}")
        return height // self.patch, width // self.patch

    def _visible_pixels(self, images: Tensor, positions: Tensor, valid: Tensor | None) -> Tensor:
        """[B, 1, H, W], 1 on the pixels of the given patches of `images` and 0 elsewhere."""
        rows, columns = self.grid_of(images)
        real = torch.ones_like(positions) if valid is None else valid.long()  # [B, V]
        visible = positions.new_zeros(len(positions), rows * columns)
        visible = visible.scatter_reduce(1, positions, real, "amax")  # [B, N]
        visible = visible.view(-1, 1, rows, columns).to(self.position_embedding.dtype)
        return visible.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)


def patchify(images: Tensor, patch: int) -> Tensor:
    """images [B, C, H, W] -> patches [B, N, C * P * P] in raster order, each with its channels one after the other."""
    b, c, h, w = images.shape
    x = images.view(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // patch) * (w // patch), c * patch * patch)


def conv_stem(patch: int, dim: int) -> nn.Sequential:
    """Overlapping 3 x 3 convolutions, each halving (or a 5 x 5 one cutting to a third), until a patch is one cell.

    Then 1 x 1 to `dim` channels. Source: Xiao et al. 2021, with GroupNorm for BatchNorm: rows do not mix.
    Raises ConfigError for a patch size with a prime factor above 3.
    """
    strides = []
    rest = patch
    for factor in (2, 3):
        while rest % factor == 0:
            strides.append(factor)
            rest //= factor
    if rest > 1 or not strides:
        raise ConfigError(f"encoder.stem=conv cannot shrink a patch of {patch} to one cell; use 2, 3, 4, 6, 8 or 16")
    layers: list[nn.Module] = []
    channels = 3
    for number, stride in enumerate(strides):
        width = max(8, dim // 2 ** (len(strides) - number))
        kernel = 2 * (stride // 2) + 3 if stride > 2 else 3
        layers += [
            nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
            nn.GroupNorm(1, width),
            nn.GELU(),
        ]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, dim, 1))


def sincos_positions(grid: Grid, dim: int, area: Grid | None = None, device: torch.device | str = "cpu") -> Tensor:
    """[H * W, dim] fixed positions: for row y and column x, sines and cosines of y w_k, then of x w_k.

    The rates are w_k = 10000^(-4 k / dim).
    Each quarter of the width holds one of sin y, cos y, sin x, cos x (Vaswani et al. 2017; two-dimensional as in MAE).
    `area`, the grid of the encoder's full images, is what `grid` is laid over: y and x are the centres of its cells, in
    patches of `area`. A small view's grid thus spans as much as a large one's, as when learned positions are
    interpolated (DINO, Caron et al. 2021), but with exact values. None = `grid` itself: y and x are row and column.
    Raises ConfigError if `dim` cannot be divided by 4.
    """
    if dim % 4:
        raise ConfigError(f"sines and cosines of two coordinates need a width divisible by 4, not {dim}")
    rates = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(dim // 4, device=device) / (dim // 4))  # [dim / 4]
    spans = zip(grid, area or grid, strict=True)
    rows, columns = (_centres(cells, span, device) for cells, span in spans)  # [H], [W]
    y, x = torch.meshgrid(rows, columns, indexing="ij")  # each [H, W]
    angles = [position.flatten()[:, None] * rates for position in (y, x)]  # each [H * W, dim / 4]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)


def _centres(cells: int, span: int, device: torch.device | str) -> Tensor:
    """[cells] centres of cells that divide a length of `span` equally; those of as many as `span` are 0, 1, 2, ..."""
    return (torch.arange(cells, device=device) + 0.5) * (span / cells) - 0.5


@dataclass(frozen=True)
class Projected:
    """The projection of an image's mean latent, as an encoder of one position per image."""

    encoder: Encoder
    projector: nn.Module
    max_len: int = 1
    modality: Modality = "image"

    @property
    def dim(self) -> int:
        """Width Z of the projection."""
        layers = [module for module in self.projector.modules() if isinstance(module, nn.Linear)]
        return layers[-1].out_features if layers else self.encoder.dim

    def states(self, *inputs: Any, **options: Any) -> list[Tensor]:
        """Images [B, 3, S, S] -> one layer [B, 1, Z]."""
        return [self.projector(self.encoder(*inputs, **options).mean(1, keepdim=True))]

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        return self.states(*inputs, **options)[-1]

    __call__ = forward
