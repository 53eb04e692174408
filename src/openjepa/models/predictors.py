"""Predictors: from the latents of what is visible to the latents of what is hidden. Each is told WHERE it predicts.

Both share one signature, so a recipe can swap them: `predictor(context [B, V, D], context_positions [B, V],
context_valid [B, V], slots [B, H, D] | None, hidden_positions [B, H], hidden_valid [B, H]) -> [B, H, out_dim]`. `slots`
are the encoder's own latents at the hidden positions if it was given [MASK] there. Rows with fewer hidden positions
than H are padded: no prediction depends on what the padding holds.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from openjepa.core.config import BaseConfig
from openjepa.core.errors import ConfigError
from openjepa.models.attention import LOWEST
from openjepa.models.transformer import Trunk, key_mask, mean_pool


class PredictorConfig(BaseConfig):
    """From the context's latents to the hidden ones."""

    FIRST = ("kind", "width", "depth")

    kind: Literal["attention", "mlp"] = "attention"
    """attention over the context and mask tokens, or the original three-layer MLP"""
    width: int = Field(128, ge=8)
    """of the attention predictor, or of the MLP's bottleneck"""
    depth: int = Field(1, ge=1)
    """blocks of the attention predictor"""
    heads: int = Field(4, ge=1)
    """heads of the attention predictor"""


class SequencePredictorConfig(PredictorConfig):
    """The same where positions are in line, as in a text."""

    alibi: bool = False
    """attention falls off with the distance of two positions, in each head at a rate of its own; nothing else is known
    of positions, so rows may become longer than in training (attention predictor)"""


def build_predictor(config: PredictorConfig, dim: int, out_dim: int, max_len: int) -> nn.Module:
    """The configured predictor from latents of width `dim` to latents of width `out_dim`.

    Raises ConfigError for `alibi` where there is no attention over positions.
    """
    alibi = isinstance(config, SequencePredictorConfig) and config.alibi
    if alibi and config.kind == "mlp":
        raise ConfigError("predictor.alibi is about attention over positions: give predictor.kind=attention")
    if config.kind == "mlp":
        return MLPPredictor(dim, config.width, out_dim, max_len)
    sizes = (dim, config.width, out_dim, config.depth, config.heads, max_len)
    return AttentionPredictor(*sizes, alibi=alibi)


def mlp(dims: list[int]) -> nn.Sequential:
    """Linear layers of these widths with GELU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(dims):
        layers += [nn.Linear(a, b), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class ProjectorConfig(BaseConfig):
    """The head that a loss between views sees; embeddings are taken before it."""

    kind: Literal["mlp", "none"] = "mlp"
    """three layers, or nothing: the loss then sees the embeddings themselves, and shapes them sooner"""
    width: int = Field(512, ge=8)
    """of its two hidden layers"""
    out_dim: int = Field(128, ge=8)
    """of its output"""


def build_projector(config: ProjectorConfig, dim: int) -> nn.Module:
    """[..., dim] -> [..., out_dim] in three layers, with LayerNorm between them; or the identity.

    The papers' BatchNorm would make a row depend on its batch, and on the number of devices.
    """
    if config.kind == "none":
        return nn.Identity()
    width = config.width
    hidden = (nn.Linear(dim, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))
    return nn.Sequential(*hidden, nn.GELU(), nn.Linear(width, config.out_dim))


def predict_everywhere(predictor: nn.Module, latents: Tensor) -> Tensor:
    """What a predictor of this signature makes of all positions [B, N, out_dim], from the latents of all [B, N, D]."""
    at = torch.arange(latents.shape[1], device=latents.device).expand(len(latents), -1)  # [B, N]
    every = torch.ones_like(at, dtype=torch.bool)  # [B, N]
    return predictor(latents, at, every, None, at, every)


class MLPPredictor(nn.Module):
    """The original T-JEPA's predictor: a three-layer bottleneck on each slot, told its position.

    Where tokens are dropped there is no slot, and it starts from the mean of the context instead.
    """

    def __init__(self, dim: int, hidden: int, out_dim: int, max_len: int) -> None:
        super().__init__()
        self.position_embedding = nn.Embedding(max_len, dim)
        nn.init.normal_(self.position_embedding.weight, std=0.02)
        self.layers = mlp([dim, hidden, hidden, out_dim])

    def forward(self, context: Tensor, context_positions: Tensor, context_valid: Tensor, slots: Tensor | None,
                hidden_positions: Tensor, hidden_valid: Tensor) -> Tensor:  # fmt: skip
        start = mean_pool(context, context_valid)[:, None] if slots is None else slots  # [B, 1 or H, D]
        return self.layers(start + self.position_embedding(hidden_positions))


class AttentionPredictor(nn.Module):
    """A narrow transformer over the context and a positioned mask token per hidden position (Assran et al. 2023).

    `alibi=True` replaces embedded positions by their distances (`linear_biases`): no position is too far or new.
    """

    def __init__(self, dim: int, width: int, out_dim: int, depth: int, heads: int, max_len: int,
                 alibi: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.alibi = heads, alibi
        self.enter = nn.Linear(dim, width)
        self.position_embedding = None if alibi else nn.Embedding(max_len, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding.weight, std=0.02)
        self.trunk = Trunk(width, depth, heads)
        self.leave = nn.Linear(width, out_dim)

    def forward(self, context: Tensor, context_positions: Tensor, context_valid: Tensor, slots: Tensor | None,
                hidden_positions: Tensor, hidden_valid: Tensor) -> Tensor:  # fmt: skip
        seen = self._placed(self.enter(context), context_positions)  # [B, V, W]
        queries = self._placed(self.mask_token.expand(*hidden_positions.shape, -1), hidden_positions)  # [B, H, W]
        if slots is not None:
            queries = queries + self.enter(slots)
        mask = key_mask(torch.cat([context_valid, hidden_valid], 1))  # [B, 1, 1, V + H]
        if self.alibi:
            mask = linear_biases(torch.cat([context_positions, hidden_positions], 1), mask, self.heads)
        out = self.trunk(torch.cat([seen, queries.to(seen.dtype)], 1), mask)  # [B, V + H, W]
        return self.leave(out[:, seen.shape[1] :])

    def _placed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x if self.position_embedding is None else x + self.position_embedding(positions)


def linear_biases(positions: Tensor, may_attend: Tensor, heads: int) -> Tensor:
    """What is added to attention's scores, [B, H, T, T]: the less, the farther apart two `positions` [B, T] are.

    Head h of H falls by 2^(-8 h / H) a step (ALiBi, Press et al. 2022, section 3). The lowest score where nothing
    `may_attend`, bool, broadcastable.
    """
    slopes = 2.0 ** (-8 * torch.arange(1, heads + 1, device=positions.device) / heads)  # [H]
    distance = (positions[:, None, :, None] - positions[:, None, None, :]).abs()  # [B, 1, T, T]
    return (-slopes[:, None, None] * distance).masked_fill(~may_attend, LOWEST)
