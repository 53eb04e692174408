"""Rows of tokens of which some segments are hidden: spans of a text, or whole sentences of a document.

The segments of a batch are numbered 0 to N - 1, row after row, and their properties are flat tables [N]. There is
padding only where attention needs sequences of one length: tokens of a row (`Tokens`), and segments of a document
(`Segments`). All indices are made here, in the data workers: methods only gather.
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
from openjepa.core.experiment import Sample
from openjepa.core.masks import TokenMasker
from openjepa.core.picture import Pieces
from openjepa.core.sizes import round_up
from openjepa.data.pictures import text_pictures
from openjepa.data.text.corpus import pad, pad_rows, up_to
from openjepa.data.text.inputs import TextInputs, running_text
from openjepa.data.tokenizers.choice import TextTokenizer


@dataclass
class Tokens:
    """Some tokens of each row, packed in order; K = the most in a row."""

    at: Tensor  # [B, K] int64, their positions in the row
    valid: Tensor  # [B, K] bool, False on padding
    segment: Tensor  # [B, K] int64, the segment of each, -1 on padding and outside of segments

    @cached_property
    def positions(self) -> Tensor:
        """[B, K] int64 the position of each token in its segment.

        An encoder that is given `segment` for its `valid` and this for its positions reads each segment as a text of
        its own, all in one pass.
        """
        return positions_within(self.segment)


@dataclass
class Segments:
    """Some segments of each of G documents, in their order; K = the most in a document."""

    number: Tensor  # [G, K] int64
    valid: Tensor  # [G, K] bool, False on padding


@dataclass(kw_only=True)
class MaskedText(Batch):
    """B rows of T tokens, N segments in them, M of which are hidden. Neighbouring rows may be of one document."""

    ids: Tensor  # [B, T] int64, clean token ids
    valid: Tensor  # [B, T] bool, False on padding
    hidden: Tensor  # [B, T] bool, True where latents are to be predicted
    segment: Tensor  # [B, T] int64, the segment of each token; -1 on padding and outside of segments
    visible_tokens: Tokens
    hidden_tokens: Tokens
    hidden_segments: Tensor  # [M] int64, their numbers in order
    row: Tensor  # [N] int64, the row of each segment
    start: Tensor  # [N] int64, position of its first token in the row
    document: Tensor  # [N] int64, which of the G documents it belongs to
    position: Tensor  # [N] int64, its number in the document
    visible_by_document: Segments
    hidden_by_document: Segments
    real_tokens: int  # unpadded tokens in the batch
    vocab: int  # ids are below it

    @property
    def tokens(self) -> int:
        return self.real_tokens

    @property
    def all_tokens(self) -> Tokens:
        """Every token of each row."""
        at = torch.arange(self.ids.shape[1], device=self.ids.device).expand_as(self.ids)  # [B, T]
        return Tokens(at, self.valid, self.segment)

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with random tokens in the hidden segments."""
        return replace(self, ids=torch.where(self.hidden, random_ids(self.ids, self.vocab, generator), self.ids))

    def nearest_visible_tokens(self) -> Tensor:
        """[B, H] position of the visible token nearest to each hidden one, for the copy baseline."""
        visible = self.visible_tokens
        distance = (self.hidden_tokens.at[:, :, None] - visible.at[:, None, :]).abs()  # [B, H, V]
        distance = distance.masked_fill(~visible.valid[:, None, :], self.ids.shape[1])
        return visible.at.gather(1, distance.argmin(2))

    def nearest_visible_segments(self) -> Tensor:
        """[M] number of the visible segment of the same row nearest to each hidden one, the earlier of two."""
        number = torch.arange(len(self.row), device=self.row.device)  # [N]
        other = self.row[self.hidden_segments][:, None] != self.row  # [M, N]
        other[:, self.hidden_segments] = True
        distance = (self.hidden_segments[:, None] - number).abs()  # [M, N]
        return distance.masked_fill(other, len(number)).argmin(1)

    def hidden_texts(self, special: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Tokens of each hidden segment [M, L] but those in `special`, and which are real [M, L]; L = the longest."""
        rows = self.row[self.hidden_segments]  # [M]
        content = ~torch.isin(self.ids, torch.tensor(special, device=self.ids.device))  # [B, T]
        member = (self.segment[rows] == self.hidden_segments[:, None]) & content[rows]  # [M, T]
        at, valid = positions_of(member)  # [M, L]
        return self.ids[rows].gather(1, at), valid


def masked_text(
    keys: Tensor,
    ids: Tensor,
    valid: Tensor,
    segment: Tensor,
    is_hidden: Tensor,
    document: Tensor,
    position: Tensor,
    vocab: int,
    multiples: tuple[int, int] = (1, 1),
) -> MaskedText:
    """Make a batch of rows [B, T] and tables of their segments [N]; see `MaskedText`.

    `is_hidden` [N] bool. Widths are rounded up to `multiples`, of tokens and of segments.
    """
    tokens, segments = multiples
    hidden = (segment >= 0) & is_hidden[segment.clamp(min=0)] if len(is_hidden) else torch.zeros_like(valid)  # [B, T]
    first = (segment >= 0) & (segment != F.pad(segment, (1, -1), value=-1))  # [B, T], a segment begins here
    row, start = first.nonzero(as_tuple=True)  # [N]
    return MaskedText(
        keys=keys,
        ids=ids,
        valid=valid,
        hidden=hidden,
        segment=segment,
        visible_tokens=some_tokens(valid & ~hidden, segment, tokens),
        hidden_tokens=some_tokens(hidden, segment, tokens),
        hidden_segments=is_hidden.nonzero()[:, 0],
        row=row,
        start=start,
        document=document,
        position=position,
        visible_by_document=by_document(~is_hidden, document, segments),
        hidden_by_document=by_document(is_hidden, document, segments),
        real_tokens=int(valid.sum()),
        vocab=vocab,
    )


def some_tokens(mask: Tensor, segment: Tensor, multiple: int) -> Tokens:
    """The tokens where `mask` [B, T] is True; K is rounded up to a multiple."""
    at, valid = positions_of(mask, multiple)  # [B, K]
    return Tokens(at, valid, segment.gather(1, at).masked_fill(~valid, -1))


def by_document(chosen: Tensor, document: Tensor, multiple: int) -> Segments:
    """The segments where `chosen` [N] is True, by `document` [N]; K is rounded up to a multiple."""
    documents = int(document.max()) + 1 if len(document) else 0
    numbers = chosen.nonzero()[:, 0]
    counts = torch.bincount(document[numbers], minlength=documents)  # [G]
    most = round_up(int(counts.max()), multiple) if documents else 0
    valid = up_to(counts, most)  # [G, K]
    return Segments(torch.zeros(valid.shape, dtype=torch.int64).masked_scatter(valid, numbers), valid)


@dataclass(frozen=True)
class MaskedTextCollator:
    """Rows of token ids to a batch in which spans of tokens are hidden; special tokens never are.

    Its segments are only the hidden spans; a row is a document.
    """

    tokenizer: TextTokenizer
    masker: TokenMasker

    def __call__(self, rows: Sequence[Sample]) -> MaskedText:
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

    def inputs(self, max_len: int) -> TextInputs:
        """How texts are read for embedding."""
        return running_text(self.tokenizer, max_len, self.whole)

    def pictures(self, batch: MaskedText) -> list[Pieces]:
        """The rows of a batch for display, token by token."""
        return text_pictures(self.tokenizer, batch)

    def _batch(self, keys: Tensor, ids: Tensor, valid: Tensor, hidden: Tensor) -> MaskedText:
        first = hidden & ~F.pad(hidden, (1, -1))  # [B, T], a span begins here
        number = first.flatten().cumsum(0).view_as(ids) - 1  # [B, T]
        row = first.nonzero()[:, 0]  # [N]
        return masked_text(
            keys=keys,
            ids=ids,
            valid=valid,
            segment=number.masked_fill(~hidden, -1),
            is_hidden=torch.ones(len(row), dtype=torch.bool),
            document=row,
            position=positions_within(row[None])[0],
            vocab=self.tokenizer.vocab_size,
        )


def random_ids(ids: Tensor, vocab: int, generator: torch.Generator) -> Tensor:
    """Random token ids below `vocab` in the shape of `ids`."""
    return torch.randint(vocab, ids.shape, generator=generator).to(ids.device)


def positions_within(segments: Tensor) -> Tensor:
    """segments [B, T], the number of each token's run -> each token's position in its run, from 0 [B, T]."""
    starts = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)  # [B, T]
    at = torch.arange(segments.shape[1], device=segments.device)  # [T]
    return at - torch.where(starts, at, 0).cummax(1).values


def positions_of(mask: Tensor, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """mask [B, T] -> the positions of its True entries in order, [B, K], and which are real.

    K is the most in a row, rounded up to a multiple (but never above T).
    """
    counts = mask.sum(1)  # [B]
    most = round_up(int(counts.max()), multiple) if len(counts) else 0
    order = torch.argsort(~mask, dim=1, stable=True)[:, :most]  # [B, K]
    return order, up_to(counts, order.shape[1])
