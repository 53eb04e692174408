"""JSON in files of any size: one value a line, an array, or values one after the other, with one in memory at a time.

An array may be pretty-printed, and a file may hold another form than its name tells. A value that is not JSON, no
object, or too long is counted, and reading continues after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from openjepa.data.files.discovery import Kind, head_of, open_bytes
from openjepa.data.files.records import (
    LISTED,
    MISSING,
    UNUSABLE,
    Counts,
    NoColumnError,
    ReaderOptions,
    Record,
    column_names,
    pick,
)
from openjepa.data.files.texts import decoded, text_lines

CHUNK = 2**20  # bytes read at once
MARK = re.compile(rb'["\[\]{},]')  # what decides where a value ends, outside of strings
IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
NOT_JSON = object()


def read_json(file: Path, name: str, kind: Kind, reading: ReaderOptions, counts: Counts) -> Iterator[Record]:
    """Records of a JSON file: its objects, and its strings, which are texts themselves.

    Raises NoColumnError if no object has the column of the text.
    """
    rows = _Rows(name, reading, counts)
    if is_a_value_a_line(head_of(file), kind):
        yield from rows.of_lines(file)
    else:
        yield from rows.of_values(file)
    if rows.other_columns and not rows.found:
        raise NoColumnError(name, reading.column, rows.other_columns, reading.hints.column)


def is_a_value_a_line(head: bytes, kind: Kind) -> bool:
    """Whether a file with this head has a value on each line, whatever its name."""
    first, _, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if first.startswith(b"[") or kind == "json":
        return bool(rest.strip()) and parsed(first.decode(errors="replace")) is not NOT_JSON
    return first.strip() != b"{"


def parsed(text: str) -> Any:
    """A JSON value, or NOT_JSON. A whole number too long for Python becomes a float."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return NOT_JSON
    except ValueError:  # a number of more than 4300 digits
        try:
            return json.loads(text, parse_int=float)
        except (json.JSONDecodeError, RecursionError):
            return NOT_JSON


class _Rows:
    """Records of one file's values; what is no record is counted."""

    def __init__(self, name: str, reading: ReaderOptions, counts: Counts) -> None:
        self.name = name
        self.reading = reading
        self.counts = counts
        self.found = False  # whether any object had the column
        self.other_columns: dict[str, None] = {}  # columns of objects without it
        self.without = Counts()  # these objects, as long as none had it

    def of_lines(self, file: Path) -> Iterator[Record]:
        with open_bytes(file) as stream:
            for number, line in text_lines(stream, self.name, self.reading, self.counts):
                if line is None or line.strip():
                    yield self._record(line, "line", f"{self.name}:{number}")

    def of_values(self, file: Path) -> Iterator[Record]:
        with open_bytes(file) as stream:
            for number, raw in enumerate(values(stream, self.reading.max_bytes, self._unclosed)):
                origin = f"{self.name}:{number}"
                if raw is None:
                    self.counts.add(self.reading.too_long("JSON value"), origin)
                yield self._record(None if raw is None else decoded(raw, origin, self.counts), "value", origin)

    def _record(self, text: str | None, what: str, origin: str) -> Record:
        if text is None:
            return Record(UNUSABLE, None, origin)
        row = parsed(text)
        if isinstance(row, str):
            self._has_column()
            return Record(row, None, origin)
        if row is NOT_JSON or not isinstance(row, dict):
            self.counts.add(f"{what} is not JSON" if row is NOT_JSON else f"{what} is not a JSON object", origin)
            return Record(UNUSABLE, None, origin)
        value = pick(row, self.reading.column)
        if value is MISSING:
            self._lacks_column(row, f"{what} without column {self.reading.column!r}", origin)
            return Record(UNUSABLE, None, origin)
        if value is not None or self.reading.column in row:  # else the object that should hold it is null
            self._has_column()
        label = MISSING if self.reading.label is None else pick(row, self.reading.label)
        return Record(value, None if label is MISSING else label, origin)

    def _has_column(self) -> None:
        self.found = True
        self.counts.merge(self.without)
        self.without.clear()

    def _lacks_column(self, row: dict[str, Any], reason: str, origin: str) -> None:
        if len(self.other_columns) < LISTED:
            self.other_columns.update(dict.fromkeys(column_names(row)))
        (self.counts if self.found else self.without).add(reason, origin)

    def _unclosed(self) -> None:
        self.counts.add("JSON array without an end", self.name)


def values(stream: BinaryIO, limit: int, on_unclosed: Any = lambda: None) -> Iterator[bytes | None]:
    """The elements of a JSON array, or values one after the other, unparsed; None for one of over `limit` bytes.

    Only brackets, commas and strings are parsed: the caller has to check whether a piece is JSON.
    """
    splitter = _Splitter(limit)
    while chunk := stream.read(CHUNK):
        yield from splitter.feed(chunk)
    yield from splitter.rest()
    if splitter.base:
        on_unclosed()


class _Splitter:
    """Cuts JSON text that comes in chunks into values."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.depth = 0
        self.base = 0  # depth at which values stand: 1 within the array, else 0
        self.started = self.in_string = self.escaped = self.too_long = False
        self.kept = bytearray()  # of the value that is being read

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        # an escaped character at the chunk's start has no effect
        at = int(self.escaped)
        begin = 0
        self.escaped = False
        if not self.started and (content := chunk.removeprefix(b"\xef\xbb\xbf").lstrip()):
            self.started = True
            if content.startswith(b"["):
                self.depth = self.base = 1
                at = begin = chunk.index(b"[") + 1
                self.kept.clear()
        while at < len(chunk):
            if self.in_string:
                at = self._end_of_string(chunk, at)
                continue
            mark = MARK.search(chunk, at)
            if mark is None:
                break
            at = mark.end()
            if self._ends_value(mark.group()):
                last = at - 1 if self.base or mark.group() == b"," else at
                if self.depth < self.base:  # the end of the array
                    self.base = 0
                yield from self._value(chunk[begin:last])
                begin = at
        self._keep(chunk[begin:])

    def _end_of_string(self, chunk: bytes, at: int) -> int:
        """The offset after the part of a string that begins at `at`."""
        found = IN_STRING.match(chunk, at)
        end = at if found is None else found.end()
        if end < len(chunk):
            self.in_string = chunk[end : end + 1] != b'"'
            self.escaped = self.in_string  # a backslash that ends the chunk
        return end + 1

    def _ends_value(self, mark: bytes) -> bool:
        if mark == b'"':
            self.in_string = True
        elif mark in b"[{":
            self.depth += 1
        elif mark in b"]}":
            self.depth = max(self.depth - 1, 0)
            return self.depth < self.base or self.depth == self.base == 0
        else:
            return self.depth == self.base
        return False

    def _keep(self, piece: bytes) -> None:
        self.too_long = self.too_long or len(self.kept) + len(piece) > self.limit
        if self.too_long:
            self.kept.clear()
        else:
            self.kept += piece

    def _value(self, piece: bytes) -> Iterator[bytes | None]:
        self._keep(piece)
        value = None if self.too_long else bytes(self.kept).removeprefix(b"\xef\xbb\xbf").strip()
        self.kept.clear()
        self.too_long = False
        if value != b"":
            yield value

    def rest(self) -> Iterator[bytes | None]:
        """What follows the last complete value."""
        yield from self._value(b"")
