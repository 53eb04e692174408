"""Texts in, vectors out, for files of any size: one row at a time is read, one block of rows at a time is written.

Row i of the result belongs to row i of the input, whatever is in it: a row without a usable text has `text=None` here,
and the caller gives it a zero vector and counts it. Results are written aside and renamed when they are complete.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Protocol, Self

import numpy as np

from openjepa.core.errors import UserError
from openjepa.data.readers import Counts, read_files

STDIN = "-"
INPUTS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")
OUTPUTS = (".npy", ".parquet")


class TextRow(NamedTuple):
    """A row of the input: where it stands ("corpus.jsonl:17") and its text, or None if it holds none."""

    id: str
    text: str | None


def text_rows(source: str, column: str = "text") -> Iterator[TextRow]:
    """Rows of a .txt (one text a line), .jsonl or .parquet file, or lines of standard input if `source` is "-".

    Blank lines of a .jsonl file are no rows. Raises UserError if the file cannot be read or has no such column.
    """
    if source == STDIN:
        return (_row(f"stdin:{n}", line.rstrip("\r\n")) for n, line in enumerate(sys.stdin, start=1))
    file = _input(source)
    if ".jsonl" in file.suffixes:
        return _jsonl_rows(file, column)
    records = read_files([file], column, None, "lines", Counts())
    return (_row(record.place, record.text) for record in records)


def count_rows(source: str) -> int | None:
    """How many rows `text_rows` will give, for a progress bar; None where only reading would tell (.gz, stdin)."""
    if source == STDIN:
        return None
    file = _input(source)
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_metadata(file).num_rows
    if file.suffix == ".gz":
        return None
    with file.open("rb") as stream:
        return sum(1 for line in stream if file.suffix == ".txt" or line.strip())


def _input(source: str) -> Path:
    file = Path(source).expanduser()
    if not file.is_file():
        raise UserError(f"no input file at {source}; give a {', '.join(INPUTS)} file, or - for standard input")
    if not file.name.lower().endswith(INPUTS):
        raise UserError(f"{source}: unknown extension; give one of {', '.join(INPUTS)}, or - for standard input")
    return file


def _row(place: str, text: object) -> TextRow:
    return TextRow(place, text if isinstance(text, str) and text.strip() else None)


def _jsonl_rows(file: Path, column: str) -> Iterator[TextRow]:
    found, known = False, ""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                row = _object(line)
                if column in row:
                    found = True
                elif not found:
                    known = known or ", ".join(list(row)[:20])
                yield _row(f"{file.name}:{number}", row.get(column))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read ({error}); repair or remove it") from error
    if known and not found:
        raise UserError(f"{file} has no column {column!r}; set --column to one of: {known}")


def _object(line: bytes) -> dict:
    try:
        row = json.loads(line.decode("utf-8", errors="replace").lstrip("\ufeff"))
    except (json.JSONDecodeError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


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
