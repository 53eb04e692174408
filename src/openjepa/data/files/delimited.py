"""CSV and TSV: rows of a file with a header, one at a time; quoted fields may hold line ends.

The delimiter of a .csv is the one under which the header has the wanted column: comma, semicolon, tab or bar. In a
.tsv, quotes are literal where its head cannot be parsed otherwise. Blank lines are no rows.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from openjepa.data.files.discovery import Kind, head_of, open_bytes
from openjepa.data.files.records import UNUSABLE, Counts, NoColumnError, ReaderOptions, Record
from openjepa.data.files.texts import text_lines

DELIMITERS = (",", ";", "\t", "|")
TOO_FEW = "mended: row with fewer fields than the header"
TOO_MANY = "row with more fields than the header"
UNCLOSED = "row with a quote that is not closed"
UNREADABLE = "row that is not readable"


class Dialect(NamedTuple):
    """How a line is cut into fields."""

    delimiter: str
    quoted: bool  # whether quotes enclose a field, or are characters like others

    def reader(self, lines: Iterator[str], strict: bool = False) -> Iterator[list[str]]:
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        spaces = self.delimiter != "\t"
        return csv.reader(lines, delimiter=self.delimiter, quoting=quoting, skipinitialspace=spaces, strict=strict)


class Row(NamedTuple):
    """A row that is not blank; `fields` is None for an unreadable one, which is counted."""

    line: int  # the number of its first line
    fields: list[str] | None


def read_delimited(file: Path, name: str, kind: Kind, reading: ReaderOptions, counts: Counts) -> Iterator[Record]:
    """Records of a CSV or TSV file. An empty label is none. Raises NoColumnError if the header lacks a column."""
    rows = delimited_rows(file, name, kind, reading, counts)
    header = next((row.fields for row in rows if row.fields), None)
    if header is None:
        return
    indices = [_index(header, column, name, key) for column, key in zip(reading.columns, reading.hints, strict=False)]
    for row in rows:
        origin = f"{name}:{row.line}"
        fields = row.fields
        if fields is not None and len(fields) > len(header):
            counts.add(TOO_MANY, origin)
            fields = None
        if fields is None:
            yield Record(UNUSABLE, None, origin)
            continue
        if len(fields) < len(header):
            counts.add(TOO_FEW, origin)
            fields = fields + [""] * (len(header) - len(fields))
        text, *label = (fields[index] for index in indices)
        yield Record(text, (label[0] or None) if label else None, origin)


def _index(header: Sequence[str], column: str, name: str, key: str) -> int:
    names = [field.strip() for field in header]
    if column not in names:
        raise NoColumnError(name, column, names, key)
    return names.index(column)


def delimited_rows(file: Path, name: str, kind: Kind, reading: ReaderOptions, counts: Counts) -> Iterator[Row]:
    """The rows of a file, the header among them, in the dialect that its head shows."""
    head = head_of(file)
    dialect = dialect_of(head, kind, reading.column)
    with open_bytes(file) as stream:
        yield from rows_of(text_lines(stream, name, reading, counts), dialect, name, reading, counts)


def dialect_of(head: bytes, kind: Kind, column: str) -> Dialect:
    """The dialect of a file that begins with `head` and should have this column."""
    whole = len(head) < 2**20
    lines = head.decode("utf-8-sig", errors="replace").splitlines(keepends=True)
    lines = [line for line in (lines if whole else lines[:-1]) if line.strip()] or ["\n"]
    if kind == "tsv":
        return Dialect("\t", quoted=not _quotes_are_literal(lines, "\t", whole))
    headers = {delimiter: next(Dialect(delimiter, True).reader(iter(lines[:1]))) for delimiter in DELIMITERS}
    for delimiter, header in headers.items():
        if column in [field.strip() for field in header]:
            return Dialect(delimiter, quoted=True)
    return Dialect(max(headers, key=lambda delimiter: len(headers[delimiter])), quoted=True)


def _quotes_are_literal(lines: Sequence[str], delimiter: str, whole: bool) -> bool:
    """Whether quotes enclose no fields: they do not pair, or pairing them joins lines that are complete rows."""
    source = _Lines(enumerate(lines), 2**30)
    rows = 0
    try:
        for _ in Dialect(delimiter, quoted=True).reader(source, strict=True):
            rows += 1
            source.begin_row()
    except csv.Error:
        return whole or not source.stopped  # at the end of a head that was cut off, the quote may still be closed
    widths = {len(fields) for fields in Dialect(delimiter, quoted=False).reader(iter(lines))}
    return rows < len(lines) and len(widths) == 1 < max(widths)


def rows_of(
    lines: Iterator[tuple[int, str | None]], dialect: Dialect, name: str, reading: ReaderOptions, counts: Counts
) -> Iterator[Row]:
    """Rows of numbered lines (None: a line that was too long, and is counted).

    For a quote that is not closed, or only after more text than a line may have, the line in which it opens is lost.
    """
    csv.field_size_limit(max(csv.field_size_limit(), reading.max_bytes + 1))
    source = _Lines(lines, reading.max_bytes)
    while True:
        reader = dialect.reader(source)
        try:
            while (fields := next(reader, None)) is not None and not source.stopped:
                line = source.row[0][0]
                source.begin_row()
                if fields:
                    yield Row(line, fields)
            reason = UNCLOSED
        except csv.Error:
            reason = UNREADABLE
        if source.row:
            line = source.row[0][0]
            counts.add(reason, f"{name}:{line}")
            source.read_again_after_first()
        elif (too_long := source.pass_too_long()) is not None:
            line = too_long
        else:
            return
        yield Row(line, None)


class _Lines:
    """Numbered lines for a csv.reader, with those of the row that is being read, so that they can be read again.

    They stop at the end, at a line that was too long, and where a row has more characters than `limit`.
    """

    def __init__(self, lines: Iterator[tuple[int, str | None]], limit: int) -> None:
        self._lines = lines
        self._limit = limit
        self._again: deque[tuple[int, str | None]] = deque()
        self.begin_row()

    def begin_row(self) -> None:
        self.row: list[tuple[int, str]] = []
        self._size = 0
        self.stopped = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        found = None if self._size > self._limit else self._read()
        line = None if found is None else found[1]
        if found is None or line is None:
            self.stopped = True
            if found is not None:
                self._again.appendleft(found)
            raise StopIteration
        self.row.append((found[0], line))
        self._size += len(line)
        return line

    def _read(self) -> tuple[int, str | None] | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def read_again_after_first(self) -> None:
        self._again.extendleft(reversed(self.row[1:]))
        self.begin_row()

    def pass_too_long(self) -> int | None:
        """Skip the line that was too long, at which reading stopped; its number, or None if it was the end."""
        self.begin_row()
        found = self._read()
        return None if found is None else found[0]
