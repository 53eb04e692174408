"""The loss between two modalities: closed-form values, what has a gradient, and no negatives."""

from __future__ import annotations

import pytest
import torch

from openjepa.core.errors import ConfigError
from openjepa.models.cross_modal import CrossModal
from openjepa.objectives.pairs import PairsConfig, build_pair_loss
from openjepa.objectives.regularizers import RegularizerConfig, sigreg


def rows(seed: int, count: int = 20) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def test_terms_are_mean_squares_and_the_mean_of_both_regularisers() -> None:
    image, text, image_target, text_target = (rows(seed) for seed in range(4))
    config = PairsConfig(weight=2.0, spread=RegularizerConfig(name="sigreg", weight=3.0))
    terms = build_pair_loss(config)((image, text, image_target + 0.5, text_target, image_target, text_target), 7)
    assert float(terms["image_from_text"]) == pytest.approx(2 * 0.25)
    assert float(terms["text_from_image"]) == 0
    both = (sigreg(image, 7)["sigreg"] + sigreg(text, 7)["sigreg"]) / 2
    assert float(terms["pairs_sigreg"]) == pytest.approx(2 * 3 * float(both), rel=1e-5)


def test_predictions_learn_from_their_targets_and_both_sides_from_the_regulariser() -> None:
    parts = [rows(seed).requires_grad_() for seed in range(6)]
    terms = build_pair_loss(PairsConfig())((*parts,), 0)
    torch.stack(list(terms.values())).sum().backward()
    image, text, image_from_text, text_from_image, *_ = parts
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in (image, text))
    assert image_from_text.grad is not None
    torch.testing.assert_close(image_from_text.grad, 2 * (image_from_text - parts[4]).detach() / image.numel())
    assert text_from_image.grad is not None
    torch.testing.assert_close(text_from_image.grad, 2 * (text_from_image - parts[5]).detach() / image.numel())


def test_other_rows_are_no_negatives() -> None:
    """Without a regulariser each row has its own gradient, whatever the rest of the batch is."""
    loss = build_pair_loss(PairsConfig(spread=RegularizerConfig(name="none")))

    def gradient(others: int) -> torch.Tensor:
        parts = [torch.cat([rows(seed, 1), rows(others + seed, 9)]).requires_grad_() for seed in range(6)]
        torch.stack(list(loss((*parts,), 0).values())).sum().backward()
        predicted = parts[2]
        assert predicted.grad is not None
        return predicted.grad[0]

    assert torch.allclose(gradient(10), gradient(20))


def test_each_side_is_predicted_from_the_other_alone() -> None:
    torch.manual_seed(0)
    two_way = TwoWay(image_dim=6, text_dim=5, dim=8, width=16)
    images, texts = torch.randn(3, 6), torch.randn(3, 5)
    targets = torch.randn(3, 8), torch.randn(3, 8)
    pairs, other = two_way(images, texts, targets), two_way(images, texts.flip(0), targets)
    assert all(part.shape == (3, 8) for part in pairs)
    assert torch.equal(pairs.text_from_image, other.text_from_image)
    assert torch.equal(pairs.image_from_text, two_way(images.flip(0), texts, targets).image_from_text)
    assert (pairs.image_target, pairs.text_target) == targets
    # a row's place in a product may change its last bit, depending on the CPU
    torch.testing.assert_close(pairs.image_from_text, other.image_from_text.flip(0))


def test_captions_are_needed() -> None:
    with pytest.raises(ConfigError, match="text=caption"):
        build_two_way(8, None, 8, 16)
