"""Image rows to batches: with a part of the patches hidden, or with several random views of each image.

All indices and views are made here, in the data workers, so that no method waits for a count of hidden patches.
Pixels are floats in [-1, 1] from here on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.errors import ConfigError
from openjepa.core.experiment import Sample
from openjepa.core.masks import Grid, PatchMasker
from openjepa.core.method import Inspection
from openjepa.core.picture import Patches
from openjepa.data.images.augment import AugmentConfig, augment
from openjepa.data.images.dataset import load_images
from openjepa.data.pictures import image_pictures
from openjepa.data.text.masked import positions_of

PATCHES_AT_ONCE = 4096  # that a network reads in one pass outside of training: bounds the memory of its activations
MOST_AT_ONCE = 64  # images, however few patches they have


@dataclass(kw_only=True)
class Images(Batch):
    """Whole images, to be embedded."""

    images: Tensor  # [B, 3, H, W] in [-1, 1]
    grid: Grid  # rows, columns of the patches of each image

    @property
    def patches(self) -> int:
        """N, the patches of each image."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        return self.size * self.patches


@dataclass(kw_only=True)
class MaskedImages(Images):
    """Images of which some patches are visible and some are hidden. V, M = most of each in an image."""

    valid: Tensor  # [B, N] bool, True: every patch is real
    hidden: Tensor  # [B, N] bool, True where a latent is to be predicted
    times_hidden: Tensor  # [B, N] uint8, how many hidden blocks contain each patch
    context_at: Tensor  # [B, V] int64, positions of the visible patches, in raster order
    context_valid: Tensor  # [B, V] bool
    hidden_at: Tensor  # [B, M] int64, positions of the hidden patches
    hidden_valid: Tensor  # [B, M] bool

    @property
    def shown(self) -> Tensor:
        """[B, N] bool, True on the patches that the context encoder reads; some may be neither visible nor hidden."""
        return torch.zeros_like(self.hidden).scatter(1, self.context_at, self.context_valid)

    @property
    def hidden_pixels(self) -> Tensor:
        """[B, 1, H, W] bool, True on the pixels of the hidden patches."""
        rows, columns = self.grid
        # of a patch
        height = self.images.shape[-2] // rows
        width = self.images.shape[-1] // columns
        return self.hidden.view(-1, 1, rows, columns).repeat_interleave(height, 2).repeat_interleave(width, 3)

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with uniform noise on the hidden patches."""
        return replace(self, images=torch.where(self.hidden_pixels, noise_like(self.images, generator), self.images))

    def inspection(self, copied: Tensor, teacher: Tensor | None) -> Inspection:
        """Diagnostics for a health check, with a prediction for each hidden patch; the arguments are its fields."""
        positions = self.hidden_at[self.hidden_valid]
        return Inspection(self.hidden_valid.nonzero()[:, 0], positions, copied, teacher)

    def nearest_visible(self) -> Tensor:
        """[B, M] the position of the visible patch nearest to each hidden one, for the copy baseline."""
        columns = self.grid[1]
        y = self.hidden_at // columns  # [B, M]
        x = self.hidden_at % columns  # [B, M]
        visible_y = self.context_at // columns  # [B, V]
        visible_x = self.context_at % columns  # [B, V]
        down = y[:, :, None] - visible_y[:, None]  # [B, M, V]
        across = x[:, :, None] - visible_x[:, None]  # [B, M, V]
        distance = down.square() + across.square()
        farther_than_any = self.grid[0] ** 2 + self.grid[1] ** 2
        distance = distance.masked_fill(~self.context_valid[:, None, :], farther_than_any)
        return self.context_at.gather(1, distance.argmin(2))


@dataclass(kw_only=True)
class ImageViews(Images):
    """Images and random views of each: G of the images' own size (global), and L smaller ones (local; L may be 0).

    Health and the leak audit use one view as the context, and all others as hidden: the first local view, or the first
    global one where none is local.
    """

    global_views: Tensor  # [B, G, 3, S, S] in [-1, 1]
    local_views: Tensor  # [B, L, 3, s, s] in [-1, 1]

    @property
    def has_local_views(self) -> bool:
        return self.local_views.shape[1] > 0

    @property
    def context_view(self) -> Tensor:
        """[B, 1, 3, S or s, ...] the view that health and the leak audit use as the context."""
        return (self.local_views if self.has_local_views else self.global_views)[:, :1]

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with uniform noise for all views but the context view."""
        if not self.has_local_views:
            return replace(self, global_views=_with_noise(self.global_views, 1, generator))
        return replace(
            self,
            global_views=_with_noise(self.global_views, 0, generator),
            local_views=_with_noise(self.local_views, 1, generator),
        )


def noise_like(images: Tensor, generator: torch.Generator) -> Tensor:
    """Other images of the same shape and device: uniform noise in [-1, 1)."""
    return torch.rand(images.shape, generator=generator).to(images) * 2 - 1


def _with_noise(views: Tensor, kept: int, generator: torch.Generator) -> Tensor:
    """views [B, V, ...] with noise for all but the first `kept`."""
    return torch.cat([views[:, :kept], noise_like(views[:, kept:], generator)], 1)


@dataclass(frozen=True)
class MaskedImageCollator:
    """Rows [S, S, 3] uint8 to a MaskedImages batch; `augment` draws one view of each image before it is masked."""

    grid: Grid
    masker: PatchMasker
    augment: AugmentConfig

    def __call__(self, rows: Sequence[Sample]) -> MaskedImages:
        images = to_float(np.stack([row.sample for row in rows]))
        images = augment(images, self.augment, [row.generator for row in rows])
        masks = [self.masker(self.grid, row.generator) for row in rows]
        context, hidden, times_hidden = (torch.from_numpy(np.stack(part)) for part in zip(*masks, strict=True))
        context_at, context_valid = positions_of(context)
        hidden_at, hidden_valid = positions_of(hidden)
        return MaskedImages(
            keys=torch.tensor([row.index for row in rows]),
            images=images,
            grid=self.grid,
            valid=torch.ones_like(hidden),
            hidden=hidden,
            times_hidden=times_hidden,
            context_at=context_at,
            context_valid=context_valid,
            hidden_at=hidden_at,
            hidden_valid=hidden_valid,
        )

    def pictures(self, batch: Images) -> list[Patches]:
        """What the images of a batch look like, patch by patch."""
        return image_pictures(batch)


@dataclass(frozen=True)
class Crops:
    """Some random views of an image: how many, how they are drawn, and their side in pixels."""

    count: int
    augment: AugmentConfig
    pixels: int

    def of(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """images [B, 3, S, S] -> views [B, count, 3, pixels, pixels]."""
        if self.count == 0:
            return images.new_zeros(len(images), 0, 3, self.pixels, self.pixels)
        return torch.stack([augment(images, self.augment, generators, self.pixels) for _ in range(self.count)], 1)


@dataclass(frozen=True)
class ViewCollator:
    """Rows [S, S, 3] uint8 to an ImageViews batch. Raises ConfigError for fewer than two views."""

    grid: Grid
    global_crops: Crops
    local_crops: Crops

    def __post_init__(self) -> None:
        if self.global_crops.count + self.local_crops.count < 2:
            raise ConfigError("one view predicts nothing: raise global_views or local_views")

    def __call__(self, rows: Sequence[Sample]) -> ImageViews:
        images = to_float(np.stack([row.sample for row in rows]))
        generators = [row.generator for row in rows]
        return ImageViews(
            keys=torch.tensor([row.index for row in rows]),
            images=images,
            grid=self.grid,
            global_views=self.global_crops.of(images, generators),
            local_views=self.local_crops.of(images, generators),
        )

    def pictures(self, batch: Images) -> list[Patches]:
        """What the images of a batch look like, patch by patch."""
        return image_pictures(batch)


def two_view_collator(grid: Grid, pixels: int, config: AugmentConfig) -> ViewCollator:
    """Two views of each image, as large as the image."""
    return ViewCollator(grid, Crops(2, config, pixels), Crops(0, config, pixels))


def images_at_once(patches: int) -> int:
    """Number of images of `patches` patches that a network should read in one pass outside of training."""
    return max(1, min(MOST_AT_ONCE, PATCHES_AT_ONCE // patches))


def mean_latents(encode: Callable[[Tensor], Tensor], batch: Images) -> Tensor:
    """[B, D] the mean latent of each image, encoded a few images at once: users may embed large batches.

    `encode` maps images [b, 3, H, W] to latents [b, N, D].
    """
    parts = batch.images.split(images_at_once(batch.patches))
    return torch.cat([encode(images).float().mean(1) for images in parts])


def clean(inputs: Sequence[Any], pixels: int, grid: Grid) -> Images:
    """User inputs (paths, bytes, Pillow images, uint8 arrays) as a batch to embed. Raises UserError for others."""
    return Images(keys=torch.arange(len(inputs)), images=to_float(load_images(inputs, pixels)), grid=grid)


def to_float(images: np.ndarray) -> Tensor:
    """[B, S, S, 3] uint8 -> [B, 3, S, S] in [-1, 1]; mid-grey is 0."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()
