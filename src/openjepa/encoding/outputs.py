"""The files that vectors are written to: .npy, .parquet or .faiss, each made from the rows of a `PartialVectors`.

An output appears under its name when it is complete. Beside .npy and .faiss, whose rows have no names, stands a file
of ids: `vectors.npy` has `vectors.ids.jsonl`, a JSON string a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from openjepa.core.atomic import writing
from openjepa.core.errors import UserError
from openjepa.encoding.compact import Quantization
from openjepa.encoding.partial import PartialVectors

OUTPUTS = (".npy", ".parquet", ".faiss")
BLOCK = 16_384  # rows that are copied at a time, and of a row group


def check_output(path: Path, quantization: Quantization = "none") -> None:
    """Raises UserError for an unknown extension, a folder that does not exist, or what a format cannot hold."""
    if path.suffix not in OUTPUTS:
        raise UserError(f"--out {path}: unknown extension; vectors are written as {' or '.join(OUTPUTS)}")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {path.parent}")
    if path.suffix != ".faiss":
        return
    if quantization == "int8":
        raise UserError(f"--out {path}: int8 vectors are written as .npy or .parquet; --quantize binary has an index")
    try:
        import faiss  # noqa: F401
    except ImportError:
        raise UserError(f"--out {path} needs FAISS: pip install faiss-cpu") from None


def ids_file(path: Path) -> Path:
    """The file of ids beside an output whose rows have no names."""
    return path.with_suffix(".ids.jsonl")


def write_output(partial: PartialVectors, path: Path, quantization: Quantization) -> list[Path]:
    """Make the output `path` of finished rows, and remove the folder they were kept in; the files that were made.

    Raises WriteError if the disk does not take it; the rows are kept then, and an earlier output is as it was.
    """
    with writing(path):
        return _output(partial, path, quantization)


def _output(partial: PartialVectors, path: Path, quantization: Quantization) -> list[Path]:
    vectors, ids = partial.files
    match path.suffix:
        case ".parquet":
            made = partial.path / "vectors.parquet"
            _write_parquet(made, partial.vectors, ids)
        case ".faiss":
            made = partial.path / "vectors.faiss"
            _write_index(made, partial.vectors, quantization)
        case _:
            made = vectors
    written = [path]
    if path.suffix != ".parquet":
        os.replace(ids, ids_file(path))
        written.append(ids_file(path))
    os.replace(made, path)
    partial.remove()
    return written


def _write_parquet(path: Path, vectors: np.ndarray, ids: Path) -> None:
    """Columns `id` (string) and `vector` (fixed-size list of numbers)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.from_numpy_dtype(vectors.dtype)
    schema = pa.schema({"id": pa.string(), "vector": pa.list_(kind, vectors.shape[1])})
    with pq.ParquetWriter(path, schema) as writer, ids.open(encoding="utf-8") as lines:
        for block in _blocks(vectors):
            flat = pa.array(block.reshape(-1))
            names = [json.loads(line) for line in islice(lines, len(block))]
            columns = [pa.array(names, pa.string()), pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _write_index(path: Path, vectors: np.ndarray, quantization: Quantization) -> None:
    """An index for exact search: by cosine (inner products of rows of length 1), or by the number of equal signs."""
    import faiss

    if quantization == "binary":
        signs = faiss.IndexBinaryFlat(8 * vectors.shape[1])
        for block in _blocks(vectors):
            signs.add(np.array(block))  # a copy: the file is only mapped
        faiss.write_index_binary(signs, str(path))
        return
    index = faiss.IndexFlatIP(vectors.shape[1])
    for block in _blocks(vectors):
        rows = np.array(block)
        faiss.normalize_L2(rows)
        index.add(rows)
    faiss.write_index(index, str(path))


def _blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors), BLOCK):
        yield vectors[start : start + BLOCK]
