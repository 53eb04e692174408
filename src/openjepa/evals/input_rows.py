"""From N inputs to the rows that a network reads, and from the rows' vectors to the inputs' vectors.

A text longer than the encoder reads has several rows (see `data.text.inputs`); everything else has one. Rows are read
in order of length, so that a batch has little padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openjepa.core.batch import Batch
from openjepa.core.sizes import round_up
from openjepa.data.text.inputs import ReadingReport, TextInputs

BATCH_TOKENS = 4096  # of a batch, with padding: large enough for wide products, small enough for caches
BATCH_INPUTS = 64  # of a batch of anything but rows of ids
PAD_TO = 16  # tokens; lengths are counted as rounded up to it


@dataclass(frozen=True)
class InputRows:
    """R rows of N inputs."""

    rows: Sequence[Any]  # [R] token ids, or the inputs themselves
    owner: np.ndarray  # [R] int64, the input of each row; ascending
    share: np.ndarray  # [R] float64, weight of each row in its input's mean: they sum to 1, or 0 where nothing is read
    collate: Callable[[Sequence[Any]], Batch]
    count: int  # N
    unit_length: bool = False  # whether the mean of an input's rows is scaled to length 1

    @classmethod
    def of(
        cls, prepare: Callable[[Sequence[Any]], Batch], inputs: Sequence[Any], report: ReadingReport | None = None
    ) -> InputRows:
        """The rows of `inputs` as `prepare` reads them; `report` counts texts, and may cut long ones."""
        if not isinstance(prepare, TextInputs):
            return cls(inputs, np.arange(len(inputs)), np.ones(len(inputs)), prepare, len(inputs))
        report = ReadingReport(prepare) if report is None else report
        rows: list[np.ndarray] = []
        owner = []
        tokens = []
        for number, windows in enumerate(prepare.rows_of(inputs)):
            for row, length in report.add(windows) or [(prepare.blank, 0)]:
                rows.append(row)
                owner.append(number)
                tokens.append(length)
        weight = np.array(tokens, dtype=np.float64)  # [R]
        index = np.array(owner)  # [R]
        total = np.bincount(index, weight, minlength=len(inputs))[index]  # [R]
        share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
        return cls(rows, index, share, prepare.collate, len(inputs), prepare.unit_length)

    def batches(self, batch_tokens: int = BATCH_TOKENS) -> Iterator[tuple[list[int], Batch]]:
        """Numbers of rows and their batch, of at most `batch_tokens` tokens with padding; short rows first."""
        for numbers in grouped_by_length(self.rows, batch_tokens):
            yield numbers, self.collate([self.rows[i] for i in numbers])

    def means(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of the rows [R, D] -> of the inputs [N, D] float32: the mean weighted by tokens."""
        total = np.zeros((self.count, vectors.shape[1]))
        np.add.at(total, self.owner, vectors * self.share[:, None])
        if self.unit_length:
            lengths = np.linalg.norm(total, axis=1, keepdims=True)
            total = np.divide(total, lengths, out=total, where=lengths > 0)
        return total.astype(np.float32)

    def largest(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of the rows [R, D] -> of the inputs [N, D] float32: the largest value of each dimension."""
        found = np.full((self.count, vectors.shape[1]), -np.inf, dtype=np.float32)
        np.maximum.at(found, self.owner, vectors)
        return found


def grouped_by_length(rows: Sequence[Any], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of the rows in batches; rows of ids by length, others (images) BATCH_INPUTS at a time and in order."""
    if not all(isinstance(row, str) or (isinstance(row, np.ndarray) and row.ndim == 1) for row in rows):
        for start in range(0, len(rows), BATCH_INPUTS):
            yield list(range(start, min(start + BATCH_INPUTS, len(rows))))
        return
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if batch and (len(batch) + 1) * round_up(len(rows[number]), PAD_TO) > batch_tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
