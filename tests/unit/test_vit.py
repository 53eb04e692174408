"""The image encoder: hidden patches are as if they were not there, positions are those given, sizes are checked."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from openjepa.core.errors import ConfigError
from openjepa.core.seeding import generator_for
from openjepa.models.transformer import gather_positions
from openjepa.models.vit import ViT, ViTConfig, conv_stem, patchify, sincos_positions

B, PIXELS, PATCH, N = 3, 16, 4, 16
TOLERANCE = 1e-5


def vit(**settings: object) -> ViT:
    torch.manual_seed(0)
    return ViT(ViTConfig.load({"patch": PATCH, "dim": 16, "depth": 2, "heads": 2, **settings}), PIXELS).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(B, 3, PIXELS, PIXELS, generator=generator_for(0, "images"))


@pytest.fixture
def order() -> Tensor:
    """[B, N] the patches of each image in an order of its own."""
    return torch.stack([torch.randperm(N, generator=generator_for(0, "order", i)) for i in range(B)])


VARIANTS = [{}, {"stem": "conv"}]


def unpatchify(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The inverse of `patchify`: [B, N, C * P * P] -> [B, C, H, W]."""
    b, _, size = patches.shape
    x = patches.view(b, *grid, size // patch**2, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(b, size // patch**2, grid[0] * patch, grid[1] * patch)


def test_patchify_cuts_in_raster_order_and_back(images: Tensor) -> None:
    patches = patchify(images, PATCH)
    assert patches.shape == (B, N, 3 * PATCH * PATCH)
    assert torch.equal(patches[1, 6].view(3, PATCH, PATCH), images[1, :, 4:8, 8:12])
    assert torch.equal(unpatchify(patches, (4, 4), PATCH), images)
    wide = torch.randn(2, 5, 8, 12, generator=generator_for(0))
    assert torch.equal(unpatchify(patchify(wide, 4), (2, 3), 4), wide)


def test_visible_only_is_masked_attention_over_all(images: Tensor, order: Tensor) -> None:
    """Leaving patches out equals reading all patches where nobody may attend to those that are hidden."""
    encoder, visible = vit(), order[:, :6]
    shown = torch.zeros(B, N, dtype=torch.bool).scatter(1, visible, True)
    over_all = encoder(images, torch.arange(N).expand(B, N), shown)  # [B, N, D]
    assert torch.allclose(encoder(images, visible), gather_positions(over_all, visible), atol=TOLERANCE)


@pytest.mark.parametrize("settings", VARIANTS)
def test_the_content_of_hidden_patches_changes_nothing(settings: dict, images: Tensor, order: Tensor) -> None:
    encoder, visible = vit(**settings), order[:, :6]
    patches = patchify(images, PATCH)
    hidden = torch.ones(B, N, dtype=torch.bool).scatter(1, visible, False)
    other = unpatchify(torch.where(hidden[..., None], torch.randn_like(patches), patches), (4, 4), PATCH)
    assert not torch.equal(other, images)
    assert torch.equal(encoder(images, visible), encoder(other, visible))


@pytest.mark.parametrize("settings", VARIANTS)
def test_padding_changes_nothing(settings: dict, images: Tensor, order: Tensor) -> None:
    """Rows with 6, 4 and 1 patches, padded with positions that hold something."""
    encoder = vit(**settings)
    valid = torch.arange(6)[None, :] < torch.tensor([[6], [4], [1]])
    together = encoder(images, order[:, :6], valid)
    for row, count in enumerate((6, 4, 1)):
        alone = encoder(images[row : row + 1], order[row : row + 1, :count])
        assert torch.allclose(together[row, :count], alone[0], atol=TOLERANCE)


@pytest.mark.parametrize("settings", VARIANTS)
def test_patches_may_be_read_in_any_order(settings: dict, images: Tensor, order: Tensor) -> None:
    encoder = vit(**settings)
    assert torch.allclose(encoder(images, order), gather_positions(encoder(images), order), atol=TOLERANCE)


def test_positions_matter(images: Tensor) -> None:
    encoder = vit()
    turned = unpatchify(patchify(images, PATCH).roll(1, dims=1), (4, 4), PATCH)
    assert not torch.allclose(encoder(turned).mean(1), encoder(images).mean(1), atol=1e-3)


def test_states_begin_with_the_patches_and_end_in_the_output(images: Tensor) -> None:
    encoder = vit()
    states = encoder.states(images)
    assert [state.shape for state in states] == [(B, N, 16)] * 3
    assert torch.equal(states[-1], encoder(images))


def test_sincos_positions_in_closed_form() -> None:
    positions = sincos_positions((3, 5), 8)
    assert positions.shape == (15, 8)
    y, x = 2, 4
    slow = 10_000.0**-0.5
    expected = [f(v * w) for v in (y, x) for f in (math.sin, math.cos) for w in (1.0, slow)]
    assert torch.allclose(positions[y * 5 + x], torch.tensor(expected), atol=1e-6)
    assert torch.allclose(positions.square().sum(1), torch.full((15,), 4.0))  # sin^2 + cos^2 for each rate
    assert torch.unique(positions, dim=0).shape[0] == 15


def test_another_grid_is_laid_over_the_same_area() -> None:
    """Its cells have the mean coordinates of the cells that they cover; of the grid itself, rows and columns."""
    assert torch.equal(sincos_positions((4, 6), 8, (4, 6)), sincos_positions((4, 6), 8))
    positions = sincos_positions((2, 2), 8, (4, 6)).view(2, 2, 8)
    slow = 10_000.0**-0.5
    for (row, y), (column, x) in itertools.product(enumerate((0.5, 2.5)), enumerate((1.0, 4.0))):
        expected = [f(v * w) for v in (y, x) for f in (math.sin, math.cos) for w in (1.0, slow)]
        torch.testing.assert_close(positions[row, column], torch.tensor(expected))
    finer = sincos_positions(
        (3, 1), 8, (1, 1)
    )  # three rows of a single patch: a third of a patch apart, about its centre
    torch.testing.assert_close(finer[:, 0], torch.tensor([-1 / 3, 0, 1 / 3]).sin())


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.parametrize("size", [(8, 8), (8, 24), (32, 16)])
def test_images_of_other_sizes_are_read_patch_by_patch(settings: dict, size: tuple[int, int]) -> None:
    """Square or not: a latent for each patch, and nothing of the patches that are not read."""
    encoder, grid = vit(**settings), (size[0] // PATCH, size[1] // PATCH)
    images = torch.randn(B, 3, *size, generator=generator_for(0, "other sizes"))
    assert encoder.grid_of(images) == grid
    assert encoder(images).shape == (B, grid[0] * grid[1], 16)
    last = grid[0] * grid[1] - 1
    other = images.clone()
    other[:, :, -PATCH:, -PATCH:] += 1  # the last patch
    visible = torch.arange(last).expand(B, -1)
    assert torch.equal(encoder(images, visible), encoder(other, visible))
    assert not torch.equal(encoder(images)[:, :last], encoder(other)[:, :last])
    with pytest.raises(ConfigError, match="images of 8 x 10 pixels cannot be cut into patches of 4"):
        encoder(torch.zeros(1, 3, 8, 10))


def test_equal_patches_differ_by_their_positions_on_any_grid() -> None:
    encoder = vit()
    tokens = encoder.tokens(torch.zeros(1, 3, 8, 12), None, None)[0]  # [6, D] grey patches
    torch.testing.assert_close(tokens - encoder.stem(torch.zeros(3 * PATCH**2)), sincos_positions((2, 3), 16, (4, 4)))


def test_sincos_products_depend_on_the_distance_alone() -> None:
    grid = sincos_positions((6, 6), 32).view(6, 6, 32)
    assert torch.allclose((grid[0, 1] * grid[2, 4]).sum(), (grid[3, 2] * grid[5, 5]).sum(), atol=1e-4)


def test_sincos_positions_are_not_trained() -> None:
    assert "position_embedding" not in dict(vit().named_parameters())


@pytest.mark.parametrize("patch", [2, 3, 4, 6, 8, 12, 16])
def test_a_conv_stem_shrinks_each_patch_to_one_position(patch: int) -> None:
    assert conv_stem(patch, 32)(torch.randn(1, 3, 48, 48)).shape == (1, 32, 48 // patch, 48 // patch)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"patch": 5}, "divide data.size"), ({"dim": 18}, "divisible by 4"), ({"heads": 3}, "3 heads")],
)
def test_sizes_that_do_not_fit_are_named(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        vit(**settings)


def test_a_patch_that_convolutions_cannot_shrink_is_named() -> None:
    with pytest.raises(ConfigError, match="patch of 5"):
        conv_stem(5, 16)
