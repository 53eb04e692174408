"""Rows of whole sentences to batches in which some sentences are hidden.

A sentence's closing [SEP] belongs to it, and what the tokenizer puts in front of a row belongs to its first sentence.
Widths are rounded up, tokens to `PAD_TO`, sentences to `PAD_SENTENCES`: otherwise nearly every batch has new sizes, and
on CPU the first matrix product of a new size costs more to set up than to compute (half of each step).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.experiment import Sample
from openjepa.core.picture import Pieces
from openjepa.core.sizes import round_up
from openjepa.data.pictures import text_pictures
from openjepa.data.text.corpus import pad
from openjepa.data.text.inputs import TextInputs
from openjepa.data.text.masked import MaskedText, masked_text, positions_within
from openjepa.data.text.rows import SentenceRows

PAD_TO = 8
PAD_SENTENCES = 2


@dataclass(frozen=True)
class MaskedSentencesCollator:
    """Rows made by `rows` to a batch whose segments are sentences; `masker` draws which are hidden."""

    rows: SentenceRows
    masker: Callable[[int, torch.Generator], Tensor]

    def __call__(self, rows: Sequence[Sample]) -> MaskedText:
        passages = [self.rows.passages(row.sample.ids) for row in rows]
        document = [i for i, parts in enumerate(passages) for _ in parts]
        ids = [*chain(*passages)]
        numbers = [self._numbers(row) for row in ids]
        hidden = [self.masker(_count(row), rows[i].generator) for row, i in zip(numbers, document, strict=True)]
        return self._batch([row.index for row in rows], document, ids, numbers, hidden)

    def whole(self, rows: Sequence[np.ndarray]) -> MaskedText:
        """Rows of token ids [L_i] with nothing hidden, for embedding."""
        each = range(len(rows))
        numbers = [self._numbers(row) for row in rows]
        hidden = [torch.zeros(_count(row), dtype=torch.bool) for row in numbers]
        return self._batch(each, each, rows, numbers, hidden)

    def documents(self, texts: Sequence[str]) -> tuple[MaskedText | None, list[str]]:
        """Documents with nothing hidden, and their N sentences; a document of one sentence has none.

        No batch (None) if there is no sentence at all.
        """
        rows: list[np.ndarray] = []
        owner: list[int] = []
        sentences: list[str] = []
        for number, text in enumerate(texts):
            pieces = self._pieces(text)
            packed = self.rows.pack([piece for _, piece in pieces])
            rows += [self.rows.join(passage) for passage in packed]
            owner += [number] * len(packed)
            sentences += [sentence for sentence, _ in pieces[: sum(map(len, packed))]]
        if not rows:
            return None, []
        numbers = [self._numbers(row) for row in rows]
        hidden = [torch.zeros(_count(row), dtype=torch.bool) for row in numbers]
        return self._batch(range(len(texts)), owner, rows, numbers, hidden), sentences

    def continued(self, text: str) -> MaskedText:
        """A text as one document, and one hidden sentence behind it, whose only token stands for any.

        Of a text longer than a row, its last sentences. Raises UserError for a text without words.
        """
        known = [piece for _, piece in self._pieces(text)]
        if not known:
            raise UserError("the text is empty; give a sentence or more")
        packed = self.rows.pack([*known, self.rows.tokenizer.blank])[-self.rows.sentences.passages :]
        rows = [self.rows.join(passage) for passage in packed]
        numbers = [self._numbers(row) for row in rows]
        hidden = [torch.zeros(_count(row), dtype=torch.bool) for row in numbers]
        hidden[-1][-1] = True
        return self._batch([0], [0] * len(rows), rows, numbers, hidden)

    def _pieces(self, text: str) -> list[tuple[str, np.ndarray]]:
        """The sentences of a text with their tokens [L_i]; one that is too long for a row, in several pieces."""
        sentences = self.rows.split(text)
        contents = self.rows.tokenizer.encode_content(sentences)
        paired = zip(sentences, contents, strict=True)
        return [(sentence, piece) for sentence, content in paired for piece in self.rows.fit([content])]

    def inputs(self) -> TextInputs:
        """How texts are read for embedding: in windows of whole sentences."""
        tokenizer = self.rows.tokenizer
        blank = self.rows.join([tokenizer.blank])
        return TextInputs(
            tokenizer, self.rows.max_len, self.rows.windows, self.whole, blank, sentences=self.rows.sentences
        )

    def pictures(self, batch: MaskedText) -> list[Pieces]:
        """The rows of a batch for display, token by token."""
        return text_pictures(self.rows.tokenizer, batch)

    def _numbers(self, ids: np.ndarray) -> np.ndarray:
        """[L] the number of each token's sentence in its row: the count of [SEP] before it."""
        ends = ids == self.rows.tokenizer.sep_id
        ends[: len(self.rows.tokenizer.prefix)] = False
        return np.concatenate([[0], np.cumsum(ends)[:-1]])

    def _batch(
        self,
        keys: Sequence[int],
        document: Sequence[int],
        ids: Sequence[np.ndarray],
        numbers: Sequence[np.ndarray],
        hidden: Sequence[Tensor],
    ) -> MaskedText:
        """Make a batch of rows; `keys` are those of the documents, `document` is the number of each row's document.

        Each row has `ids` [L_i], the `numbers` of its tokens' sentences [L_i], and which sentences are `hidden` [S_i].
        """
        width = min(round_up(max(map(len, ids)), PAD_TO), self.rows.max_len)
        counts = torch.tensor([len(mask) for mask in hidden])  # [B]
        before = counts.cumsum(0) - counts  # [B] sentences before each row in the batch
        segments = [row + int(n) for row, n in zip(numbers, before, strict=True)]
        row_document = torch.tensor(list(document))  # [B]
        segment_document = row_document.repeat_interleave(counts)  # [N]
        return masked_text(
            keys=torch.tensor(list(keys))[row_document],
            ids=pad(ids, self.rows.tokenizer.pad_id, width),
            valid=pad([np.ones(len(row), dtype=bool) for row in ids], False, width),
            segment=pad(segments, -1, width),
            is_hidden=torch.cat(list(hidden)),
            document=segment_document,
            position=positions_within(segment_document[None])[0],
            vocab=self.rows.tokenizer.vocab_size,
            multiples=(PAD_TO, PAD_SENTENCES),
        )


def _count(numbers: np.ndarray) -> int:
    """Sentences of a row, by the numbers of its tokens' sentences [L]."""
    return int(numbers[-1]) + 1
