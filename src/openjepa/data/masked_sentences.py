"""Rows of whole sentences to batches in which some sentences are hidden.

Every token knows its sentence, so that a latent per sentence is one product with a pooling matrix, and sentences can be
encoded side by side in one pass without seeing each other. A sentence's closing [SEP] belongs to it. All indices are
made here, in the data workers.

Widths are rounded up, tokens to `PAD_TO`, sentences to `PAD_SENTENCES`: otherwise nearly every batch has sizes of its
own, and on CPU a matrix product of new sizes costs more to prepare than to compute (half of each step).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Self

import numpy as np
import torch
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.experiment import Row
from openjepa.core.picture import Pieces
from openjepa.core.sizes import round_up
from openjepa.data.corpus import pad, up_to
from openjepa.data.masked_text import places_of, places_within, random_ids
from openjepa.data.pictures import text_pictures
from openjepa.data.rows import SentenceRows
from openjepa.data.text_inputs import TextInputs

PAD_TO, PAD_SENTENCES = 8, 2


@dataclass
class Sentences:
    """Some sentences of each row of a batch, S at most, and their tokens, K at most, side by side."""

    sentence: Tensor  # [B, T] int64, number of each token's sentence
    number: Tensor  # [B, S] int64, numbers of these sentences within their rows
    real: Tensor  # [B, S] bool
    at: Tensor  # [B, K] int64, places of their tokens
    valid: Tensor  # [B, K] bool

    @cached_property
    def of(self) -> Tensor:
        """[B, K] number of each token's sentence; -1 on padding."""
        return self.sentence.gather(1, self.at).masked_fill(~self.valid, -1)

    @cached_property
    def alone(self) -> tuple[Tensor, Tensor]:
        """The number of each token's sentence, -1 on padding, and each token's place in its sentence, both [B, K].

        The arguments of an encoder that reads each sentence as a text of its own, all in one pass.
        """
        return self.of, places_within(self.of)

    @cached_property
    def weights(self) -> Tensor:
        """[B, S, K] weights that turn latents of the tokens [B, K, D] into the mean of each sentence [B, S, D]."""
        member = self.of[:, None, :] == self.number[:, :, None]  # [B, S, K]
        return member / member.sum(2, keepdim=True).clamp_min(1)


@dataclass(kw_only=True)
class MaskedSentences(Batch):
    """Passages of which whole sentences are hidden. T = longest row, V, H = most visible and hidden tokens,
    S, C = most hidden and visible sentences in a row. Neighbouring rows can be passages of one of G documents."""

    ids: Tensor  # [B, T] int64, clean token ids
    valid: Tensor  # [B, T] bool, False on padding
    sentence: Tensor  # [B, T] int64, number of each token's sentence; the first's includes a prefix, padding has -1
    hidden: Tensor  # [B, T] bool, True on tokens of hidden sentences
    context_at: Tensor  # [B, V] int64, places of the visible tokens
    context_valid: Tensor  # [B, V] bool
    hidden_at: Tensor  # [B, H] int64, places of the hidden tokens
    hidden_valid: Tensor  # [B, H] bool
    asked: Tensor  # [B, S] int64, numbers of the hidden sentences in order
    asked_valid: Tensor  # [B, S] bool
    seen: Tensor  # [B, C] int64, numbers of the visible sentences in order
    seen_valid: Tensor  # [B, C] bool
    document: Tensor  # [B] int64, which of the G documents each row is a passage of
    before: Tensor  # [B] int64, sentences of the document before each row
    all_asked: Tensor  # [G, A] int64, places in `asked` (flat, B * S) of each document's hidden sentences, in order
    all_asked_valid: Tensor  # [G, A] bool
    all_seen: Tensor  # [G, Z] int64, places in `seen` (flat, B * C) of each document's visible sentences, in order
    all_seen_valid: Tensor  # [G, Z] bool
    real_tokens: int  # unpadded tokens in the batch
    vocab: int  # ids are below it

    @property
    def tokens(self) -> int:
        return self.real_tokens

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with random tokens in the hidden sentences."""
        return replace(self, ids=torch.where(self.hidden, random_ids(self.ids, self.vocab, generator), self.ids))

    @cached_property
    def visible_part(self) -> Sentences:
        """The sentences of the context."""
        return Sentences(self.sentence, self.seen, self.seen_valid, self.context_at, self.context_valid)

    @cached_property
    def hidden_part(self) -> Sentences:
        """The sentences to be predicted."""
        return Sentences(self.sentence, self.asked, self.asked_valid, self.hidden_at, self.hidden_valid)

    def part(self, numbers: Tensor, real: Tensor) -> Sentences:
        """The sentences of these `numbers` [B, S] in each row, where `real` [B, S]."""
        wanted = numbers.masked_fill(~real, -2)  # [B, S]
        tokens = (self.sentence[:, :, None] == wanted[:, None, :]).any(2)  # [B, T]
        return Sentences(self.sentence, numbers, real, *places_of(tokens, PAD_TO))

    @cached_property
    def every_sentence(self) -> tuple[Tensor, Tensor]:
        """Numbers [B, N] of the sentences of each row, and which are real [B, N]."""
        number = torch.arange(int(self.sentence.max()) + 1, device=self.ids.device).expand(self.size, -1)  # [B, N]
        return number, number <= self.sentence.amax(1, keepdim=True)

    @cached_property
    def hidden_of_all(self) -> Tensor:
        """[N] bool, which of all sentences are hidden; row by row, in order, so that they come as predictions do."""
        number, real = self.every_sentence  # [B, N]
        asked = self.asked.masked_fill(~self.asked_valid, -1)  # [B, S]
        return (number[:, :, None] == asked[:, None]).any(2)[real]

    @cached_property
    def document_of_all(self) -> Tensor:
        """[N] the document of each of all sentences, in the same order."""
        return self.document[self.every_sentence[1].nonzero()[:, 0]]

    @property
    def asked_places(self) -> Tensor:
        """[G, A] number in its document of each hidden sentence."""
        return (self.asked + self.before[:, None]).flatten()[self.all_asked]

    @property
    def seen_places(self) -> Tensor:
        """[G, Z] number in its document of each visible sentence."""
        return (self.seen + self.before[:, None]).flatten()[self.all_seen]

    def nearest_visible(self) -> Tensor:
        """[B, S] number of the visible sentence nearest to each hidden one, for the copy baseline."""
        distance = (self.asked[:, :, None] - self.seen[:, None]).abs()  # [B, S, C]
        far = self.ids.shape[1]
        return self.seen.gather(1, distance.masked_fill(~self.seen_valid[:, None], far).argmin(2))

    def hidden_texts(self, special: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Tokens of each hidden sentence [M, L] but those in `special`, and which are real [M, L].

        M counts the hidden sentences of all rows, in the order of `asked`; L is the longest of them.
        """
        content = ~torch.isin(self.ids, torch.tensor(special, device=self.ids.device))  # [B, T]
        member = (self.sentence[:, None] == self.asked[:, :, None]) & content[:, None]  # [B, S, T]
        at, valid = places_of(member[self.asked_valid])  # [M, L]
        return self.ids[self.asked_valid.nonzero()[:, :1], at], valid


@dataclass(frozen=True)
class MaskedSentencesCollator:
    """Rows made by `rows` to a batch; `masker` says which sentences are hidden."""

    rows: SentenceRows
    masker: Callable[[int, torch.Generator], Tensor]

    def __call__(self, rows: Sequence[Row]) -> MaskedSentences:
        passages = [self.rows.passages(row.sample.ids) for row in rows]
        document = [i for i, own in enumerate(passages) for _ in own]
        ids = [*chain(*passages)]
        numbers = [self._numbers(row) for row in ids]
        hidden = [
            self.masker(int(number[-1]) + 1, rows[i].generator).numpy()[number]
            for number, i in zip(numbers, document, strict=True)
        ]
        return self._batch([row.index for row in rows], document, ids, numbers, hidden)

    def whole(self, rows: Sequence[np.ndarray]) -> MaskedSentences:
        """Rows of token ids [L_i] with nothing hidden, for embedding."""
        numbers = [self._numbers(row) for row in rows]
        hidden = [np.zeros(len(row), dtype=bool) for row in rows]
        each = range(len(rows))
        return self._batch(each, each, list(rows), numbers, hidden)

    def inputs(self, synthetic_world: bool = False) -> TextInputs:
        """How texts are read for embedding: in windows of whole sentences."""
        tokenizer = self.rows.tokenizer
        blank = self.rows.join([tokenizer.blank])
        return TextInputs(tokenizer, self.rows.max_len, self.rows.windows, self.whole, blank, synthetic_world)

    def pictures(self, batch: MaskedSentences) -> list[Pieces]:
        """What the rows of a batch look like, token by token."""
        return text_pictures(self.rows.tokenizer, batch)

    def _numbers(self, ids: np.ndarray) -> np.ndarray:
        """[L] the number of each token's sentence: how many [SEP] stand before it."""
        ends = ids == self.rows.tokenizer.sep_id
        ends[: len(self.rows.tokenizer.prefix)] = False
        return np.concatenate([[0], np.cumsum(ends)[:-1]])

    def _batch(
        self, keys: Sequence[int], document: Sequence[int], ids: list, numbers: list, hidden: list
    ) -> MaskedSentences:
        """Rows of ids [L_i], passages of the documents `document` that have these `keys`."""
        width = min(round_up(max(map(len, ids)), PAD_TO), self.rows.max_len)
        valid = pad([np.ones(len(row), dtype=bool) for row in ids], False, width)  # [B, T]
        sentence, hides = pad(numbers, -1, width), pad(hidden, False, width)  # [B, T]
        context_at, context_valid = places_of(valid & ~hides, PAD_TO)
        hidden_at, hidden_valid = places_of(hides, PAD_TO)
        last = torch.tensor([int(row[-1]) for row in numbers])  # [B]
        exists = torch.arange(int(last.max()) + PAD_SENTENCES) <= last[:, None]  # [B, N]
        is_asked = torch.zeros_like(exists)  # [B, N]
        row, place = hides.nonzero(as_tuple=True)
        is_asked[row, sentence[row, place]] = True
        asked, asked_valid = places_of(is_asked, PAD_SENTENCES)
        seen, seen_valid = places_of(exists & ~is_asked, PAD_SENTENCES)
        own = torch.tensor(list(document))  # [B]
        count = (last + 1).cumsum(0) - last - 1  # [B] sentences before each row in the batch
        all_asked, all_asked_valid = _by_document(asked_valid, own)
        all_seen, all_seen_valid = _by_document(seen_valid, own)
        return MaskedSentences(
            keys=torch.tensor(list(keys))[own],
            ids=pad(ids, self.rows.tokenizer.pad_id, width),
            valid=valid,
            sentence=sentence,
            hidden=hides,
            context_at=context_at,
            context_valid=context_valid,
            hidden_at=hidden_at,
            hidden_valid=hidden_valid,
            asked=asked,
            asked_valid=asked_valid,
            seen=seen,
            seen_valid=seen_valid,
            document=own,
            before=count - count[torch.searchsorted(own, own)],
            all_asked=all_asked,
            all_asked_valid=all_asked_valid,
            all_seen=all_seen,
            all_seen_valid=all_seen_valid,
            real_tokens=int(valid.sum()),
            vocab=self.rows.tokenizer.vocab_size,
        )


def _by_document(valid: Tensor, document: Tensor) -> tuple[Tensor, Tensor]:
    """Sentences [B, S] of rows of documents [B] -> their flat places by document [G, K], and which are real."""
    counts = torch.bincount(document, valid.sum(1), minlength=int(document[-1]) + 1).long()  # [G]
    real = up_to(counts, round_up(int(counts.max()), PAD_SENTENCES))  # [G, K]
    places = torch.zeros(real.shape, dtype=torch.int64)
    places[real] = valid.flatten().nonzero()[:, 0]
    return places, real
