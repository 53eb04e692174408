"""The rows of a file of texts that is embedded, one at a time.

Rows are read as for training (`readers`), with the same counts. Row i of the result belongs to record i of the input,
whatever is in it: a record without a usable text has `text=None` here, and the caller gives it a zero vector.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from openjepa.data.files.discovery import COMPRESSED, find_files, head_of, kind_of
from openjepa.data.files.json_values import is_a_value_a_line
from openjepa.data.files.readers import read_files
from openjepa.data.files.records import MAX_LINE_MB, UNUSABLE, Counts, Hints, ReaderOptions, Record, TxtRule
from openjepa.data.files.texts import lines
from openjepa.data.text.sources import clean_text

STDIN = "-"
KEPT = "texts"
HINTS = Hints(column="--column", label="--id-column", world="", source="")


class TextRow(NamedTuple):
    """A row of the input: its id, or where it stands ("corpus.jsonl:17"), and its text, or None if it holds none."""

    id: str
    text: str | None


def text_rows(
    source: str,
    column: str = "text",
    txt: TxtRule = "lines",
    counts: Counts | None = None,
    id_column: str | None = None,
    max_line_mb: int = MAX_LINE_MB,
) -> Iterator[TextRow]:
    """The records of what `data.source` takes as files, or lines of standard input if `source` is "-".

    Blank lines of JSON and CSV files are no records. A row whose `id_column` is empty is named by its origin.
    A line or text of more than `max_line_mb` MiB is a record without a usable text.
    `counts` is filled on the way: texts, and all that is mended or holds no text, by reason. Raises UserError if a file
    cannot be read or has no such column.
    """
    counts = Counts() if counts is None else counts
    for record in _records(source, column, txt, counts, id_column, max_line_mb):
        yield _row(record, counts)


def _records(
    source: str, column: str, txt: TxtRule, counts: Counts, id_column: str | None, max_line_mb: int
) -> Iterator[Record]:
    root = Path(source).expanduser()
    folder = root if root.is_dir() else None
    reading = ReaderOptions(column, id_column, txt, max_line_mb, HINTS, folder, every_record=True)
    if source == STDIN:
        return lines(sys.stdin.buffer, "stdin", reading, counts)
    return read_files(find_files(source, counts, HINTS), reading, counts)


def _row(record: Record, counts: Counts) -> TextRow:
    text = None if record.value is UNUSABLE else clean_text(record.value, "text", record.origin, counts)
    if text:
        counts.add(KEPT, record.origin)
    elif text == "":
        counts.add("empty", record.origin)
    name = record.origin if record.label is None or record.label == "" else str(record.label)
    return TextRow(name, text or None)


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
