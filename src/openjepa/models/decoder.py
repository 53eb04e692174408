"""A decoder-only transformer, GPT-2 style: the text encoder under a causal mask, and its token table as output head."""

from __future__ import annotations

import math

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from openjepa.core.config import BaseConfig
from openjepa.models.transformer import TextEncoder

INIT_STD = 0.02  # GPT-2's, for words and positions alike: the order of numbers decides a problem
RESIDUAL = ("out.weight", "mlp.2.weight")  # layers that add to the residual stream: scaled by depth, as in GPT-2


class DecoderConfig(BaseConfig):
    """Sizes of the decoder."""

    FIRST = ("dim", "depth", "heads", "max_len")

    dim: int = Field(128, ge=8)
    """width of the latents"""
    depth: int = Field(3, ge=1, le=512)
    """transformer blocks"""
    heads: int = Field(4, ge=1)
    """attention heads; must divide dim"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """in embeddings and MLPs"""
    max_len: int = Field(96, ge=8)
    """longest row (question, answer and two marks) in tokens; longer ones are dropped and counted"""


class Decoder(TextEncoder):
    """A decoder: `forward` gives latents under a given mask, `log_probabilities` those of tokens.

    The head is the token table itself (tied, Press & Wolf 2017): 50 k x 512 weights need not be learned twice.
    """

    def __init__(self, config: DecoderConfig, vocab: int) -> None:
        super().__init__(vocab, config.dim, config.depth, config.heads, config.max_len, config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_STD)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for name, weight in self.trunk.named_parameters():
            if name.endswith(RESIDUAL):
                nn.init.normal_(weight, std=INIT_STD / math.sqrt(2 * config.depth))

    def log_probabilities(self, latents: Tensor, ids: Tensor) -> Tensor:
        """Latents [..., D] and the tokens that follow them [...] -> [...] log-probabilities of these, in nats."""
        logits = F.linear(latents, self.token.weight)  # [..., V]
        return -F.cross_entropy(logits.flatten(0, -2).float(), ids.flatten(), reduction="none").view(ids.shape)
