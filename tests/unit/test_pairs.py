"""The loss between two modalities: closed-form values, what has a gradient, and no negatives."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from openjepa.core.pairs import Captions, Pairs
from openjepa.core.progress import Progress
from openjepa.models.caption_reader import CaptionReader, Context
from openjepa.models.cross_modal import CrossModal
from openjepa.models.target import MomentumConfig
from openjepa.objectives.pairs import PairsConfig, build_pair_loss
from openjepa.objectives.regularizers import RegularizerConfig, sigreg


def rows(seed: int, count: int = 20) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def test_terms_are_mean_squares_and_the_mean_of_both_regularisers() -> None:
    image, text, image_target, text_target = (rows(seed) for seed in range(4))
    config = PairsConfig(weight=2.0, spread=RegularizerConfig(name="sigreg", weight=3.0))
    terms = build_pair_loss(config)(Pairs(image, text, image_target + 0.5, text_target, image_target, text_target), 7)
    assert float(terms["image_from_text"]) == pytest.approx(2 * 0.25)
    assert float(terms["text_from_image"]) == 0
    both = (sigreg(image, 7)["sigreg"] + sigreg(text, 7)["sigreg"]) / 2
    assert float(terms["pairs_sigreg"]) == pytest.approx(2 * 3 * float(both), rel=1e-5)


def test_predictions_learn_from_their_targets_and_both_sides_from_the_regulariser() -> None:
    parts = [rows(seed).requires_grad_() for seed in range(6)]
    terms = build_pair_loss(PairsConfig())(Pairs(*parts), 0)
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
        torch.stack(list(loss(Pairs(*parts), 0).values())).sum().backward()
        predicted = parts[2]
        assert predicted.grad is not None
        return predicted.grad[0]

    assert torch.allclose(gradient(10), gradient(20))


class Lengths(nn.Module):
    """A text encoder whose latents of a token are its id in each of 5 dimensions, times a weight."""

    dim, max_len = 5, 8

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(self.dim))

    def forward(self, ids: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return ids[..., None] * self.weight


def captions(*texts: list[int]) -> Captions:
    ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True, padding_value=99)
    return Captions(ids, ids != 99)


def cross_modal(momentum: MomentumConfig | None, learns: bool = True) -> tuple[CrossModal, CaptionReader]:
    torch.manual_seed(0)
    reader = CaptionReader(Lengths(), learns, dim=6)
    return CrossModal(6, reader, 8, 16, momentum), reader


def test_each_side_is_predicted_from_the_other_alone() -> None:
    between, reader = cross_modal(None)
    images, texts, others = torch.randn(3, 6), captions([1, 2], [3], [5, 5, 5]), captions([5, 5, 5], [3], [1, 2])
    pairs, other = between(images, images, texts, reader), between(images, images, others, reader)
    assert all(part.shape == (3, 8) for part in pairs)
    assert pairs.image_target is pairs.image
    assert pairs.text_target is pairs.text
    assert torch.equal(pairs.text_from_image, other.text_from_image)
    assert torch.equal(pairs.image_from_text, between(images.flip(0), images, texts, reader).image_from_text)
    # a row's position in a product may change its last bit, depending on the CPU
    torch.testing.assert_close(pairs.image_from_text, other.image_from_text.flip(0))


def test_padding_is_no_part_of_a_caption_and_known_states_are_not_computed_again() -> None:
    _, reader = cross_modal(None)
    texts = captions([1, 2], [3])
    torch.testing.assert_close(reader.whole(texts), torch.tensor([[1.5] * 5, [3.0] * 5]))
    known = torch.full((2, 2, 5), 7.0)
    assert torch.equal(reader.whole(texts._replace(states=known)), torch.full((2, 5), 7.0))


@pytest.mark.parametrize("learns", [True, False])
def test_targets_are_those_of_copies_that_follow(learns: bool) -> None:
    between, reader = cross_modal(MomentumConfig(start=0.75, final=0.75), learns)
    images, texts = torch.randn(3, 6), captions([1, 2], [3], [5, 5, 5])
    before = between(images, images, texts, reader)
    torch.testing.assert_close(before.text_target, before.text)  # a fresh copy is the original
    assert not before.text_target.requires_grad
    assert between(images, images + 1, texts, reader).text.equal(before.text)
    assert not between(images, images + 1, texts, reader).image_target.equal(before.image_target)
    assert (between.target_text_encoder is None) != learns
    with torch.no_grad():
        between.projections.text[0].weight.add_(4.0)
        weight = reader.encoder.weight if learns else reader.encoder.module.weight
        weight.add_(4.0 if learns else 0.0)
    expected = between.target_projections.module.text[0].weight + 1.0  # a quarter of the way
    between.update(reader, Progress(0, 10))
    torch.testing.assert_close(between.target_projections.module.text[0].weight, expected)
    if learns:
        torch.testing.assert_close(between.target_text_encoder.module.weight, torch.full((5,), 2.0))


def test_words_stand_behind_the_patches_and_silence_changes_nothing() -> None:
    _, reader = cross_modal(None)
    patches = Context(torch.randn(2, 3, 6), torch.tensor([[0, 4, 7]] * 2), torch.tensor([[True, True, False]] * 2))
    seen = reader.append_words(patches, captions([1, 2], [3]), 9)
    assert seen.positions.tolist() == [[0, 4, 7, 9, 10]] * 2
    assert seen.valid.tolist() == [[True, True, False, True, True], [True, True, False, True, False]]
    assert torch.equal(seen.latents[:, :3], patches.latents)
    torch.testing.assert_close(seen.latents[1, 3], reader.join(torch.full((5,), 3.0)))
    silent = Captions(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0, dtype=torch.bool))
    assert reader.append_words(patches, silent, 9) is patches
