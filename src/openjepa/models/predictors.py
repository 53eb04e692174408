"""Predictors: from the latents of the visible part to those of the hidden part, at given positions.

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
    """A predictor of hidden latents from the context's."""

    FIRST = ("kind", "width", "depth")

    kind: Literal["attention", "mlp"] = "attention"
    """attention over the context and mask tokens, or the original three-layer MLP"""
    width: int = Field(128, ge=8)
    """of the attention predictor, or of the MLP's bottleneck"""
    depth: int = Field(1, ge=1, le=512)
    """blocks of the attention predictor"""
    heads: int = Field(4, ge=1)
    """heads of the attention predictor"""


class SequencePredictorConfig(PredictorConfig):
    """The same for one-dimensional positions, as in a text."""

    alibi: bool = False
    """attention falls off with the distance of two positions, in each head at another rate, in place of position
    embeddings, so rows may become longer than in training (attention predictor)"""


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
    """The head before a loss between views; embeddings are taken before it."""

    kind: Literal["mlp", "none"] = "mlp"
    """three layers, or none: the loss then acts on the embeddings themselves, and shapes them sooner"""
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
    """Predictions for all positions [B, N, out_dim], from the latents of all [B, N, D]."""
    positions = torch.arange(latents.shape[1], device=latents.device).expand(len(latents), -1)  # [B, N]
    valid = torch.ones_like(positions, dtype=torch.bool)  # [B, N]
    return predictor(latents, positions, valid, None, positions, valid)


class MLPPredictor(nn.Module):
    """The original T-JEPA's predictor: a three-layer bottleneck on each slot, with its position embedding.

    Where tokens are dropped there is no slot, and the mean of the context takes its place.
    """

    def __init__(self, dim: int, hidden: int, out_dim: int, max_len: int) -> None:
        super().__init__()
        self.position_embedding = nn.Embedding(max_len, dim)
        nn.init.normal_(self.position_embedding.weight, std=0.02)
        self.layers = mlp([dim, hidden, hidden, out_dim])

    def forward(
        self,
        context: Tensor,
        context_positions: Tensor,
        context_valid: Tensor,
        slots: Tensor | None,
        hidden_positions: Tensor,
        hidden_valid: Tensor,
    ) -> Tensor:
        inputs = mean_pool(context, context_valid)[:, None] if slots is None else slots  # [B, 1 or H, D]
        return self.layers(inputs + self.position_embedding(hidden_positions))


class AttentionPredictor(nn.Module):
    """A narrow transformer over the context and one mask token per hidden position (Assran et al. 2023).

    `alibi=True` replaces position embeddings by biases on distances (`linear_biases`), for positions of any size.
    """

    def __init__(
        self, dim: int, width: int, out_dim: int, depth: int, heads: int, max_len: int, alibi: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.alibi = alibi
        self.enter = nn.Linear(dim, width)
        self.position_embedding = None if alibi else nn.Embedding(max_len, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding.weight, std=0.02)
        self.trunk = Trunk(width, depth, heads)
        self.leave = nn.Linear(width, out_dim)

    def forward(
        self,
        context: Tensor,
        context_positions: Tensor,
        context_valid: Tensor,
        slots: Tensor | None,
        hidden_positions: Tensor,
        hidden_valid: Tensor,
    ) -> Tensor:
        visible = self._with_positions(self.enter(context), context_positions)  # [B, V, W]
        mask_tokens = self.mask_token.expand(*hidden_positions.shape, -1)  # [B, H, W]
        queries = self._with_positions(mask_tokens, hidden_positions)  # [B, H, W]
        if slots is not None:
            queries = queries + self.enter(slots)
        mask = key_mask(torch.cat([context_valid, hidden_valid], 1))  # [B, 1, 1, V + H]
        if self.alibi:
            mask = linear_biases(torch.cat([context_positions, hidden_positions], 1), mask, self.heads)
        out = self.trunk(torch.cat([visible, queries.to(visible.dtype)], 1), mask)  # [B, V + H, W]
        return self.leave(out[:, visible.shape[1] :])

    def _with_positions(self, x: Tensor, positions: Tensor) -> Tensor:
        return x if self.position_embedding is None else x + self.position_embedding(positions)


def linear_biases(positions: Tensor, may_attend: Tensor, heads: int) -> Tensor:
    """Biases of attention scores [B, H, T, T] that fall with the distance of two `positions` [B, T].

    Head h of H falls by 2^(-8 h / H) a step (ALiBi, Press et al. 2022, section 3). LOWEST where `may_attend` (bool,
    broadcastable) is False.
    """
    slopes = 2.0 ** (-8 * torch.arange(1, heads + 1, device=positions.device) / heads)  # [H]
    distance = (positions[:, None, :, None] - positions[:, None, None, :]).abs()  # [B, 1, T, T]
    return (-slopes[:, None, None] * distance).masked_fill(~may_attend, LOWEST)
