"""A decoder-only transformer, GPT-2 style: the text encoder under a causal mask, and its token table as output head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from openjepa.core.config import BaseConfig
from openjepa.core.vocabulary import NamedEncoder
from openjepa.models.lora import LoraConfig
from openjepa.models.transformer import TextEncoder

INIT_STD = 0.02  # GPT-2's, for words and positions alike: the order of numbers decides a problem
RESIDUAL = ("out.weight", "mlp.2.weight")  # layers that add to the residual stream: scaled by depth, as in GPT-2


class DecoderConfig(BaseConfig):
    """Which decoder is trained."""

    LOCATIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"name": ()}
    FIRST = ("name", "dim", "depth", "heads", "max_len")

    name: str | None = None
    """language model of transformers (hub id or local folder), unset = OpenJEPA's own with the sizes below"""
    weights: bool = True
    """start a named decoder from its pretrained weights; false = only its architecture, from its config"""
    dim: int = Field(128, ge=8)
    """width of the latents"""
    depth: int = Field(3, ge=1, le=512)
    """transformer blocks"""
    heads: int = Field(4, ge=1)
    """attention heads; must divide dim"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """in embeddings and MLPs"""
    max_len: int = Field(96, ge=8)
    """longest row (question, answer and two marks) in tokens, at most a named decoder's limit; longer ones are
    dropped and counted"""
    lr_scale: float = Field(1.0, gt=0)
    """learning rate of the decoder relative to train.lr"""
    lora: LoraConfig = LoraConfig()
    """adapters of a named decoder"""

    @model_validator(mode="after")
    def _adapters_have_a_model(self) -> Self:
        if self.lora.rank and self.name is None:
            raise ValueError("lora.rank puts adapters into a pretrained decoder; set decoder.name, or lora.rank=0")
        return self

    def unused_here(self) -> set[str]:
        if self.name is None:
            return {"weights", "lora"}
        return {"dim", "depth", "heads", "dropout"} | (set() if self.lora.rank else {"lora"})

    def named_in(self, section: str) -> NamedEncoder:
        """The decoder that its tokenizer has to fit; `section` is where this stands in the configuration."""
        return NamedEncoder(self.name, self.weights, section)


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
