"""Image rows to batches: with a part of the patches hidden, or with several random views of each image.

All indices and views are made here, in the data workers, so that no method asks the device how many patches are hidden.
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
from openjepa.core.experiment import Row
from openjepa.core.picture import Patches
from openjepa.data.augment import AugmentConfig, augment
from openjepa.data.images import load_images
from openjepa.data.masked_text import positions_of
from openjepa.data.pictures import image_pictures

PATCHES_AT_ONCE = 4096  # that a network reads in one pass outside of training: bounds the memory of its activations
MOST_AT_ONCE = 64  # images, however few patches they have

Grid = tuple[int, int]
Masks = tuple[np.ndarray, np.ndarray, np.ndarray]  # context, hidden [N] bool, times hidden [N] uint8
Masker = Callable[[Grid, torch.Generator], Masks]


@dataclass(kw_only=True)
class Images(Batch):
    """Whole images, to be embedded."""

    images: Tensor  # [B, 3, S, S] in [-1, 1]
    patches: int  # N, of each image

    @property
    def tokens(self) -> int:
        return self.size * self.patches

    def noise(self, generator: torch.Generator) -> Tensor:
        """[B, 3, S, S] other images: uniform noise in [-1, 1)."""
        return torch.rand(self.images.shape, generator=generator).to(self.images) * 2 - 1


@dataclass(kw_only=True)
class MaskedImages(Images):
    """Images of which some patches are shown and some are to be predicted. V, H = most of each in an image."""

    valid: Tensor  # [B, N] bool, True: every patch is real
    hidden: Tensor  # [B, N] bool, True where a latent is to be predicted
    times_hidden: Tensor  # [B, N] uint8, how many hidden blocks hold each patch
    context_at: Tensor  # [B, V] int64, places of the patches that are shown, in raster order
    context_valid: Tensor  # [B, V] bool
    hidden_at: Tensor  # [B, H] int64, places of the hidden patches
    hidden_valid: Tensor  # [B, H] bool

    @property
    def shown(self) -> Tensor:
        """[B, N] bool, True on the patches that the context encoder reads; some may be neither shown nor hidden."""
        return torch.zeros_like(self.hidden).scatter(1, self.context_at, self.context_valid)

    @property
    def hidden_pixels(self) -> Tensor:
        """[B, 1, S, S] bool, True on the pixels of the hidden patches."""
        side = round(self.patches**0.5)
        patch = self.images.shape[-1] // side
        return self.hidden.view(-1, 1, side, side).repeat_interleave(patch, 2).repeat_interleave(patch, 3)

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with uniform noise on the hidden patches."""
        return replace(self, images=torch.where(self.hidden_pixels, self.noise(generator), self.images))

    def nearest_visible(self) -> Tensor:
        """[B, H] the place of the shown patch nearest to each hidden one, for the copy baseline."""
        side = round(self.patches**0.5)
        (y, x), (other_y, other_x) = ((at // side, at % side) for at in (self.hidden_at, self.context_at))
        rows, columns = y[:, :, None] - other_y[:, None], x[:, :, None] - other_x[:, None]  # [B, H, V]
        distance = rows.square() + columns.square()
        distance = distance.masked_fill(~self.context_valid[:, None, :], 2 * self.patches)
        return self.context_at.gather(1, distance.argmin(2))


@dataclass(kw_only=True)
class ImageViews(Images):
    """Images and two random views of each."""

    views: Tensor  # [B, 2, 3, S, S] in [-1, 1]

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with uniform noise for the second view, which the first one predicts."""
        return replace(self, views=torch.stack([self.views[:, 0], self.noise(generator)], 1))


@dataclass(frozen=True)
class MaskedImageCollator:
    """Rows [S, S, 3] uint8 to a MaskedImages batch; `augment` draws one view of each image before it is masked."""

    grid: Grid
    masker: Masker
    augment: AugmentConfig

    def __call__(self, rows: Sequence[Row]) -> MaskedImages:
        images = to_float(np.stack([row.sample for row in rows]))
        images = augment(images, self.augment, [row.generator for row in rows])
        masks = [self.masker(self.grid, row.generator) for row in rows]
        context, hidden, times_hidden = (torch.from_numpy(np.stack(part)) for part in zip(*masks, strict=True))
        context_at, context_valid = positions_of(context)
        hidden_at, hidden_valid = positions_of(hidden)
        return MaskedImages(
            keys=torch.tensor([row.index for row in rows]),
            images=images,
            patches=hidden.shape[1],
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
class ViewCollator:
    """Rows [S, S, 3] uint8 to an ImageViews batch."""

    grid: Grid
    augment: AugmentConfig

    def __call__(self, rows: Sequence[Row]) -> ImageViews:
        images, generators = to_float(np.stack([row.sample for row in rows])), [row.generator for row in rows]
        return ImageViews(
            keys=torch.tensor([row.index for row in rows]),
            images=images,
            patches=self.grid[0] * self.grid[1],
            views=torch.stack([augment(images, self.augment, generators) for _ in range(2)], 1),
        )

    def pictures(self, batch: Images) -> list[Patches]:
        """What the images of a batch look like, patch by patch."""
        return image_pictures(batch)


def images_at_once(patches: int) -> int:
    """How many images of so many patches a network should read in one pass outside of training."""
    return max(1, min(MOST_AT_ONCE, PATCHES_AT_ONCE // patches))


def clean(inputs: Sequence[Any], pixels: int, grid: Grid) -> Images:
    """User inputs (paths, bytes, Pillow images, uint8 arrays) as a batch to embed. Raises UserError for others."""
    images = to_float(load_images(inputs, pixels))
    return Images(keys=torch.arange(len(inputs)), images=images, patches=grid[0] * grid[1])


def to_float(images: np.ndarray) -> Tensor:
    """[B, S, S, 3] uint8 -> [B, 3, S, S] in [-1, 1]; mid-grey is 0."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()
