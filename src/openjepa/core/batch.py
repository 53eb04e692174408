"""Batches are small dataclasses: typed fields, shapes in comments, one device move."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Self

import torch
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.progress import START, Progress


@dataclass(kw_only=True)
class Batch:
    """Base of every batch. Subclasses add tensors whose first axis is the batch axis B."""

    keys: Tensor  # [B] int64, data set index of each row: any row can be traced back to its source
    draw: int = 0  # address of randomness inside the method (e.g. SIGReg directions); equal on all ranks
    progress: Progress = START  # where the run is, for weights that change with it

    @property
    def size(self) -> int:
        """Number of rows B on this rank."""
        return self.keys.shape[0]

    @property
    def tokens(self) -> int:
        """Real (unpadded) tokens or patches, for throughput. Subclasses that have them say so."""
        return self.size

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with other content in its hidden parts only: a prediction must not move."""
        raise UserError(f"{type(self).__name__} has no with_other_hidden(generator); the leak audit needs it")

    def to(self, device: torch.device | str) -> Self:
        moved = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device, non_blocking=True)
            elif is_dataclass(value):  # a part of the batch, with a `to` of its own
                moved[field.name] = value.to(device)
        return replace(self, **moved)
