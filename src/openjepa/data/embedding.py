"""Vectors of all texts in a file, in constant memory: read a chunk, embed it, write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core.errors import UserError
from openjepa.data.vectors import text_rows, vector_writer

CHUNK_BATCHES = 32  # batches that are read, sorted by length and embedded together

Encode = Callable[[Sequence[str]], np.ndarray]  # N texts -> [N, D] float32


def embed_file(
    encode: Encode,
    source: str | Path,
    out: str | Path,
    column: str = "text",
    batch_size: int = 64,
    on_rows: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Embed the texts of `source`, row by row, into `out`; memory does not grow with the file.

    Args:
        encode: texts to vectors; called with up to CHUNK_BATCHES * batch_size texts.
        source: .txt (a text a line), .jsonl or .parquet, the first two also as .gz; "-" = lines of standard input.
        out: .npy (float32 [N, D]) or .parquet (columns id, vector). It appears when it is complete.
        column: key or column of the text.
        batch_size: texts embedded at once.
        on_rows: called with the number of rows just written.

    Returns {"rows", "dim", "without_text", "first_without_text", "out"}. A row without text has a zero vector.
    Raises UserError if a file cannot be read or written, or no row holds a text.
    """
    dim = encode(["a text"]).shape[1]
    incoming = text_rows(str(source), column)
    rows, empty = 0, []
    with vector_writer(Path(out)) as writer:
        while chunk := list(islice(incoming, CHUNK_BATCHES * batch_size)):
            has_text = np.array([row.text is not None for row in chunk])
            vectors = np.zeros((len(chunk), dim), dtype=np.float32)  # [N, D]
            if has_text.any():
                vectors[has_text] = encode([row.text for row in chunk if row.text is not None])
            writer.add([row.id for row in chunk], vectors)
            rows += len(chunk)
            empty += [row.id for row in chunk if row.text is None]
            if on_rows is not None:
                on_rows(len(chunk))
        if len(empty) == rows:
            raise UserError(f"{source} holds no text: {f'{rows} rows, all without one' if rows else 'it is empty'}")
    first = empty[0] if empty else None
    return {"rows": rows, "dim": dim, "without_text": len(empty), "first_without_text": first, "out": str(out)}
