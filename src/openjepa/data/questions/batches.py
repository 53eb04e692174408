"""Questions and answers as one row each: question, [SEP], answer, [PRED]. Tokenised once, before any batch is made.

The answer is hidden from [PRED]; the attention mask is made by `masking.attention`, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.experiment import Sample
from openjepa.core.picture import Pieces
from openjepa.data.files.readers import Counts
from openjepa.data.pictures import text_pictures
from openjepa.data.questions.dataset import Question
from openjepa.data.text.corpus import pad, pad_rows, up_to
from openjepa.data.text.inputs import TextInputs, parts_of
from openjepa.data.text.masked import random_ids
from openjepa.data.tokenizers.choice import TextTokenizer
from openjepa.data.tokenizers.unknown_tokens import UnknownTokens

PRED = "[PRED]"


class QuestionRow(NamedTuple):
    """A question and its answer as token ids."""

    question: np.ndarray  # [Q] int32, without [SEP]
    answer: np.ndarray  # [A] int32


@dataclass(kw_only=True)
class QuestionBatch(Batch):
    """Rows of question, [SEP], answer, [PRED]; T = the longest. Rows for embedding have no answer."""

    ids: Tensor  # [B, T] int64 token ids
    valid: Tensor  # [B, T] bool, False on padding
    hidden: Tensor  # [B, T] bool, True on the answer
    followed: Tensor  # [B, T] bool, True where the next token is of the same part, question or answer
    pred_at: Tensor  # [B] int64, position of [PRED], the last valid one
    answer_positions: Tensor  # [B, A] int64, positions of the answer's tokens; A = the longest answer
    answer_valid: Tensor  # [B, A] bool
    real_tokens: int  # unpadded tokens in the batch
    vocab: int  # ids are below it

    @property
    def tokens(self) -> int:
        return self.real_tokens

    def with_other_hidden(self, generator: torch.Generator) -> Self:
        """The same batch with random tokens for the answers."""
        return replace(self, ids=torch.where(self.hidden, random_ids(self.ids, self.vocab, generator), self.ids))

    @property
    def answer_at(self) -> Tensor:
        """[B] int64, position of the answer's last token (in a row without answer: of [SEP])."""
        return self.pred_at - 1

    def answers(self) -> tuple[Tensor, Tensor]:
        """Tokens of each answer [B, A], and valid [B, A]."""
        return self.ids.gather(1, self.answer_positions), self.answer_valid


class TokenizedQuestions(Dataset[QuestionRow]):
    """Map-style data set in memory, read and tokenised on first use. Rows over `max_len` tokens are left out."""

    def __init__(self, load: Callable[[], Sequence[Question]], tokenizer: TextTokenizer, max_len: int) -> None:
        self.load = load
        self.tokenizer = tokenizer
        self.max_len = max_len
        self.counts = Counts()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> QuestionRow:
        return self.rows[index]

    @property
    def lengths(self) -> np.ndarray:
        """[N] int32, tokens of each row, [SEP] and [PRED] included."""
        return np.array([_length(row) for row in self.rows], dtype=np.int32)

    @cached_property
    def rows(self) -> list[QuestionRow]:
        """All rows. Raises UserError if every one is too long."""
        loaded = self.load()
        question_ids = self.tokenizer.encode_content([question.question for question in loaded])
        answer_ids = self.tokenizer.encode_content([question.answer for question in loaded])
        rows = []
        for question, row in zip(loaded, map(QuestionRow, question_ids, answer_ids), strict=True):
            if _length(row) > self.max_len:
                self.counts.add(f"longer than {self.max_len} tokens", question.id)
            elif not len(row.question) or not len(row.answer):
                self.counts.add("without a token in question or answer", question.id)
            else:
                rows.append(row)
        if not rows:
            raise UserError(f"none of {len(loaded)} questions can be used: {dict(self.counts)}; raise decoder.max_len")
        return rows

    @cached_property
    def unknown(self) -> UnknownTokens:
        """Count of the tokens of all rows that the tokenizer does not know."""
        found = UnknownTokens(self.tokenizer)
        found.add([ids for row in self.rows for ids in row])
        return found


@dataclass(frozen=True)
class QuestionCollator:
    """Rows to a QuestionBatch; `tokenizer` has [SEP] and [PRED]."""

    tokenizer: TextTokenizer
    pred_id: int

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> QuestionCollator:
        """A collator for a tokenizer whose vocabulary may lack [PRED]."""
        return cls(*tokenizer.grown(PRED))

    def __call__(self, rows: Sequence[Sample]) -> QuestionBatch:
        return self._batch([row.sample for row in rows], torch.tensor([row.index for row in rows]))

    def whole(self, questions: Sequence[np.ndarray]) -> QuestionBatch:
        """Token ids of questions [Q_i] without answers, for embedding."""
        no_answer = np.zeros(0, dtype=np.int32)
        return self._batch([QuestionRow(ids, no_answer) for ids in questions], torch.arange(len(questions)))

    def inputs(self, max_len: int, synthetic_world: bool = False) -> TextInputs:
        """How texts are read for embedding: as questions, whose rows also hold [SEP] and [PRED]."""
        room = max_len - 2

        def windows(texts: Sequence[str]) -> list[list[np.ndarray]]:
            contents = self.tokenizer.encode_content([text.strip() for text in texts])  # as training reads them
            return [parts_of(content, room) for content in contents]

        return TextInputs(
            self.tokenizer, room, windows, self.whole, self.tokenizer.blank, synthetic_world=synthetic_world
        )

    def pictures(self, batch: QuestionBatch) -> list[Pieces]:
        """The rows of a batch for display, token by token."""
        return text_pictures(self.tokenizer, batch)

    def asked(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each question with its [SEP]."""
        return [np.append(ids, self.tokenizer.sep_id) for ids in self.tokenizer.encode_content(texts)]

    def answers(self, texts: Sequence[str], max_len: int) -> tuple[Tensor, Tensor]:
        """Answers without questions: ids [N, A] int64 and valid [N, A]; cut at `max_len` tokens."""
        content = [ids[:max_len] if len(ids) else self.tokenizer.blank for ids in self.tokenizer.encode_content(texts)]
        return pad_rows(content, self.tokenizer.pad_id)

    def _batch(self, rows: Sequence[QuestionRow], keys: Tensor) -> QuestionBatch:
        marks = np.array([[self.tokenizer.sep_id], [self.pred_id]], dtype=np.int32)
        ids = pad(
            [np.concatenate([row.question, marks[0], row.answer, marks[1]]) for row in rows], self.tokenizer.pad_id
        )
        question = torch.tensor([len(row.question) + 1 for row in rows])  # [B] length, with [SEP]
        pred_at = question + torch.tensor([len(row.answer) for row in rows])  # [B]
        valid = up_to(pred_at + 1, ids.shape[1])
        longest = max(len(row.answer) for row in rows)
        is_answer = up_to(pred_at, ids.shape[1]) & ~up_to(question, ids.shape[1])  # [B, T]
        return QuestionBatch(
            keys=keys,
            ids=ids,
            valid=valid,
            hidden=is_answer,
            followed=up_to(question - 1, ids.shape[1]) | (is_answer & up_to(pred_at - 1, ids.shape[1])),
            pred_at=pred_at,
            answer_positions=torch.minimum(question[:, None] + torch.arange(longest), pred_at[:, None]),
            answer_valid=up_to(pred_at - question, longest),
            real_tokens=int(valid.sum()),
            vocab=self.tokenizer.vocab_size,
        )


def texts_of(found: Sequence[Question]) -> Iterator[str]:
    """Questions and answers, one after the other, to train a tokenizer on."""
    return (text for row in found for text in (row.question, row.answer))


def _length(row: QuestionRow) -> int:
    return len(row.question) + len(row.answer) + 2
