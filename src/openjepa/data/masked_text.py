"""Token rows to batches with a hidden part: padding, masks and the index tensors that methods gather by.

All indices are made here, in the data workers: methods only gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.experiment import Row
from openjepa.core.method import Masker
from openjepa.core.picture import Pieces
from openjepa.core.sizes import round_up
from openjepa.data.corpus import pad, pad_rows, up_to
from openjepa.data.pictures import text_pictures
from openjepa.data.text_inputs import TextInputs, running_text
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
    span_at: Tensor  # [S, L] int64, each hidden span's tokens as indices into ids.flatten(), in reading order
    span_valid: Tensor  # [S, L] bool; its True entries are the hidden tokens in the order of hidden_at[hidden_valid]
    real_tokens: int  # unpadded tokens in the batch
    vocab: int  # ids are below it

    @property
    def tokens(self) -> int:
        return self.real_tokens

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with random tokens at the hidden positions."""
        return replace(self, ids=torch.where(self.hidden, random_ids(self.ids, self.vocab, generator), self.ids))

    @cached_property
    def packed_spans(self) -> tuple[Tensor, Tensor]:
        """Each text's hidden tokens as one row of spans that do not see each other: short spans cost no padding.

        The number of each token's span, -1 on padding, and each one's place within its span, both [B, H].
        """
        follows = self.hidden_at[:, 1:] == self.hidden_at[:, :-1] + 1
        span = F.pad(~follows, (1, 0)).cumsum(1).masked_fill(~self.hidden_valid, -1)  # [B, H]
        return span, places_within(span)

    def nearest_visible(self) -> Tensor:
        """[B, H] the place of the visible token nearest to each hidden one, for the copy baseline."""
        distance = (self.hidden_at[:, :, None] - self.context_at[:, None, :]).abs()  # [B, H, V]
        distance = distance.masked_fill(~self.context_valid[:, None, :], self.ids.shape[1])
        return self.context_at.gather(1, distance.argmin(2))


@dataclass(frozen=True)
class MaskedTextCollator:
    """Rows of token ids to a MaskedText batch; special tokens are never hidden."""

    tokenizer: TextTokenizer
    masker: Masker

    def __call__(self, rows: Sequence[Row]) -> MaskedText:
        ids, valid = pad_rows([row.sample.ids for row in rows], self.tokenizer.pad_id)  # [B, T]
        maskable = valid & ~pad([row.sample.special for row in rows], False)  # [B, T]
        hidden = torch.zeros_like(valid)
        for i, row in enumerate(rows):
            hidden[i] = self.masker(maskable[i], row.generator)
        return self._batch(torch.tensor([row.index for row in rows]), ids, valid, hidden)

    def whole(self, rows: Sequence[np.ndarray]) -> MaskedText:
        """Rows of token ids [L_i] with nothing hidden, for embedding."""
        ids, valid = pad_rows(rows, self.tokenizer.pad_id)  # [B, T]
        return self._batch(torch.arange(len(rows)), ids, valid, torch.zeros_like(valid))

    def inputs(self, max_len: int, synthetic_world: bool = False) -> TextInputs:
        """How texts are read for embedding."""
        return running_text(self.tokenizer, max_len, self.whole, synthetic_world)

    def pictures(self, batch: MaskedText) -> list[Pieces]:
        """What the rows of a batch look like, token by token."""
        return text_pictures(self.tokenizer, batch)

    def _batch(self, keys: Tensor, ids: Tensor, valid: Tensor, hidden: Tensor) -> MaskedText:
        context_at, context_valid = places_of(valid & ~hidden)
        hidden_at, hidden_valid = places_of(hidden)
        span_at, span_valid = spans_of(hidden)
        return MaskedText(
            keys=keys,
            ids=ids,
            valid=valid,
            hidden=hidden,
            context_at=context_at,
            context_valid=context_valid,
            hidden_at=hidden_at,
            hidden_valid=hidden_valid,
            span_at=span_at,
            span_valid=span_valid,
            real_tokens=int(valid.sum()),
            vocab=self.tokenizer.vocab_size,
        )


def random_ids(ids: Tensor, vocab: int, generator: torch.Generator) -> Tensor:
    """Random token ids below `vocab` in the shape of `ids`."""
    return torch.randint(vocab, ids.shape, generator=generator).to(ids.device)


def spans_of(mask: Tensor) -> tuple[Tensor, Tensor]:
    """mask [B, T] -> each run of True within a row as indices into mask.flatten() [S, L], and which are real [S, L]."""
    at = mask.flatten().nonzero().squeeze(1)  # [hidden]
    starts = (mask & ~F.pad(mask, (1, -1))).flatten()[at]  # [hidden]
    lengths = torch.bincount(starts.cumsum(0) - 1)  # [S]
    longest = int(lengths.max()) if len(lengths) else 0
    valid = up_to(lengths, longest)  # [S, L]
    return torch.zeros(valid.shape, dtype=torch.long).masked_scatter(valid, at), valid


def places_within(segments: Tensor) -> Tensor:
    """segments [B, T], the number of each token's run -> each token's place in its run, from 0 [B, T]."""
    starts = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)  # [B, T]
    at = torch.arange(segments.shape[1], device=segments.device)  # [T]
    return at - torch.where(starts, at, 0).cummax(1).values


def places_of(mask: Tensor, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """mask [B, T] -> the places of its True entries in order, [B, K], and which are real.

    K is the most in a row, rounded up to a multiple (but never above T).
    """
    counts = mask.sum(1)  # [B]
    order = torch.argsort(~mask, dim=1, stable=True)[:, : round_up(int(counts.max()), multiple)]  # [B, K]
    return order, up_to(counts, order.shape[1])
