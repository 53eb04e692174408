"""Captions as a predictor of patches reads them: a text encoder, and its words in the space of the patches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from openjepa.core.config import BaseConfig
from openjepa.core.experiment import BuildContext
from openjepa.core.vocabulary import Vocabulary
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.pretrained import PretrainedEncoder
from openjepa.models.target import Frozen
from openjepa.models.transformer import TextEncoder, mean_pool
from openjepa.models.vision import VisionConfig

Seen = tuple[Tensor, Tensor, Tensor]  # latents [B, S, D], their places [B, S], which are real [B, S]


Words = Literal["tokens", "mean"]


class EncodersConfig(BaseConfig):
    """The encoders of images and of captions, and which of them learn."""

    encoder: VisionConfig = VisionConfig()
    text_encoder: EncoderConfig = EncoderConfig(depth=2, max_len=32)
    train_vision: bool | None = None
    """whether the vision encoder learns; unset = own encoders do, those with a name are frozen"""
    train_text: bool | None = None
    """whether the text encoder learns; unset = own encoders do, those with a name are frozen"""
    words: Words = "tokens"
    """whether the predictor reads every token of the caption or their mean"""

    @property
    def vision_learns(self) -> bool:
        return self.encoder.name is None if self.train_vision is None else self.train_vision

    @property
    def text_learns(self) -> bool:
        return self.text_encoder.name is None if self.train_text is None else self.train_text


class CaptionReader(nn.Module):
    """A text encoder that learns or is frozen, and a linear map from its width to that of the vision encoder."""

    def __init__(self, encoder: TextEncoder | PretrainedEncoder, learns: bool, words: Words, dim: int) -> None:
        super().__init__()
        self.max_len, self.width, self.words = encoder.max_len, encoder.dim, words
        self.join = nn.Linear(encoder.dim, dim)  # its bias tells words from patches
        self.encoder = encoder if learns else Frozen(encoder)

    def forward(self, ids: Tensor, valid: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """ids, valid [B, T] -> latents of the tokens, or of their mean (T = 1), [B, T, D]; which are real [B, T].

        `states` are what the encoder says of these tokens [B, T, E], if that is known already.
        """
        states = self.encoder(ids, valid) if states is None else states  # [B, T, E]
        if self.words == "mean":
            states, valid = mean_pool(states, valid)[:, None], valid[:, :1]
        return self.join(states), valid

    def whole(self, ids: Tensor, valid: Tensor, states: Tensor | None = None) -> Tensor:
        """The mean of each caption's tokens in the text encoder's own space [B, E]; arguments as `forward`."""
        return mean_pool(self.encoder(ids, valid) if states is None else states, valid)

    def beside(self, seen: Seen, first: int, ids: Tensor, valid: Tensor, states: Tensor | None = None) -> Seen:
        """`seen` and behind it the words of the captions, at places from `first` on; arguments as `forward`."""
        context, places, shown = seen
        words, real = self(ids, valid, states)  # [B, T, D], [B, T]
        at = first + torch.arange(real.shape[1], device=real.device)  # [T]
        parts = ([context, words.to(context.dtype)], [places, at.expand_as(real)], [shown, real])
        one, two, three = (torch.cat(part, 1) for part in parts)  # [B, S + T, ...]
        return one, two, three


def build_reader(config: EncodersConfig, vocab: Vocabulary, dim: int, context: BuildContext) -> CaptionReader:
    """The reader with the text encoder of this config, for patches of width `dim`."""
    encoder = build_encoder(config.text_encoder, vocab, context, "text_encoder")
    return CaptionReader(encoder, config.text_learns, config.words, dim)
