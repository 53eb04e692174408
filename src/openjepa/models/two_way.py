"""Whole images and whole captions in one space, and a predictor from each to the other.

There are no negatives: that the two do not agree on a constant is the loss's task, by a regulariser on either.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from openjepa.core.errors import ConfigError
from openjepa.models.caption_reader import CaptionReader
from openjepa.models.predictors import mlp


class Pairs(NamedTuple):
    """Latents of B images with a caption each, and what is predicted of them from the other. All [B, Z]."""

    image: Tensor  # by the networks that learn
    text: Tensor
    image_from_text: Tensor  # predictions
    text_from_image: Tensor
    image_target: Tensor  # by the target networks without gradient, or `image` and `text` themselves
    text_target: Tensor


class Projections(nn.Module):
    """Whole images and whole captions into the space in which they are compared, by an MLP each."""

    def __init__(self, image_dim: int, text_dim: int, dim: int, width: int) -> None:
        super().__init__()
        self.image, self.text = mlp([image_dim, width, dim]), mlp([text_dim, width, dim])

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """images [B, D], texts [B, E] -> both [B, Z]."""
        return self.image(images), self.text(texts)


class TwoWay(nn.Module):
    """The projections of both modalities, and a predictor in each direction."""

    def __init__(self, image_dim: int, text_dim: int, dim: int, width: int) -> None:
        super().__init__()
        self.projections = Projections(image_dim, text_dim, dim, width)
        self.to_image, self.to_text = mlp([dim, width, dim]), mlp([dim, width, dim])

    def forward(self, images: Tensor, texts: Tensor, targets: tuple[Tensor, Tensor] | None = None) -> Pairs:
        """images [B, D] and texts [B, E] that belong together -> the loss's view of them.

        `targets` [B, Z] of both; None = they are each other's, as they are projected here.
        """
        image, text = self.projections(images, texts)  # [B, Z]
        return Pairs(image, text, self.to_image(text), self.to_text(image), *(targets or (image, text)))


def build_two_way(image_dim: int, reader: CaptionReader | None, dim: int, width: int) -> TwoWay:
    """For images of width `image_dim` and the captions of `reader`. Raises ConfigError where no text is read."""
    if reader is None:
        raise ConfigError("directions=both predicts captions from images: set text=caption, or directions=image")
    return TwoWay(image_dim, reader.width, dim, width)
