"""Hidden latents as means of the visible ones, weighted by distance: what continuity alone predicts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from openjepa.core.compute import in_fp32
from openjepa.models.attention import LOWEST

REACHES = (0.5, 1.0, 2.0, 5.0, 15.0, math.inf)  # positions over which a weight falls by a factor of e


def distance_weights(
    context_positions: Tensor, context_valid: Tensor, hidden_positions: Tensor, reach: float
) -> Tensor:
    """Weights exp(-distance / reach) of the visible positions [B, V], scaled to sum 1 -> [B, H, V].

    An infinite `reach` weighs all alike. Where nothing is visible, weights mean nothing.
    """
    distance = (hidden_positions[:, :, None] - context_positions[:, None, :]).abs().float()  # [B, H, V]
    return (-distance / reach).masked_fill(~context_valid[:, None, :], LOWEST).softmax(-1)


class NeighbourMean(nn.Module):
    """Means of several reaches, mixed by one learned number each. There is no other parameter."""

    def __init__(self, reaches: tuple[float, ...] = REACHES) -> None:
        super().__init__()
        self.reaches = reaches
        self.mix = nn.Parameter(torch.full((len(reaches),), 1 / len(reaches)))

    def forward(
        self, context: Tensor, context_positions: Tensor, context_valid: Tensor, hidden_positions: Tensor
    ) -> Tensor:
        """context [B, V, D], positions [B, V], valid [B, V], hidden positions [B, H] -> [B, H, D]."""
        weights = sum(
            mix * distance_weights(context_positions, context_valid, hidden_positions, reach)
            for mix, reach in zip(self.mix, self.reaches, strict=True)
        )  # [B, H, V]
        with in_fp32(context.device):
            return weights @ context.float()
