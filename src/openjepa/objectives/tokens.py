"""Token cross-entropy: what a JEPA normally does not pay for, for hybrids and baselines."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.distributed import rank_weight


class TokenHead(nn.Module):
    """From latents to a distribution over the vocabulary, and its cross-entropy in nats (log V for a uniform guess)."""

    def __init__(self, dim: int, vocab: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.vocabulary = nn.Linear(dim, vocab)

    def forward(self, latents: Tensor, ids: Tensor) -> Tensor:
        """latents [M, D], ids [M] -> scalar mean over all ranks' tokens."""
        logits = self.vocabulary(self.transform(latents))  # [M, V]
        return F.cross_entropy(logits.float(), ids) * rank_weight(len(ids), ids.device)
