"""Token cross-entropy, for hybrids and baselines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.compute import in_fp32
from openjepa.core.distributed import rank_weight


class TokenHead(nn.Module):
    """Latents to a distribution over the vocabulary, and its cross-entropy in nats (log V for a uniform guess)."""

    def __init__(self, dim: int, vocab: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.vocabulary = nn.Linear(dim, vocab)

    def forward(self, latents: Tensor, ids: Tensor) -> Tensor:
        """latents [M, D], ids [M] -> scalar mean over all ranks' tokens."""
        logits = self.vocabulary(self.transform(latents))  # [M, V]
        return F.cross_entropy(logits.float(), ids) * rank_weight(len(ids), ids.device)

    @torch.no_grad()
    def expected(self, latents: Tensor) -> Tensor:
        """latents [M, D] -> [M, D] fp32, the mean output embedding under the predicted distribution.

        A token model's prediction in a latent space: it explains none of the variance of `embeddings` where the
        distribution is the same for every position (skill 0), and all where it is certain and right (skill 1).
        """
        probabilities = self.vocabulary(self.transform(latents)).float().softmax(-1)  # [M, V]
        with in_fp32(probabilities.device):
            return probabilities @ self.vocabulary.weight.float()

    @torch.no_grad()
    def embeddings(self, ids: Tensor) -> Tensor:
        """ids [M] -> [M, D] fp32, the output embeddings of these tokens."""
        return self.vocabulary.weight[ids].float()
