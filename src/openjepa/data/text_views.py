"""Token rows to batches of whole texts in two views, for methods that compare texts and hide no token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.experiment import Row
from openjepa.data.corpus import pad
from openjepa.data.tokenizer import TextTokenizer


@dataclass(kw_only=True)
class TextViews(Batch):
    """Texts, each twice: the second view has the same tokens until someone changes them. T = longest text."""

    ids: Tensor  # [B, T] int64
    valid: Tensor  # [B, T] bool, False on padding
    second_ids: Tensor  # [B, T] int64
    real_tokens: int  # unpadded tokens in the batch, each counted once

    @property
    def tokens(self) -> int:
        return self.real_tokens


@dataclass(frozen=True)
class TextViewsCollator:
    """Rows of token ids to a TextViews batch."""

    tokenizer: TextTokenizer

    def __call__(self, rows: Sequence[Row]) -> TextViews:
        ids = pad([row.sample.ids for row in rows], self.tokenizer.pad_id)  # [B, T]
        return self._batch(torch.tensor([row.index for row in rows]), ids, [len(row.sample.ids) for row in rows])

    def clean(self, texts: Sequence[str], max_len: int) -> TextViews:
        """Texts cut at `max_len` tokens, for embedding."""
        encoded = self.tokenizer.encode(texts, max_len)
        return self._batch(torch.arange(len(texts)), pad(encoded, self.tokenizer.pad_id), [len(row) for row in encoded])

    def _batch(self, keys: Tensor, ids: Tensor, lengths: Sequence[int]) -> TextViews:
        valid = torch.arange(ids.shape[1])[None, :] < torch.tensor(lengths)[:, None]  # [B, T]
        return TextViews(keys=keys, ids=ids, valid=valid, second_ids=ids, real_tokens=int(valid.sum()))
