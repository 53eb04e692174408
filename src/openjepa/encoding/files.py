"""Vectors of all texts in a file, in constant memory: read a chunk, embed it, write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core.errors import UserError
from openjepa.data.files.records import Counts, TxtRule, counts_line
from openjepa.encoding.vectors import text_rows, vector_writer

CHUNK = 2048  # texts that are read, sorted by length and embedded together

Encode = Callable[[Sequence[str]], np.ndarray]  # N texts -> [N, D] float32


def embed_file(
    encode: Encode,
    dim: int,
    source: str | Path,
    out: str | Path,
    column: str = "text",
    on_rows: Callable[[int], None] | None = None,
    txt: TxtRule = "lines",
) -> dict[str, Any]:
    """Embed the texts of `source`, record by record, into `out`; memory does not grow with the file.

    Args:
        encode: texts to vectors; called with up to CHUNK texts.
        dim: D.
        source: a file, folder or glob pattern as in `data.source`; "-" = lines of standard input.
        out: .npy (float32 [N, D]) or .parquet (columns id, vector). It appears when it is complete.
        column: key or column of the text, as `data.column`.
        on_rows: called with the number of rows just written.
        txt: what a text of a .txt file is, as `data.txt`.

    Returns {"rows", "dim", "without_text", "first_without_text", "out", "counts"}: the counts are those of the reader,
    by reason. A row without text has a zero vector.
    Raises UserError if a file cannot be read or written, or no row holds a text.
    """
    counts = Counts()
    incoming = text_rows(str(source), column, txt, counts)
    rows = empty = 0
    first_empty = None
    with vector_writer(Path(out)) as writer:
        while chunk := list(islice(incoming, CHUNK)):
            has_text = np.array([row.text is not None for row in chunk])
            vectors = np.zeros((len(chunk), dim), dtype=np.float32)  # [N, D]
            if has_text.any():
                vectors[has_text] = encode([row.text for row in chunk if row.text is not None])
            writer.add([row.id for row in chunk], vectors)
            rows += len(chunk)
            without = [row.id for row in chunk if row.text is None]
            empty += len(without)
            first_empty = first_empty or next(iter(without), None)
            if on_rows is not None:
                on_rows(len(chunk))
        if empty == rows:
            why = f"{rows} rows, all without one: {counts_line(counts)}" if rows else "it is empty"
            raise UserError(f"{source} holds no text: {why}")
    result = {"rows": rows, "dim": dim, "without_text": empty, "first_without_text": first_empty, "out": str(out)}
    return result | {"counts": dict(counts)}
