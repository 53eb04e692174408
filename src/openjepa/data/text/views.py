"""Token rows to batches of whole texts in two views, for methods that compare texts and hide no token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.experiment import Sample
from openjepa.data.text.corpus import pad_rows
from openjepa.data.text.inputs import TextInputs, running_text
from openjepa.data.text.masked import random_ids
from openjepa.data.tokenizers.choice import TextTokenizer


@dataclass(kw_only=True)
class TextViews(Batch):
    """Texts in two views; the second has the same tokens until it is replaced. T = longest text."""

    ids: Tensor  # [B, T] int64
    valid: Tensor  # [B, T] bool, False on padding
    second_ids: Tensor  # [B, T] int64
    real_tokens: int  # unpadded tokens in the batch, each counted once
    vocab: int  # ids are below it

    @property
    def tokens(self) -> int:
        return self.real_tokens

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with random tokens for the second view, which the first one predicts."""
        return replace(self, second_ids=random_ids(self.ids, self.vocab, generator))


@dataclass(frozen=True)
class TextViewsCollator:
    """Rows of token ids to a TextViews batch."""

    tokenizer: TextTokenizer

    def __call__(self, rows: Sequence[Sample]) -> TextViews:
        return self._batch(torch.tensor([row.index for row in rows]), [row.sample.ids for row in rows])

    def whole(self, rows: Sequence[np.ndarray]) -> TextViews:
        """Rows of token ids [L_i], for embedding."""
        return self._batch(torch.arange(len(rows)), rows)

    def inputs(self, max_len: int) -> TextInputs:
        """How texts are read for embedding."""
        return running_text(self.tokenizer, max_len, self.whole)

    def _batch(self, keys: Tensor, texts: Sequence[np.ndarray]) -> TextViews:
        ids, valid = pad_rows(texts, self.tokenizer.pad_id)  # [B, T]
        vocab = self.tokenizer.vocab_size
        return TextViews(keys=keys, ids=ids, valid=valid, second_ids=ids, real_tokens=int(valid.sum()), vocab=vocab)
