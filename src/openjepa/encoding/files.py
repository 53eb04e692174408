"""Vectors of all texts in a file, in constant memory, and resumable: read a chunk, embed it, append it.

A process that is killed loses the chunks it was at. Repeat the command to resume it behind the rows that are kept; it
reads the texts before them again, only to see that they are still the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core.errors import UserError
from openjepa.data.files.records import MAX_LINE_MB, Counts, TxtRule, counts_line
from openjepa.encoding.compact import Compaction, neighbours_kept
from openjepa.encoding.outputs import check_output, write_output
from openjepa.encoding.partial import PartialVectors
from openjepa.encoding.rows import TextRow, text_rows
from openjepa.encoding.workers import Chunk, Encoded, Pass

CHUNK = 2048  # texts that are read, sorted by length and embedded together
CHUNK_CHARS = 2**23  # of them, from which a chunk is full
MEASURED = 1000  # texts of the first chunk on which the cost of compact vectors is measured


@dataclass(frozen=True)
class TextFiles:
    """The texts to embed: files as in `data.source` ("-" = lines of standard input) and how they are read."""

    files: str
    column: str = "text"
    id_column: str | None = None  # whose value names a row; None = where it stands
    txt: TxtRule = "lines"
    max_line_mb: int = MAX_LINE_MB

    def rows(self, counts: Counts) -> Iterator[TextRow]:
        """The rows in order, counting on the way."""
        return text_rows(self.files, self.column, self.txt, counts, self.id_column, self.max_line_mb)


@dataclass
class Progress:
    """What is known of the rows written so far; saved with them."""

    digest: str = ""  # of all rows' ids and texts, chained by chunk
    without_text: int = 0
    first_without_text: str | None = None
    scale: float | None = None  # of int8 codes
    clipped: int = 0
    neighbours_kept: float | None = None
    reading: dict[str, int] = field(default_factory=dict)  # sums of what encoders counted

    def add(self, encoded: Encoded, rows: list[TextRow], digest: str) -> None:
        """Count a chunk of rows."""
        self.digest = digest
        without = [row.id for row in rows if row.text is None]
        self.without_text += len(without)
        self.first_without_text = self.first_without_text or next(iter(without), None)
        for name, count in encoded.counted.items():
            self.reading[name] = self.reading.get(name, 0) + count


def embed_file(
    encoding: Callable[[], AbstractContextManager[Pass]],
    source: TextFiles,
    out: Path,
    compaction: Compaction,
    settings: Mapping[str, Any],
    on_rows: Callable[[int, bool], None] | None = None,
) -> dict[str, Any]:
    """Embed the texts of `source`, record by record, into `out`; memory does not grow with the file.

    Args:
        encoding: gives, as a context, what embeds chunks in order; see `encoding.workers`.
        source: the texts.
        out: .npy [N, D], .parquet (columns id, vector) or .faiss. It appears when it is complete.
        compaction: which dimensions are kept, and as which numbers.
        settings: what the vectors depend on beside the texts; an interrupted command is resumed only if they are the
            same.
        on_rows: called with a number of rows that are written, and whether an earlier process wrote them.

    Returns {"rows", "resumed_rows", "dim", "without_text", "first_without_text", "out", "files", "counts", "reading"}
    and what compact vectors cost: "scale", "clipped", "neighbours_kept". A row without text has a zero vector.
    Raises UserError if a file cannot be read or written, or no row holds a text.
    """
    check_output(out, compaction.quantization)
    counts = Counts()
    settings = {**settings, **vars(source), "dims": compaction.kept, "quantize": compaction.quantization}
    with PartialVectors(out, settings, compaction.width, compaction.dtype) as partial:
        progress = Progress(**partial.notes)
        chunks = _chunks(source.rows(counts))
        resumed = _skip(chunks, partial.rows, progress.digest, source.files, partial.path)
        if on_rows is not None and resumed:
            on_rows(resumed, True)
        with encoding() as embed:
            for chunk, encoded in embed(chunks):
                rows, digest = chunk.about
                vectors = _with_zero_rows(rows, encoded, compaction.full_dim)
                codes = _compact(vectors, rows, compaction, progress)
                progress.add(encoded, rows, digest)
                partial.append([row.id for row in rows], codes, vars(progress))
                if on_rows is not None:
                    on_rows(len(rows), False)
        if progress.without_text == partial.rows:
            partial.remove()
            why = f"{partial.rows} rows, all without one: {counts_line(counts)}" if partial.rows else "it is empty"
            raise UserError(f"{source.files} holds no text: {why}")
        partial.finish()
        files = write_output(partial, out, compaction.quantization)
        result = {"rows": partial.rows, "resumed_rows": resumed, "dim": compaction.kept, **vars(progress)}
    result.pop("digest")
    return result | {"out": str(out), "files": [str(file) for file in files], "counts": dict(counts)}


def _chunks(rows: Iterator[TextRow]) -> Iterator[Chunk]:
    """Up to CHUNK rows each: their texts, and beside them the rows and the digest of everything up to here."""
    digest = ""
    while chunk := _next_rows(rows):
        state = hashlib.blake2b(digest.encode(), digest_size=16)
        for row in chunk:
            state.update(repr((row.id, row.text)).encode("utf-8", "surrogatepass"))
        digest = state.hexdigest()
        yield Chunk([row.text for row in chunk if row.text is not None], (chunk, digest))


def _next_rows(rows: Iterator[TextRow]) -> list[TextRow]:
    chunk = []
    chars = 0
    while len(chunk) < CHUNK and chars < CHUNK_CHARS and (row := next(rows, None)) is not None:
        chunk.append(row)
        chars += len(row.text or "")
    return chunk


def _skip(chunks: Iterator[Chunk], rows: int, digest: str, source: str, kept: Path) -> int:
    """Read past the rows that are already written. Raises UserError if they are no longer the same."""
    done = 0
    found = ""
    while done < rows and (chunk := next(chunks, None)) is not None:
        read, found = chunk.about
        done += len(read)
    if done != rows or found != digest:
        raise UserError(f"{source} is no longer what {rows} rows were made of; remove {kept} to begin again")
    return done


def _with_zero_rows(rows: list[TextRow], encoded: Encoded, dim: int) -> np.ndarray:
    """The vectors [N, D] of all rows, zero where there is no text."""
    vectors = np.zeros((len(rows), dim), dtype=np.float32)
    with_text = [row.text is not None for row in rows]
    if any(with_text):
        vectors[with_text] = encoded.vectors
    return vectors


def _compact(vectors: np.ndarray, rows: list[TextRow], compaction: Compaction, progress: Progress) -> np.ndarray:
    """[N, D] -> [N, width]; the first chunk with a text fixes the scale, and tells what is lost."""
    with_text = [number for number, row in enumerate(rows) if row.text is not None]
    first = progress.scale is None and bool(with_text)
    if first:
        progress.scale = compaction.scale_of(vectors)
    codes, clipped = compaction.codes(vectors, progress.scale or 1.0)
    progress.clipped += clipped
    if first and compaction.changes:
        some = with_text[:MEASURED]
        progress.neighbours_kept = neighbours_kept(vectors[some], compaction.approximations(codes[some]))
    return codes
