"""Random views: each has its own address, stays in its image, and every operation is what its name says."""

from __future__ import annotations

import colorsys
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.core.errors import ConfigError
from openjepa.core.seeding import generator_for
from openjepa.data.images.augment import DRAWS, AugmentConfig, augment, colour_matrices, contrasts, crops, recolour

B, S = 6, 16
STRONG = AugmentConfig(area=(0.3, 1.0), flip=0.5, jitter=0.8, grey=0.2)


def generators(count: int = B) -> list[torch.Generator]:
    return [generator_for(0, "sample", 0, i) for i in range(count)]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(B, 3, S, S, generator=generator_for(0, "images")) * 2 - 1


def middling(**columns: float) -> Tensor:
    """[1, 6] colour draws that change nothing but what is named by column."""
    draws = torch.tensor([[0.0, 0.5, 0.5, 0.5, 0.5, 1.0]])
    for name, value in columns.items():
        draws[0, ("jitter", "brightness", "contrast", "saturation", "hue", "grey").index(name)] = value
    return draws


def test_nothing_asked_for_nothing_done(images: Tensor) -> None:
    assert torch.equal(augment(images, AugmentConfig(), generators()), images)


def test_a_view_may_have_another_size(images: Tensor) -> None:
    """A small view is the large one of the same draws with fewer pixels; without a crop it is the whole image."""
    ramp = torch.linspace(-1, 1, S).expand(B, 3, S, S)  # from left to right: interpolation is exact
    config = AugmentConfig(area=(0.3, 0.6), flip=0.5)
    large, small = (augment(ramp, config, generators(), pixels) for pixels in (S, S // 2))
    assert small.shape == (B, 3, S // 2, S // 2)
    inside = slice(1, -1)  # at the border of an image a pixel is repeated
    torch.testing.assert_close(small[..., inside], F.avg_pool2d(large, 2)[..., inside], atol=1e-5, rtol=1e-5)
    assert torch.equal(augment(images, STRONG, generators(), S), augment(images, STRONG, generators()))
    whole = augment(ramp, AugmentConfig(), generators(), S // 2)
    torch.testing.assert_close(whole, F.avg_pool2d(ramp, 2), atol=1e-5, rtol=1e-5)


def test_a_view_is_a_function_of_its_image_and_generator(images: Tensor) -> None:
    together = augment(images, STRONG, generators())
    alone = augment(images[3:4], STRONG, generators()[3:4])
    assert torch.allclose(together[3:4], alone, atol=1e-5)
    assert torch.equal(together, augment(images, STRONG, generators()))


def test_every_setting_takes_the_same_draws(images: Tensor) -> None:
    """So that what is drawn afterwards (masks) does not depend on the augmentation."""
    states = []
    for config in (AugmentConfig(), STRONG):
        used = generators()
        augment(images, config, used)
        states.append([torch.rand(1, generator=g).item() for g in used])
    assert states[0] == states[1]
    fresh = generator_for(0, "sample", 0, 0)
    torch.rand(DRAWS, generator=fresh)
    assert states[0][0] == torch.rand(1, generator=fresh).item()


def test_views_stay_in_range(images: Tensor) -> None:
    views = augment(images, STRONG, generators())
    assert views.shape == images.shape
    assert views.abs().max() <= 1


def test_a_mirror_is_exact(images: Tensor) -> None:
    flipped = augment(images, AugmentConfig(flip=1.0), generators())
    assert torch.allclose(flipped, images.flip(-1), atol=1e-5)


def test_a_crop_shows_a_part_of_the_image() -> None:
    """On an image whose red is x and whose green is y, a view tells which part it shows."""
    along = (torch.arange(S) + 0.5) / S * 2 - 1
    image = torch.stack([along.expand(S, S), along[:, None].expand(S, S), torch.zeros(S, S)])
    config = AugmentConfig(area=(0.2, 0.9), aspect=(0.5, 2.0))
    views = augment(image.expand(200, -1, -1, -1), config, generators(200))
    width = (views[:, 0, 0, -1] - views[:, 0, 0, 0]) / (2 * (S - 1) / S)  # parts of the image
    height = (views[:, 1, -1, 0] - views[:, 1, 0, 0]) / (2 * (S - 1) / S)
    draws = torch.stack([torch.rand(DRAWS, generator=g) for g in generators(200)])
    theta = crops(draws[:, :5], config)
    inner = (width < 0.9) & (height < 0.9)  # at the image's border there is nothing to see but its last pixel
    assert torch.allclose(theta[inner, 0, 0], width[inner], atol=0.03)
    assert torch.allclose(theta[inner, 1, 1], height[inner], atol=0.03)
    area = theta[:, 0, 0] * theta[:, 1, 1]
    assert area.min() > 0.19
    assert area.max() < 0.91
    assert (theta[:, 0, 0].log() - theta[:, 1, 1].log()).abs().max() < math.log(2.05)
    assert ((theta[:, :, 2].abs() + torch.stack([theta[:, 0, 0], theta[:, 1, 1]], 1)) <= 1 + 1e-5).all()  # inside


def test_crops_reach_every_border() -> None:
    uniform = torch.rand(5000, 5, generator=generator_for(0))
    theta = crops(uniform, AugmentConfig(area=(0.25, 0.25), aspect=(1.0, 1.0)))
    assert torch.allclose(theta[:, 0, 0], torch.tensor(0.5))
    assert theta[:, :, 2].min() < -0.49
    assert theta[:, :, 2].max() > 0.49


@pytest.mark.parametrize("turn", [0.25, 0.5, -0.25])
def test_hue_turns_the_chroma_and_keeps_the_luma(turn: float) -> None:
    config = AugmentConfig(jitter=1.0, hue=0.5)
    matrix = colour_matrices(middling(hue=(turn / 0.5 + 1) / 2), config)[0]
    for rgb in ((0.6, 0.4, 0.3), (0.3, 0.5, 0.6)):
        y, i, q = colorsys.rgb_to_yiq(*rgb)
        moved = colorsys.rgb_to_yiq(*(matrix @ torch.tensor(rgb)).tolist())
        angle = 2 * math.pi * turn
        expected = (y, i * math.cos(angle) - q * math.sin(angle), i * math.sin(angle) + q * math.cos(angle))
        assert moved == pytest.approx(expected, abs=0.02)  # Python's YIQ has rounded coefficients of its own
    assert torch.allclose(matrix @ torch.full((3,), 0.5), torch.full((3,), 0.5), atol=2e-3)  # grey stays grey


def test_saturation_brightness_and_grey() -> None:
    config = AugmentConfig(jitter=1.0, hue=0.0, saturation=1.0, brightness=0.5)
    colour = torch.tensor([0.8, 0.4, 0.2])
    luma = colour @ torch.tensor([0.299, 0.587, 0.114])
    pale = colour_matrices(middling(saturation=0.0), config)[0] @ colour
    assert torch.allclose(pale, luma.expand(3), atol=2e-3)
    dark = colour_matrices(middling(brightness=0.0), config)[0] @ colour
    assert torch.allclose(dark, colour / 2, atol=2e-3)
    grey = colour_matrices(middling(grey=0.0), AugmentConfig(grey=0.5))[0] @ colour
    assert torch.allclose(grey, luma.expand(3), atol=2e-3)
    same = colour_matrices(middling(), config)[0]
    assert torch.allclose(same, torch.eye(3), atol=2e-3)


def test_contrast_scales_the_distance_from_the_mean() -> None:
    config = AugmentConfig(jitter=1.0, contrast=0.5)
    factor = contrasts(middling(contrast=0.0), config)
    assert factor.item() == pytest.approx(0.5)
    image = torch.rand(1, 3, 4, 4, generator=generator_for(0)) * 0.4 - 0.2
    changed = recolour(image, torch.eye(3)[None], factor)
    assert torch.allclose(changed - image.mean(), 0.5 * (image - image.mean()), atol=1e-6)


def test_jitter_is_as_frequent_as_asked() -> None:
    draws = torch.rand(4000, 6, generator=generator_for(0))
    changed = (colour_matrices(draws, AugmentConfig(jitter=0.3)) - torch.eye(3)).abs().amax((1, 2)) > 0.01
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("bad", [{"area": [0.5, 0.2]}, {"area": [0.5, 1.5]}, {"aspect": [0, 1]}])
def test_impossible_ranges_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        AugmentConfig.load(bad)
