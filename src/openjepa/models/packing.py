"""Rows of different lengths without their padding: what a network does token by token is done for real tokens only."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor
from torch.autograd import Function

from openjepa.core.sizes import round_up

WORTH = 0.9  # rows are packed if at most this share of their places is left
GRAIN = 64  # tokens; sizes are rounded up to it: on CPU a matrix product of a new size has to be prepared first


class Packing:
    """The real tokens of rows `valid` [B, T], filled up with padding to N, a multiple of GRAIN (at most all places)."""

    def __init__(self, valid: Tensor) -> None:
        self.valid, self.shape = valid, valid.shape
        self.size = min(round_up(int(valid.sum()), GRAIN), valid.numel())  # N

    @cached_property
    def at(self) -> Tensor:
        """[N] their places in the flat rows, real ones first."""
        return self.valid.flatten().argsort(stable=True, descending=True)[: self.size]

    def pack(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [N, D]."""
        return _Take.apply(x.flatten(0, 1), self.at)

    def unpack(self, x: Tensor) -> Tensor:
        """[N, D] -> [B, T, D], 0 where nothing was packed."""
        return _Put.apply(x, self.at, self.shape.numel()).unflatten(0, self.shape)


def packing_of(may_attend: Tensor | None) -> Packing | None:
    """How to pack rows whose padding [B, 1, 1, T] is not read; None if that would save too little."""
    if may_attend is None or may_attend.ndim != 4 or may_attend.shape[2] != 1:
        return None
    packing = Packing(may_attend[:, 0, 0])
    return packing if packing.size < WORTH * packing.shape.numel() else None


class _Take(Function):
    """Rows of a matrix at places that are all different. Its own gradient: that of an index adds up, which is slow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, at: Tensor) -> Tensor:
        ctx.save_for_backward(at)
        ctx.rows = len(x)
        return x[at]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        return grad.new_zeros(ctx.rows, grad.shape[1]).index_copy_(0, *ctx.saved_tensors, grad), None


class _Put(Function):
    """The inverse of _Take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, at: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(at)
        return x.new_zeros(rows, x.shape[1]).index_copy_(0, at, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return grad[ctx.saved_tensors[0]], None, None
