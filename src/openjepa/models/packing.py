"""Rows of different lengths without their padding: token-wise layers compute only real tokens.

For OpenJEPA's networks; `sequence_packing` is for those of other libraries, and makes fewer rows.

Both are for the CPU, where padding costs as much as tokens. How to pack depends on the lengths, and reading them would
synchronise a GPU in every forward pass; there padding is masked and computed.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor
from torch.autograd import Function

from openjepa.core.sizes import round_up

WORTH = 0.9  # rows are packed if at most this share of their positions is left
PACKING_DEVICES = frozenset({"cpu"})
GRAIN = 64  # tokens; sizes are rounded up to it, as CPU matrix products of a new size have to be prepared first


class Packing:
    """The real tokens of rows `valid` [B, T], padded to N, a multiple of GRAIN (at most all positions)."""

    def __init__(self, valid: Tensor) -> None:
        self.valid = valid
        self.shape = valid.shape
        self.size = min(round_up(int(valid.sum()), GRAIN), valid.numel())  # N

    @cached_property
    def at(self) -> Tensor:
        """[N] their positions in the flat rows, real ones first."""
        return self.valid.flatten().argsort(stable=True, descending=True)[: self.size]

    def pack(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [N, D]."""
        return take_rows(x.flatten(0, 1), self.at)

    def unpack(self, x: Tensor) -> Tensor:
        """[N, D] -> [B, T, D], 0 where nothing was packed."""
        return put_rows(x, self.at, self.shape.numel()).unflatten(0, self.shape)


def packs(valid: Tensor) -> bool:
    """Whether rows on this device are packed."""
    return valid.device.type in PACKING_DEVICES


def packing_of(may_attend: Tensor | None, real: Tensor | None = None) -> Packing | None:
    """The packing of rows whose tokens `real` [B, T] are not padding; None if it would save too little.

    Where `real` is not given, it is taken from a mask [B, 1, 1, T] shared by all queries; None if there is none.
    """
    if real is None and may_attend is not None and may_attend.ndim == 4 and may_attend.shape[2] == 1:
        real = may_attend[:, 0, 0]  # [B, T]
    packing = None if real is None or not packs(real) else Packing(real)
    return packing if packing is not None and packing.size <= WORTH * packing.shape.numel() else None


def take_rows(x: Tensor, at: Tensor) -> Tensor:
    """The rows of x [N, D] at distinct positions [K] -> [K, D]."""
    return _Take.apply(x, at)


def put_rows(x: Tensor, at: Tensor, rows: int) -> Tensor:
    """The inverse of `take_rows`: x [K, D] at positions [K] of `rows` rows -> [rows, D], 0 elsewhere."""
    return _Put.apply(x, at, rows)


class _Take(Function):
    """Indexing with a faster gradient: positions are distinct, so nothing is accumulated."""

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
