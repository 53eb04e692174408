"""Targets centred or standardised by running statistics, so that a latent has the same target in every batch.

The states of a small decoder lie in a narrow cone: any two have a cosine near 1, and to predict the common direction is
nearly to predict the target. `standardize` (see `objectives.targets`) removes it with the statistics of a batch;
here they are running means, as the centre of DINO (Caron et al. 2021), so that after training a single latent can be
compared with others: for retrieval, readout and demo.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from openjepa.objectives.targets import VARIANCE_FLOOR, global_moments

Space = Literal["raw", "centered", "standardized"]


class RunningSpace(nn.Module):
    """Latents to targets: unchanged, minus their running mean, or also divided by their running deviation.

    In training mode every call updates the statistics first, over the rows of all ranks; in eval mode they are fixed.
    """

    mean: Tensor
    variance: Tensor
    updates: Tensor

    def __init__(self, dim: int, space: Space, momentum: float = 0.9) -> None:
        super().__init__()
        self.space = space
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, latents: Tensor) -> Tensor:
        """latents [N, D] -> targets [N, D] fp32, without gradient."""
        values = latents.detach().float()
        if self.space == "raw":
            return values
        if self.training:
            self._update(values)
        centered = values - self.mean
        return centered * torch.rsqrt(self.variance + VARIANCE_FLOOR) if self.space == "standardized" else centered

    def _update(self, values: Tensor) -> None:
        """Move towards the batch's statistics; the first batch sets them."""
        mean, variance = global_moments(values)
        weight = torch.where(self.updates == 0, 1.0, 1 - self.momentum)
        self.mean.lerp_(mean, weight)
        self.variance.lerp_(variance, weight)
        self.updates += 1
