"""Captions as inputs of a patch predictor: a text encoder, and a map from its latents to the space of the patches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from openjepa.core.experiment import BuildContext
from openjepa.core.pairs import Captions
from openjepa.core.vocabulary import Vocabulary
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.pretrained import PretrainedEncoder
from openjepa.models.target import Frozen
from openjepa.models.transformer import TextEncoder, mean_pool


class Context(NamedTuple):
    """A predictor's inputs besides its mask tokens."""

    latents: Tensor  # [B, S, D]
    positions: Tensor  # [B, S] int64
    valid: Tensor  # [B, S] bool


class CaptionReader(nn.Module):
    """A trained or frozen text encoder, and a linear map from its width to that of the vision encoder."""

    def __init__(self, encoder: TextEncoder | PretrainedEncoder, learns: bool, dim: int) -> None:
        super().__init__()
        self.max_len = encoder.max_len
        self.width = encoder.dim
        self.join = nn.Linear(encoder.dim, dim)  # its bias is the modality embedding
        self.encoder = encoder if learns else Frozen(encoder)

    def states(self, captions: Captions) -> Tensor:
        """[B, T, E] latents of all tokens in the text encoder's space, computed unless they are cached."""
        return self.encoder(captions.ids, captions.valid) if captions.states is None else captions.states

    def whole(self, captions: Captions) -> Tensor:
        """[B, E] the mean of each caption's tokens in the text encoder's space."""
        return mean_pool(self.states(captions), captions.valid)

    def append_words(self, patches: Context, captions: Captions, first: int) -> Context:
        """`patches`, followed by the words of the captions, if there are any, at positions from `first` on."""
        if captions.ids.shape[1] == 0:
            return patches
        words = self.join(self.states(captions)).to(patches.latents.dtype)  # [B, T, D]
        positions = first + torch.arange(words.shape[1], device=words.device)  # [T]
        return Context(
            torch.cat([patches.latents, words], 1),
            torch.cat([patches.positions, positions.expand_as(captions.ids)], 1),
            torch.cat([patches.valid, captions.valid], 1),
        )


def build_reader(
    config: EncoderConfig, learns: bool, vocab: Vocabulary, dim: int, context: BuildContext
) -> CaptionReader:
    """The reader with the text encoder of this config, for patches of width `dim`."""
    return CaptionReader(build_encoder(config, vocab, context, "text_encoder"), learns, dim)
