"""Collectives for losses over all ranks. Every function is the identity in a single process.

Invariant: the gradient of a run on N ranks equals the gradient of one process with the same global batch.
DDP averages gradients over ranks, so a loss term must either be computed on gathered rows (`gather_rows`; each rank
then holds the whole loss and its backward pass sums the ranks' shares) or be a `mean_over_ranks`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Generator[None, None, None]:
    """Within the block this rank is the only one: for what every rank computes on the same rows, as evaluations do."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def world_size() -> int:
    """How many ranks there are; 1 without a process group, and within `alone`."""
    return dist.get_world_size() if not _alone.get() and dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(x: Tensor) -> Tensor:
    """Element-wise sum of a tensor of the same shape on every rank; carries no gradient."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def rank_weight(count: int, device: torch.device | str = "cpu") -> Tensor | float:
    """Factor that makes the DDP average of per-rank means over `count` rows equal the global mean."""
    if world_size() == 1:
        return 1.0
    total = sum_over_ranks(torch.tensor(float(count), device=device))
    return count * world_size() / total


def mean_over_ranks(values: Tensor) -> Tensor:
    """values [M_r] on each rank -> scalar whose DDP gradient is that of the mean over the rows of all ranks."""
    return values.mean() * rank_weight(len(values), values.device)


def gather_rows(x: Tensor) -> Tensor:
    """[N_r, D] on each rank -> [sum N_r, D] on all ranks in rank order; differentiable, N_r may differ."""
    if world_size() == 1:
        return x
    counts = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([x.shape[0]], device=x.device))
    longest = int(torch.stack(counts).max())
    padded = torch.cat([x, x.new_zeros(longest - x.shape[0], *x.shape[1:])])
    parts = _AllGather.apply(padded)
    return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)])


class _AllGather(torch.autograd.Function):
    """Every rank's tensor, in rank order. Backward: the sum over ranks of the gradients of this rank's tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return sum_over_ranks(torch.stack(grads))[dist.get_rank()]
