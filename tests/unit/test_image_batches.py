"""Batches of masked images know their grid: hidden pixels, nearest patches and pictures are right, square or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openjepa.core.experiment import Sample
from openjepa.core.masks import Grid
from openjepa.core.seeding import generator_for
from openjepa.data.images.augment import AugmentConfig
from openjepa.data.images.batches import MaskedImageCollator, MaskedImages, mean_latents
from openjepa.data.pictures import image_pictures
from openjepa.masking.blocks import RandomMasker
from openjepa.models.vit import ViT, ViTConfig

B, PATCH = 3, 4
GRIDS = pytest.mark.parametrize("grid", [(2, 5), (5, 2), (1, 12), (12, 1), (3, 3)])


def masked(grid: Grid, ratio: float = 0.6) -> MaskedImages:
    """Images of this many patches; a share of them is hidden, the rest is shown."""
    size = (grid[0] * PATCH, grid[1] * PATCH, 3)
    images = [np.random.default_rng(i).integers(0, 256, size, dtype=np.uint8) for i in range(B)]
    rows = [Sample(image, generator_for(0, "mask", i), i) for i, image in enumerate(images)]
    return MaskedImageCollator(grid, RandomMasker(ratio), AugmentConfig())(rows)


@GRIDS
def test_hidden_pixels_are_those_of_the_hidden_patches(grid: Grid) -> None:
    batch = masked(grid)
    assert batch.patches == grid[0] * grid[1]
    for row, pixels in enumerate(batch.hidden_pixels[:, 0]):
        for number, hidden in enumerate(batch.hidden[row].tolist()):
            y, x = number // grid[1] * PATCH, number % grid[1] * PATCH
            assert (pixels[y : y + PATCH, x : x + PATCH] == hidden).all()
    other = batch.with_other_hidden(generator_for(0, "other"))
    changed = (other.images != batch.images).any(1)
    assert torch.equal(changed, batch.hidden_pixels[:, 0])


@GRIDS
@pytest.mark.parametrize("ratio", [0.3, 0.9])
def test_the_nearest_visible_patch_is_nearest_in_rows_and_columns(grid: Grid, ratio: float) -> None:
    """With one patch shown, which may be as far away as the grid is long, too."""
    batch = masked(grid, ratio)
    nearest = batch.nearest_visible()
    for row in range(B):
        shown = batch.context_at[row][batch.context_valid[row]]
        hidden = batch.hidden_at[row][batch.hidden_valid[row]]
        for at, found in zip(hidden.tolist(), nearest[row].tolist(), strict=False):
            assert found in shown
            steps = (shown // grid[1] - at // grid[1]) ** 2 + (shown % grid[1] - at % grid[1]) ** 2
            assert (found // grid[1] - at // grid[1]) ** 2 + (found % grid[1] - at % grid[1]) ** 2 == steps.min()


@GRIDS
def test_pictures_have_the_grid_of_their_batch(grid: Grid) -> None:
    pictures = image_pictures(masked(grid))
    assert {picture.grid for picture in pictures} == {grid}
    assert {picture.pixels.shape for picture in pictures} == {(grid[0] * PATCH, grid[1] * PATCH, 3)}


@GRIDS
def test_an_encoder_reads_the_visible_patches_of_any_grid_alone(grid: Grid) -> None:
    torch.manual_seed(0)
    encoder = ViT(ViTConfig(patch=PATCH, dim=16, depth=1, heads=2), 3 * PATCH).eval()
    batch = masked(grid)
    other = batch.with_other_hidden(generator_for(0, "other"))
    states = [encoder(b.images, b.context_at, b.context_valid)[b.context_valid] for b in (batch, other)]
    assert torch.equal(*states)
    assert not torch.equal(encoder(batch.images), encoder(other.images))


def test_the_mean_latent_does_not_depend_on_how_many_images_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, sizes = masked((2, 5)), []

    def encode(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return images.flatten(2).transpose(1, 2)

    together = mean_latents(encode, batch)
    monkeypatch.setattr("openjepa.data.images.batches.PATCHES_AT_ONCE", 20)
    assert torch.equal(together, mean_latents(encode, batch))
    assert sizes == [3, 2, 1]
