"""Documents to rows of token ids in Arrow files: one pass over the source, in chunks, on all cores."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from openjepa.core.atomic import replaced_folder
from openjepa.core.errors import UserError
from openjepa.data.files.records import Counts
from openjepa.data.loading.held_out import is_held_out, nothing_held_out, nothing_to_train_on
from openjepa.data.text.rows import ONE_SENTENCE, TOO_SHORT, RowMaker
from openjepa.data.text.sources import KEPT, DataConfig, Document, documents
from openjepa.data.tokenizers.unknown_tokens import UnknownTokens

# in the counts, special tokens not included
TOKENS = "tokens to train on"
UNKNOWN = "unknown tokens to train on"
SPLITS = ("train", "eval")
TO_TRAIN_ON = "rows to train on"
HELD_OUT = "rows held out"
NO_ROWS = {
    ONE_SENTENCE: "is one sentence, and this recipe predicts sentences from the others of their document; give longer "
    "documents (of .txt: data.txt=paragraphs or files), or train a recipe that reads single sentences, such as t_jepa",
    TOO_SHORT: "is too short to hide a part of it; give longer documents (of .txt: data.txt=paragraphs or files)",
}  # why a document gives no row
CHUNK_CHARS = 4_000_000  # documents tokenised together
CHUNK_DOCUMENTS = 2048
QUIET_S = 2.0  # seconds of work before a progress bar shows
SCHEMA = pa.schema(
    [("ids", pa.list_(pa.int32())), ("document", pa.int32()), ("id", pa.string()), ("label", pa.string())]
)


def build(folder: Path, cfg: DataConfig, maker: RowMaker) -> None:
    """Tokenise the source into `folder`: train.arrow, eval.arrow, counts.json. Raises UserError if a split is empty.

    Of a source that training streams, only the first `cfg.eval_documents` held-out documents are kept.
    """
    counts = Counts()
    stream = documents(cfg, counts=counts)
    if cfg.endless:
        stream = islice(documents(cfg, "eval", counts), cfg.eval_documents)
    with replaced_folder(folder) as temporary:
        with _Writer(temporary, maker, counts) as writer:
            for chunk in _progress(chunks(stream), writer):
                writer.add(chunk, [is_held_out(document.text, cfg.eval_fraction) for document in chunk])
        counts[TOKENS] = writer.trained_on.tokens
        counts[UNKNOWN] = writer.trained_on.unknown
        if not counts[HELD_OUT] or not (counts[TO_TRAIN_ON] or cfg.endless):
            raise _split_is_empty(cfg, maker, counts)
        (temporary / "counts.json").write_text(json.dumps(counts, ensure_ascii=False), encoding="utf-8")


def _split_is_empty(cfg: DataConfig, maker: RowMaker, counts: Counts) -> UserError:
    """The error for a source without a row to train on, or without one held out."""
    if counts[HELD_OUT]:
        return nothing_to_train_on(cfg.source, cfg.eval_fraction, counts[KEPT])
    unusable = Counts()
    usable = [
        document.text
        for chunk in chunks(documents(cfg))
        for document, rows in zip(chunk, maker.rows(chunk, unusable), strict=True)
        if rows
    ]
    if usable:
        others = {reason: unusable[reason] for reason in NO_ROWS}
        return nothing_held_out(cfg.source, cfg.eval_fraction, usable, others)
    reason, count = unusable.most_common(1)[0]
    which = "every document" if count == counts[KEPT] else f"{count:,} of {counts[KEPT]:,} documents"
    return UserError(f"data.source {cfg.source}: {which} {NO_ROWS.get(reason, f'gives no row ({reason})')}")


class _Writer:
    """Makes rows of documents and appends them to the two Arrow files."""

    def __init__(self, folder: Path, maker: RowMaker, counts: Counts) -> None:
        self.maker = maker
        self.counts = counts
        self.files = [pa.OSFile(str(folder / f"{split}.arrow"), "wb") for split in SPLITS]
        self.streams = [pa.ipc.new_file(file, SCHEMA) for file in self.files]
        self.documents = [0, 0]
        self.tokens = 0
        self.trained_on = UnknownTokens(maker.tokenizer)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in (*self.streams, *self.files):
            handle.close()

    def add(self, chunk: Sequence[Document], held_out: Sequence[bool]) -> None:
        rows: tuple[list[Any], list[Any]] = ([], [])
        for document, made, out in zip(chunk, self.maker.rows(chunk, self.counts), held_out, strict=True):
            if made:
                number = self.documents[out]
                rows[out].extend((row, number, document.id, document.label) for row in made)
                self.documents[out] += 1
                self.tokens += sum(map(len, made))
        for stream, part, name in zip(self.streams, rows, (TO_TRAIN_ON, HELD_OUT), strict=True):
            if part:
                stream.write_batch(_record_batch(part))
                self.counts[name] += len(part)
        self.trained_on.add([row for row, *_ in rows[0]])


def _record_batch(rows: Sequence[tuple[np.ndarray, int, str, str | None]]) -> pa.RecordBatch:
    pieces, numbers, ids, labels = zip(*rows, strict=True)
    offsets = np.cumsum([0, *map(len, pieces)], dtype=np.int32)
    tokens = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(pieces)))
    columns = [tokens, pa.array(numbers, pa.int32()), pa.array(ids, pa.string()), pa.array(labels, pa.string())]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def chunks(stream: Iterator[Document], most: int = CHUNK_DOCUMENTS) -> Iterator[list[Document]]:
    """Lists of documents, bounded in number and in characters."""
    while first := next(stream, None):
        chunk = [first]
        chars = len(first.text)
        while len(chunk) < most and chars < CHUNK_CHARS and (more := next(stream, None)):
            chunk.append(more)
            chars += len(more.text)
        yield chunk


def _progress(incoming: Iterator[list[Document]], writer: _Writer) -> Iterator[list[Document]]:
    """Yield the chunks, with a counter on a terminal's stderr if it takes long."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("tokenising", visible=False)
        for chunk in incoming:
            yield chunk
            elapsed_s = bar.tasks[task].elapsed or 0.0
            done = f"tokenising: {sum(writer.documents):,} documents, {writer.tokens:,} tokens"
            bar.update(task, description=done, visible=elapsed_s > QUIET_S)
