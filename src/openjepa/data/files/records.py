"""What all readers of data share: records, counts of what was kept, mended and left out, columns of nested rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from openjepa.core.errors import UserError

TxtRule = Literal["auto", "paragraphs", "lines", "files"]
MAX_LINE_MB = 8  # default of `data.max_line_mb`: a long book; tokenising it takes 2 GB
LEFT_OUT = "left out: "  # begins the reason under which a file that cannot be read is counted; its extension follows
KEPT = ("documents", "texts", "questions", "images")  # what a reader counts its usable records as
COPIES = "copies of an earlier document"  # among those kept
LISTED = 20  # columns that an error lists


class _Unusable:
    def __repr__(self) -> str:
        return "UNUSABLE"


UNUSABLE = _Unusable()  # stands for the text of a record that could not be read, which is counted already
MISSING = object()  # what `pick` gives where there is no such column


class Counts(Counter[str]):
    """How many records were kept, mended or dropped, by reason; `first` holds the origin of the first case."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, str] = {}

    def add(self, reason: str, origin: str) -> None:
        self[reason] += 1
        self.first.setdefault(reason, origin)

    @property
    def reasons(self) -> str:
        """Every reason with its count and the origin of its first case, in one line."""
        return ", ".join(f"{count} x {why} (first: {self.first[why]})" for why, count in self.items())

    def merge(self, others: Counts) -> None:
        """Add counts that were made separately."""
        self.update(others)
        self.first = {**others.first, **self.first}


class Record(NamedTuple):
    """What a file or data set holds in one record, as found, with its label and its origin ("corpus.jsonl:17")."""

    value: Any  # a text as found, an image, or a row of columns
    label: Any
    origin: str
    captions: tuple[str, ...] = ()  # of an image


class Hints(NamedTuple):
    """What an error suggests: the settings that name the columns, and the source that needs no files."""

    column: str = "data.column"
    label: str = "data.label"
    world: str = "stories"
    source: str = "data.source "  # put before the source's name


TEXT_HINTS = Hints()


class ReaderOptions(NamedTuple):
    """How records are read from files.

    With `every_record`, a record that cannot be read is also yielded, with the text UNUSABLE; else it is only counted.
    """

    column: str = "text"
    label: str | None = None
    txt: TxtRule = "auto"
    max_line_mb: int = MAX_LINE_MB
    hints: Hints = TEXT_HINTS
    root: Path | None = None  # the folder in which the files were found; None for a file that was named
    every_record: bool = False

    @property
    def max_bytes(self) -> int:
        return self.max_line_mb * 2**20

    @property
    def columns(self) -> list[str]:
        """The columns that are read: the text's and, if there is one, the label's."""
        return [self.column] if self.label is None else [self.column, self.label]

    def too_long(self, what: str) -> str:
        """The reason under which a line (or document) that exceeds the limit is counted."""
        return f"{what} longer than data.max_line_mb={self.max_line_mb}"


class NoColumnError(UserError):
    """A file has no column of that name. `known` are the names of those that it has."""

    def __init__(self, where: str, column: str, known: Iterable[str], key: str) -> None:
        self.known = ", ".join(sorted(map(str, known))[:LISTED])
        super().__init__(f"{where} has no column {column!r}; set {key} to one of: {self.known}")


def txt_rule(name: str) -> TxtRule:
    """The rule of this name. Raises UserError if there is none."""
    for rule in get_args(TxtRule):
        if rule == name:
            return rule
    raise UserError(f"--txt {name}: there are {', '.join(get_args(TxtRule))}")


def pick(row: Mapping[str, Any], column: str) -> Any:
    """The value in `column`, or MISSING. A dotted name that is no column leads into nested rows: meta.body."""
    if column in row:
        return row[column]
    for head, rest in dotted(column):
        inner = row.get(head, MISSING)
        value = pick(inner, rest) if isinstance(inner, Mapping) else inner
        if value is None or (isinstance(inner, Mapping) and value is not MISSING):
            return value
    return MISSING


def dotted(column: str) -> Iterator[tuple[str, str]]:
    """All ways to read a name as a column and a name within it, the longest column first."""
    parts = column.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:cut]), ".".join(parts[cut:])


def column_names(row: Mapping[str, Any]) -> list[str]:
    """The names of a row's columns, those of nested rows dotted."""
    names: list[str] = []
    for name, value in list(row.items())[:LISTED]:
        names.append(str(name))
        names += [f"{name}.{inner}" for inner in value] if isinstance(value, Mapping) else []
    return names[:LISTED]


def chat_text(value: list[Any]) -> str | None:
    """The contents of chat messages ({"role", "content"} each) as paragraphs; None for another list.

    A content may be a list of parts, of which those of type text count; a message without one (a tool call) is empty.
    """
    if not value or not all(isinstance(message, Mapping) and {"role", "content"} <= {*message} for message in value):
        return None
    contents = []
    for message in value:
        content = message["content"]
        if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
            content = "\n".join(str(part["text"]) for part in content if isinstance(part.get("text"), str))
        if content is not None and not isinstance(content, str):
            return None
        contents.append(content or "")
    return "\n\n".join(content for content in contents if content.strip())


def counts_line(counts: Mapping[str, int]) -> str:
    """Counts as one line for people: what was kept, then the most frequent first.

    For example "480 documents, of which 360 are copies of an earlier one, 2 empty; left out: 3 x .pdf, 1 x .py".
    """
    by_count = sorted(counts.items(), key=lambda one: (one[0] not in KEPT, -one[1]))
    listed = []
    for reason, count in by_count:
        if reason in KEPT and (copies := counts.get(COPIES)):
            listed.append(f"{count:,} {reason}, of which {copies:,} are copies of an earlier one")
        elif reason != COPIES and not reason.startswith(LEFT_OUT):
            listed.append(f"{count:,} {reason}")
    left_out = [f"{count:,} x {r.removeprefix(LEFT_OUT)}" for r, count in by_count if r.startswith(LEFT_OUT)]
    return "; ".join(part for part in (", ".join(listed), LEFT_OUT + ", ".join(left_out) if left_out else "") if part)


def in_one_line(error: Exception) -> str:
    """An error's message in one line."""
    return re.sub(r"\s+", " ", str(error)).strip()[:200]
