"""Whole images and whole captions in one space, and a predictor from each to the other.

There are no negatives: a regulariser on either side, in the loss, prevents collapse.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openjepa.core.pairs import Captions, Pairs
from openjepa.core.progress import Progress
from openjepa.models.caption_reader import CaptionReader
from openjepa.models.predictors import mlp
from openjepa.models.target import EMATarget, Frozen, MomentumConfig
from openjepa.models.transformer import mean_pool


class Projections(nn.Module):
    """An MLP for whole images and one for whole captions, into the space in which they are compared."""

    def __init__(self, image_dim: int, text_dim: int, dim: int, width: int) -> None:
        super().__init__()
        self.image = mlp([image_dim, width, dim])
        self.text = mlp([text_dim, width, dim])

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """images [B, D], texts [B, E] -> both [B, Z]."""
        return self.image(images), self.text(texts)


class CrossModal(nn.Module):
    """The projections of both modalities, a predictor in each direction, and the networks that make their targets.

    With `momentum` the targets come from EMA copies: of the projections and, where it is trained, of the text encoder
    (the method's target encoder reads the images for targets). Without, both sides are each other's targets with their
    gradient.
    """

    def __init__(
        self, image_dim: int, reader: CaptionReader, dim: int, width: int, momentum: MomentumConfig | None
    ) -> None:
        super().__init__()
        self.projections = Projections(image_dim, reader.width, dim, width)
        self.to_image = mlp([dim, width, dim])
        self.to_text = mlp([dim, width, dim])
        self.target_projections: EMATarget | None = None
        self.target_text_encoder: EMATarget | None = None
        if momentum is not None:
            self.target_projections = EMATarget(self.projections, momentum.schedule())
            if not isinstance(reader.encoder, Frozen):
                self.target_text_encoder = EMATarget(reader.encoder, momentum.schedule())

    def forward(self, images: Tensor, target_images: Tensor, captions: Captions, reader: CaptionReader) -> Pairs:
        """The mean latents of whole images [B, D], by the vision encoder and by its target encoder -> pairs.

        `captions` are those of these images, as tokens; `reader` encodes them.
        """
        texts = reader.whole(captions)  # [B, E]
        image, text = self.projections(images, texts)  # each [B, Z]
        image_target = image
        text_target = text
        if self.target_projections is not None:
            target_texts = self.target_texts(texts, captions)  # [B, E]
            image_target, text_target = self.target_projections(target_images, target_texts)
        return Pairs(image, text, self.to_image(text), self.to_text(image), image_target, text_target)

    @torch.no_grad()
    def target_texts(self, texts: Tensor, captions: Captions) -> Tensor:
        """Text latents for the targets [B, E]: `texts` themselves if their encoder is frozen, else its EMA copy's."""
        if self.target_text_encoder is None:
            return texts
        return mean_pool(self.target_text_encoder(captions.ids, captions.valid), captions.valid)

    def update(self, reader: CaptionReader, progress: Progress) -> None:
        """Move the copies after an optimiser step."""
        if self.target_text_encoder is not None:
            self.target_text_encoder.update(reader.encoder, progress)
        if self.target_projections is not None:
            self.target_projections.update(self.projections, progress)
