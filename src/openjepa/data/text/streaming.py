"""A streamed tokenised corpus, never whole on disk or in memory: training reads documents and makes their rows.

The training documents, in the source's order, are cut into windows of `data.shuffle_window`. The loader shuffles and
batches each window as it does an epoch of a cached corpus; a row has the same number, tokens and randomness in both. So
the batches are a function of (documents, seed), and the offset where a window begins is all that resuming needs.

Every rank reads and tokenises everything and takes its own rows of each batch: ranks need no communication, share no
document, and reading costs each as much as a single process. Streaming limits shuffling: a document shares batches
only with those of its window, in every epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from openjepa.core.errors import UserError
from openjepa.core.experiment import Offset, Window
from openjepa.data.text.corpus import TokenRow, viewed
from openjepa.data.text.rows import RowMaker
from openjepa.data.text.sources import START, Counts, DataConfig, Position, documents
from openjepa.data.text.token_cache import chunks
from openjepa.data.tokenizers.unknown_tokens import UnknownTokens

T = TypeVar("T")


class _Begin(NamedTuple):
    """Start of a window, in the source and in the epoch."""

    shard: int = START.shard
    record: int = START.record
    document: int = 0  # number of training documents before it that gave rows
    row: int = 0  # number of rows before it


class _Tokenized(NamedTuple):
    """A document's rows."""

    position: Position
    rows: list[np.ndarray]  # [L] int32 each, at least one


class StreamedCorpus:
    """`core.experiment.StreamedData` of `TokenRow`s: the training documents of a source, read anew in each epoch."""

    def __init__(self, cfg: DataConfig, maker: RowMaker) -> None:
        self.cfg = cfg
        self.maker = maker

    def windows(self, start: Offset | None = None) -> Iterator[Window]:
        """Yield one epoch, or the rest of one. Raises UserError if there is no row to train on."""
        begin = _Begin(*start) if start else _Begin()
        counts = Counts()
        for group in in_windows(self._tokenized(Position(begin.shard, begin.record), counts), self.cfg.shuffle_window):
            begin = begin._replace(shard=group[0].position.shard, record=group[0].position.record)
            rows = [
                TokenRow(ids, self.maker.special(ids), number)
                for number, document in enumerate(group, start=begin.document)
                for ids in document.rows
            ]
            yield Window(rows, np.array([len(row.ids) for row in rows], dtype=np.int32), begin.row, tuple(begin))
            begin = begin._replace(document=begin.document + len(group), row=begin.row + len(rows))
        if begin.row == 0:
            raise UserError(f"data.source {self.cfg.source}: nothing is left to train on ({dict(counts)})")

    @cached_property
    def unknown(self) -> UnknownTokens:
        """Count of the tokens of the first window that the tokenizer does not know. Reads that window on first use."""
        found = UnknownTokens(self.maker.tokenizer)
        found.add([row.ids for row in next(self.windows()).rows])
        return found

    def training_view(self, row: TokenRow, generator: torch.Generator) -> TokenRow:
        """The view of the row in training, see `ViewsConfig`."""
        return viewed(self.maker, row, generator)

    def _tokenized(self, start: Position, counts: Counts) -> Iterator[_Tokenized]:
        for chunk in chunks(documents(self.cfg, "train", counts, start), most=_quarter(self.cfg.shuffle_window)):
            for document, rows in zip(chunk, self.maker.rows(chunk, counts), strict=True):
                if rows:
                    yield _Tokenized(document.position, rows)


def in_windows(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` neighbours; a remainder of less than a quarter joins the last list. Reads a quarter ahead."""
    window = list(islice(items, size))
    while window:
        more = list(islice(items, _quarter(size)))
        if len(more) < _quarter(size):
            yield window + more
            return
        yield window
        window = more + list(islice(items, size - len(more)))


def _quarter(size: int) -> int:
    return max(1, size // 4)
