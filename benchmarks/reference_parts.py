"""What the yardsticks of `bench_step.py` have in common: padded rows, and the EMA as a loop over parameters.

Of nothing but torch and numpy, so that no reference profits from what OpenJEPA does about speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Padding = Literal["max", "batch"]  # rows as long as the longest allowed, or as the longest of their batch


def padded(rows: Sequence[np.ndarray], fill: int, length: int, padding: Padding) -> tuple[Tensor, Tensor]:
    """Rows [L_i] cut at `length` -> ids [B, T] int64 and which positions are real [B, T] int64 (1 or 0)."""
    kept = [row[:length] for row in rows]
    width = length if padding == "max" else max(len(row) for row in kept)
    ids = torch.full((len(kept), width), fill)
    for position, row in zip(ids, kept, strict=True):
        position[: len(row)] = torch.from_numpy(row.astype(np.int64))
    lengths = torch.tensor([len(row) for row in kept])
    return ids, (torch.arange(width) < lengths[:, None]).long()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, one parameter after the other."""
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.data.mul_(momentum).add_(fast.data, alpha=1 - momentum)
