"""Texts in, vectors out, for files of any size: one row at a time is read, one block of rows at a time is written.

Rows are read as for training (`readers`), with the same counts. Row i of the result belongs to record i of the input,
whatever is in it: a record without a usable text has `text=None` here, and the caller gives it a zero vector.
Results are written aside and renamed when they are complete.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Protocol, Self

import numpy as np

from openjepa.core.errors import UserError
from openjepa.data.files.discovery import COMPRESSED, find_files, head_of, kind_of
from openjepa.data.files.json_values import is_a_value_a_line
from openjepa.data.files.readers import read_files
from openjepa.data.files.records import UNUSABLE, Counts, Hints, ReaderOptions, Record, TxtRule
from openjepa.data.files.texts import lines
from openjepa.data.text.sources import clean_text

STDIN = "-"
OUTPUTS = (".npy", ".parquet")
KEPT = "texts"
HINTS = Hints(column="--column", world="", source="")


class TextRow(NamedTuple):
    """A row of the input: where it stands ("corpus.jsonl:17") and its text, or None if it holds none."""

    id: str
    text: str | None


def text_rows(
    source: str, column: str = "text", txt: TxtRule = "lines", counts: Counts | None = None
) -> Iterator[TextRow]:
    """The records of what `data.source` takes as files, or lines of standard input if `source` is "-".

    Blank lines of JSON and CSV files are no records. `counts` is filled on the way: texts, and all that is mended or
    holds no text, by reason. Raises UserError if a file cannot be read or has no such column.
    """
    counts = Counts() if counts is None else counts
    for record in _records(source, column, txt, counts):
        yield _row(record, counts)


def _records(source: str, column: str, txt: TxtRule, counts: Counts) -> Iterator[Record]:
    root = Path(source).expanduser()
    reading = ReaderOptions(column, txt=txt, hints=HINTS, root=root if root.is_dir() else None, every_record=True)
    if source == STDIN:
        return lines(sys.stdin.buffer, "stdin", reading, counts)
    return read_files(find_files(source, counts, HINTS), reading, counts)


def _row(record: Record, counts: Counts) -> TextRow:
    text = None if record.value is UNUSABLE else clean_text(record.value, "text", record.origin, counts)
    if text:
        counts.add(KEPT, record.origin)
    elif text == "":
        counts.add("empty", record.origin)
    return TextRow(record.origin, text or None)


def count_rows(source: str, txt: TxtRule = "lines") -> int | None:
    """How many rows `text_rows` will give, for a progress bar; None where only reading would tell."""
    if source == STDIN:
        return None
    counted = [_count(file, txt) for file in find_files(source, Counts(), HINTS)]
    return None if None in counted else sum(filter(None, counted))


def _count(file: Path, txt: TxtRule) -> int | None:
    match kind_of(file):
        case "parquet":
            import pyarrow.parquet as pq

            try:
                return pq.read_metadata(file).num_rows
            except (OSError, ValueError):  # damaged: reading it will say so
                return None
        case "markdown" | "html":
            return 1
        case "txt" | "jsonl" as kind if not file.name.lower().endswith(COMPRESSED):
            if txt != "lines" if kind == "txt" else not is_a_value_a_line(head_of(file), kind):
                return None
            with file.open("rb") as stream:
                return sum(1 for line in stream if kind == "txt" or line.strip())
    return None


class VectorWriter(Protocol):
    """Appends blocks of vectors to a file that appears under its name only when all are written."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def add(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        """Append a block: N ids and float32 [N, D]."""
        ...


def vector_writer(path: Path) -> VectorWriter:
    """A writer for the extension of `path`. Raises UserError for an unknown one or a folder that does not exist."""
    if path.suffix not in OUTPUTS:
        raise UserError(f"--out {path}: unknown extension; vectors are written as {' or '.join(OUTPUTS)}")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {path.parent}")
    return NpyWriter(path) if path.suffix == ".npy" else ParquetWriter(path)


class NpyWriter:
    """A float32 [N, D] array for `numpy.load(path, mmap_mode="r")`. N need not be known before.

    NumPy pads the header so that the first axis can grow in place; the final header is written over the first.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._tmp = path, _aside(path)
        self._file: IO[bytes] = self._tmp.open("wb")
        self._count = self._dim = self._header_bytes = 0

    def add(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        if not self._header_bytes:
            self._dim = vectors.shape[1]
            self._header_bytes = self._write_header()
        self._file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
        self._count += len(vectors)

    def _write_header(self) -> int:
        shape = (self._count, self._dim)
        np.lib.format.write_array_header_1_0(self._file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._file.seek(0)
            size = self._write_header()
            assert size == self._header_bytes, "numpy's header no longer keeps room for a growing first axis"
        self._file.close()
        _finish(self._tmp, self.path, error)


class ParquetWriter:
    """Columns `id` (string) and `vector` (fixed-size list of float32), one row group a block."""

    def __init__(self, path: Path) -> None:
        self.path, self._tmp = path, _aside(path)
        self._writer = None

    def add(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        columns = {"id": pa.array(ids), "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
        table = pa.table(columns)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._tmp, table.schema)
        self._writer.write_table(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()
        _finish(self._tmp, self.path, error)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _finish(tmp: Path, path: Path, error: BaseException | None) -> None:
    if error is None:
        os.replace(tmp, path)
    else:
        tmp.unlink(missing_ok=True)
