"""Rated pairs of sentences in CSV and TSV files: with a header, or as the STS benchmark is published.

The benchmark (Cer et al. 2017) has no header and seven or more tab-separated columns: genre, file, year, number, score
and the two sentences, in which quotes are ordinary characters.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from openjepa.core.errors import UserError
from openjepa.data.files.delimited import Row, delimited_rows
from openjepa.data.files.discovery import Kind, head_of, open_bytes
from openjepa.data.files.records import Counts, ReaderOptions
from openjepa.data.files.texts import text_lines

FIELDS = ("sentence1", "sentence2", "score")
BENCHMARK = (5, 6, 4)  # the columns of these fields in the STS benchmark


class RatedPair(NamedTuple):
    first: str
    second: str
    score: float


def read_rated_pairs(path: Path, kind: Kind) -> list[RatedPair]:
    """Read all pairs of a .csv or .tsv file. Raises UserError naming the line and field of anything invalid."""
    counts = Counts()
    try:
        if _is_benchmark(head_of(path)):
            rows = _benchmark_rows(path, counts)
            columns = BENCHMARK
        else:
            header, *rows = list(delimited_rows(path, path.name, kind, ReaderOptions(FIELDS[0]), counts)) or [
                Row(1, [])
            ]
            columns = tuple(_index(header.fields or [], field, f"{path} line {header.line}") for field in FIELDS)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    for reason, origin in counts.first.items():
        raise UserError(f"cannot read {path}: {reason} ({origin})")
    return [_pair(row, columns, f"{path} line {row.line}") for row in rows]


def _is_benchmark(head: bytes) -> bool:
    fields = head.partition(b"\n")[0].split(b"\t")
    return len(fields) > max(BENCHMARK) and _number(fields[BENCHMARK[2]].decode(errors="replace")) is not None


def _benchmark_rows(path: Path, counts: Counts) -> list[Row]:
    with open_bytes(path) as stream:
        lines = list(text_lines(stream, path.name, ReaderOptions(), counts))
    return [Row(number, line.rstrip("\r\n").split("\t")) for number, line in lines if line and line.strip()]


def _index(header: Sequence[str], field: str, where: str) -> int:
    names = [name.strip() for name in header]
    if field not in names:
        raise UserError(f"{where} has no field {field!r}; it has {', '.join(names) or 'none'}")
    return names.index(field)


def _pair(row: Row, columns: Sequence[int], where: str) -> RatedPair:
    fields = row.fields or []
    if len(fields) <= max(columns):
        raise UserError(f"{where} has {len(fields)} fields; at least {max(columns) + 1} are needed")
    first, second, rating = (fields[index] for index in columns)
    score = _number(rating)
    if score is None:
        raise UserError(f"{where}: score must be a number, not {rating!r}")
    return RatedPair(first, second, score)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
