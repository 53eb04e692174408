"""Attention for OpenJEPA's and pretrained encoders: the fused kernel, except where it is slower.

torch's CPU flash kernel has a bf16 backward pass that takes 4-9 times as long as plain matrix products at the lengths
that texts have here (measured with torch 2.13, AMX: batch 64, 4 heads, 48 tokens: 62 against 8 ms). Beyond
`SHORT` tokens the score matrix costs more than that, and the fused kernel wins again. Without gradients it is faster at
all lengths (batch 32, 12 heads, 128 tokens: 3.3 against 10 ms).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHORT = 256  # tokens
LOWEST = torch.finfo(torch.bfloat16).min / 2  # score of masked positions; halved so that two masks can be added


def attend(q: Tensor, k: Tensor, v: Tensor, may_attend: Tensor | None, dropout: float = 0.0) -> Tensor:
    """q, k, v [B, H, T, D/H]; may_attend broadcastable to [B, H, T, T] (None = all) -> [B, H, T, D/H].

    may_attend is bool, or what is added to the scores.
    """
    trains = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")  # autocast: a teacher computes as its student
    if trains and q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= SHORT:
        scores = _scores(q * q.shape[-1] ** -0.5, k, may_attend)  # [B, H, T, T]
        return F.dropout(scores.softmax(-1), dropout) @ v
    mask = may_attend if may_attend is None or may_attend.dtype == torch.bool else may_attend.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout)


def _scores(q: Tensor, k: Tensor, may_attend: Tensor | None) -> Tensor:
    """q k^T, LOWEST at masked positions; starting the product from the mask is faster than filling it in afterwards."""
    if may_attend is None:
        return q @ k.transpose(-1, -2)
    added = (~may_attend).to(q.dtype) * LOWEST if may_attend.dtype == torch.bool else may_attend.to(q.dtype)
    start = added.expand(*q.shape[:2], *may_attend.shape[-2:])  # [B, H, 1 or T, T]
    scores = torch.baddbmm(start.flatten(0, 1), q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2))  # [B * H, T, T]
    return scores.unflatten(0, q.shape[:2])
