"""Several views of an image: the loss between them has its closed forms, and their batches hide what they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from openjepa.core.errors import ConfigError
from openjepa.core.experiment import Sample
from openjepa.core.seeding import generator_for
from openjepa.data.images.augment import AugmentConfig
from openjepa.data.images.batches import Crops, ImageViews, ViewCollator
from openjepa.objectives.latent import mse
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer, regularize_views, sigreg, vicreg
from openjepa.objectives.views import distance_to_global_mean

B, Z, S = 5, 8, 12


def latents(views: int, draw: int = 0) -> Tensor:
    return torch.randn(views, B, Z, generator=generator_for(0, "views", draw))


@pytest.mark.parametrize(("global_count", "local_count"), [(1, 1), (2, 0), (2, 6), (3, 2), (5, 0)])
def test_every_view_is_measured_from_the_mean_of_the_global_ones(global_count: int, local_count: int) -> None:
    views = latents(global_count + local_count)
    centre = sum(views[:global_count]) / global_count  # [B, Z]
    expected = sum((view - centre).square().mean(1) for view in views) / len(views)
    torch.testing.assert_close(distance_to_global_mean(views, views[:global_count]), expected)


def test_of_two_global_views_it_is_a_quarter_of_their_squared_distance_to_the_last_digit() -> None:
    for draw in range(50):
        first, second = views = latents(2, draw)
        assert torch.equal(4 * distance_to_global_mean(views, views), mse(first, second))


def test_local_views_learn_from_global_ones_and_hardly_teach_them() -> None:
    """The gradient of a local view's distance moves it to the mean; without local views there is another mean."""
    views = latents(3).requires_grad_()
    distance_to_global_mean(views, views[:2]).sum().backward()
    assert views.grad is not None
    gap = (views[2] - views[:2].mean(0)).detach()
    torch.testing.assert_close(views.grad[2], 2 * gap / (3 * Z))


def test_equal_views_are_at_distance_0_and_order_does_not_matter() -> None:
    same = latents(1).expand(4, B, Z)
    assert distance_to_global_mean(same, same[:2]).abs().max() < 1e-12
    views = latents(4)
    torch.testing.assert_close(
        distance_to_global_mean(views, views[:2]), distance_to_global_mean(views[[1, 0, 3, 2]], views[[1, 0]])
    )


def test_each_view_is_regularised_by_itself_and_their_terms_are_averaged() -> None:
    views = latents(3)
    regularizer = build_regularizer(RegularizerConfig(name="vicreg", weight=2.0))
    found = regularize_views(regularizer, views.unbind(), 7)
    assert set(found) == {"variance", "covariance"}
    for name, value in found.items():
        torch.testing.assert_close(value, 2 * sum(vicreg(view)[name] for view in views) / 3)
    found = regularize_views(build_regularizer(RegularizerConfig(name="sigreg")), views.unbind(), 7)
    torch.testing.assert_close(found["sigreg"], sum(sigreg(view, 7)["sigreg"] for view in views) / 3)


def collate(global_count: int, local_count: int) -> ImageViews:
    crop, local = AugmentConfig(area=(0.5, 1.0)), AugmentConfig(area=(0.1, 0.2))
    collator = ViewCollator((3, 3), Crops(global_count, crop, S), Crops(local_count, local, S // 3))
    images = torch.randint(0, 256, (B, S, S, 3), generator=generator_for(0, "images")).to(torch.uint8).numpy()
    return collator([Sample(image, generator_for(0, "sample", 0, i), i) for i, image in enumerate(images)])


def test_views_come_in_two_sizes_and_all_differ() -> None:
    batch = collate(2, 3)
    assert batch.global_views.shape == (B, 2, 3, S, S)
    assert batch.local_views.shape == (B, 3, 3, S // 3, S // 3)
    for views in (batch.global_views, batch.local_views):
        assert len(torch.unique(views.flatten(2), dim=1)[0]) == views.shape[1]
    alone = collate(2, 0)
    assert torch.equal(alone.global_views, batch.global_views)  # whatever else is drawn
    assert alone.local_views.shape == (B, 0, 3, S // 3, S // 3)
    assert torch.equal(alone.images, batch.images)


@pytest.mark.parametrize(("global_count", "local_count"), [(2, 0), (3, 0), (1, 1), (2, 4)])
def test_all_views_but_the_context_are_hidden(global_count: int, local_count: int) -> None:
    batch = collate(global_count, local_count)
    other = batch.with_other_hidden(generator_for(0, "other"))
    assert torch.equal(batch.context_view, other.context_view)
    same = 0
    for mine, theirs in ((batch.global_views, other.global_views), (batch.local_views, other.local_views)):
        same += sum(torch.equal(a, b) for a, b in zip(mine.unbind(1), theirs.unbind(1), strict=True))
    assert same == 1
    assert batch.context_view.shape[-1] == (S // 3 if local_count else S)


def test_one_view_is_too_few() -> None:
    with pytest.raises(ConfigError, match="raise global_views or local_views"):
        collate(1, 0)
