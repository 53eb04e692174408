"""Captions as a predictor of patches reads them: a text encoder, and its words in the space of the patches."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from openjepa.models.target import Frozen
from openjepa.models.transformer import mean_pool


class CaptionReader(nn.Module):
    """A text encoder that learns or is frozen, and a linear map from its width to that of the vision encoder."""

    def __init__(self, encoder: Any, learns: bool, words: Literal["tokens", "mean"], dim: int) -> None:
        super().__init__()
        self.max_len, self.width, self.words = encoder.max_len, int(encoder.dim), words
        self.join = nn.Linear(encoder.dim, dim)  # its bias tells words from patches
        self.encoder = encoder if learns else Frozen(encoder)

    def forward(self, ids: Tensor, valid: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """ids, valid [B, T] -> latents of the tokens, or of their mean (T = 1), [B, T, D]; which are real [B, T].

        `states` are what the encoder says of these tokens [B, T, E], if that is known already.
        """
        if states is None:
            states = self.encoder(ids, valid)  # [B, T, E]
        if self.words == "mean":
            states, valid = mean_pool(states, valid)[:, None], valid[:, :1]
        return self.join(states), valid
