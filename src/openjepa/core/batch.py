"""Batches are small dataclasses: typed fields, shapes in comments, one device move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.progress import START, Progress


class Selection(NamedTuple):
    """A mask of a batch and the indices at which it is True, so that selecting rows needs no device synchronisation."""

    mask: Tensor  # [B, K] bool, a field of the batch
    index: Tensor  # [M] int64 into mask.flatten()


@dataclass(kw_only=True)
class Batch:
    """Base of every batch. Subclasses add tensors whose first axis is the batch axis B."""

    keys: Tensor  # [B] int64, data set index of each row: any row can be traced back to its source
    draw: int = 0  # address of randomness inside the method (e.g. SIGReg directions); equal on all ranks
    progress: Progress = START  # of the run, for weights that change with it
    selections: tuple[Selection, ...] = ()  # of its masks, once `indexed`; see `pick`

    @property
    def size(self) -> int:
        """Number of rows B on this rank."""
        return self.keys.shape[0]

    @property
    def tokens(self) -> int:
        """Real (unpadded) tokens or patches, for throughput. Subclasses that have them override it."""
        return self.size

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with other content in its hidden parts only: predictions must not change."""
        raise UserError(f"{type(self).__name__} has no with_other_hidden(generator); the leak audit needs it")

    def pick(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [B, K, ...] where `mask` [B, K], a field of this batch or of a part of it, is True -> [M, ...], as x[mask].

        Boolean indexing makes the host wait for a GPU, to learn the size of the result. Here the indices were computed
        before the batch was moved.
        """
        for selection in self.selections:
            if selection.mask is mask:
                return x.flatten(0, 1).index_select(0, selection.index)
        return x[mask]

    def indexed(self) -> Self:
        """The same batch with the indices at which its masks [B, K] are True."""
        if self.selections:
            return self
        masks = [x for x in _tensors_of(self) if x.dtype == torch.bool and x.ndim == 2]
        return replace(self, selections=tuple(Selection(m, m.flatten().nonzero().squeeze(1)) for m in masks))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory: copies to a GPU can overlap with computation. DataLoader calls this."""
        return self.indexed().with_each_tensor(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> Self:
        """The batch on a device. Copies from pinned memory do not block."""
        ready = self if torch.device(device).type == "cpu" else self.indexed()
        return ready.with_each_tensor(lambda tensor: tensor.to(device, non_blocking=True))

    def with_each_tensor(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply `change` to every tensor, also in fields that are dataclasses and in the masks of `selections`."""
        changed = {id(x): change(x) for x in _tensors_of(self)}
        selections = [Selection(changed[id(s.mask)], change(s.index)) for s in self.selections if id(s.mask) in changed]
        return replace(_rebuilt(self, changed), selections=tuple(selections))


def _tensors_of(part: Any) -> Iterator[Tensor]:
    """The tensors among the fields of a dataclass and of dataclasses in it."""
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            yield value
        elif is_dataclass(value):
            yield from _tensors_of(value)


def _rebuilt(part: Any, changed: dict[int, Tensor]) -> Any:
    """The dataclass with `changed` in place of its tensors, by their ids."""
    values = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            values[field.name] = changed[id(value)]
        elif is_dataclass(value) and any(True for _ in _tensors_of(value)):
            values[field.name] = _rebuilt(value, changed)
    return replace(part, **values)
