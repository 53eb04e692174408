"""Token rows to batches with a hidden part: padding, masks and the index tensors that methods gather by.

All indices are made here, in the data workers, so that no method asks the device how many tokens are hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.experiment import Row
from openjepa.core.method import Masker
from openjepa.data.corpus import pad
from openjepa.data.tokenizer import TextTokenizer


@dataclass(kw_only=True)
class MaskedText(Batch):
    """Texts of which some tokens are hidden. T = longest text, V and H = most visible and most hidden tokens."""

    ids: Tensor  # [B, T] int64, clean token ids
    valid: Tensor  # [B, T] bool, False on padding
    hidden: Tensor  # [B, T] bool, True where a latent is to be predicted
    context_at: Tensor  # [B, V] int64, places of the visible tokens
    context_valid: Tensor  # [B, V] bool
    hidden_at: Tensor  # [B, H] int64, places of the hidden tokens
    hidden_valid: Tensor  # [B, H] bool
    span_of: (
        Tensor  # [M] int64, number of the contiguous span that each hidden token belongs to, counted over the batch
    )
    real_tokens: int  # unpadded tokens in the batch

    @property
    def tokens(self) -> int:
        return self.real_tokens

    def nearest_visible(self) -> Tensor:
        """[B, H] the place of the visible token nearest to each hidden one, for the copy baseline."""
        distance = (self.hidden_at[:, :, None] - self.context_at[:, None, :]).abs()  # [B, H, V]
        distance = distance.masked_fill(~self.context_valid[:, None, :], distance.max() + 1)
        return self.context_at.gather(1, distance.argmin(2))


@dataclass(frozen=True)
class MaskedTextCollator:
    """Rows of token ids to a MaskedText batch; special tokens are never hidden."""

    tokenizer: TextTokenizer
    masker: Masker

    def __call__(self, rows: Sequence[Row]) -> MaskedText:
        ids, valid = self._pad([row.sample.ids for row in rows])
        maskable = valid & ~pad([row.sample.special for row in rows], False)  # [B, T]
        hidden = torch.zeros_like(valid)
        for i, row in enumerate(rows):
            hidden[i] = self.masker(maskable[i], row.generator)
        return self._batch(torch.tensor([row.index for row in rows]), ids, valid, hidden)

    def clean(self, texts: Sequence[str], max_len: int) -> MaskedText:
        """Texts with nothing hidden, cut at `max_len` tokens, for embedding."""
        ids, valid = self._pad(self.tokenizer.encode(texts, max_len))
        return self._batch(torch.arange(len(texts)), ids, valid, torch.zeros_like(valid))

    def _pad(self, rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        ids = pad(rows, self.tokenizer.pad_id)  # [B, T]
        lengths = torch.tensor([len(row) for row in rows])
        return ids, torch.arange(ids.shape[1])[None, :] < lengths[:, None]

    def _batch(self, keys: Tensor, ids: Tensor, valid: Tensor, hidden: Tensor) -> MaskedText:
        context_at, context_valid = places_of(valid & ~hidden)
        hidden_at, hidden_valid = places_of(hidden)
        starts = hidden & ~F.pad(hidden, (1, -1))  # [B, T]
        return MaskedText(keys=keys, ids=ids, valid=valid, hidden=hidden, context_at=context_at,
                          context_valid=context_valid, hidden_at=hidden_at, hidden_valid=hidden_valid,
                          span_of=(starts.flatten().cumsum(0) - 1)[hidden.flatten()],
                          real_tokens=int(valid.sum()))  # fmt: skip


def mean_by_span(x: Tensor, span_of: Tensor) -> Tensor:
    """x [M, D] of hidden tokens, span_of [M] -> [S, D] the mean of each span."""
    count = int(span_of[-1]) + 1 if len(span_of) else 0
    sums = x.new_zeros(count, x.shape[1]).index_add(0, span_of, x)  # [S, D]
    return sums / torch.bincount(span_of, minlength=count)[:, None]


def places_of(mask: Tensor) -> tuple[Tensor, Tensor]:
    """mask [B, T] -> the places of its True entries in order, [B, K] with K the most in a row, and which are real."""
    counts = mask.sum(1)  # [B]
    order = torch.argsort(~mask, dim=1, stable=True)[:, : int(counts.max())]  # [B, K]
    return order, torch.arange(order.shape[1])[None, :] < counts[:, None]
