"""Corpora with a paragraph a record, joined into the articles that they came from, by their headings.

WikiText and its like have a line a record, where a line `= Title =` begins an article and `= = Section = =` a part of
it. In Markdown it is `# Title`. A heading of the first level begins a document; all until the next one belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from openjepa.core.errors import UserError
from openjepa.data.files.records import Counts, Record

P = TypeVar("P")
HEADING = re.compile(r"\s*(?:=\s(?!=)([^=]+?)\s=|#\s+([^#].*?))\s*")
JOINED = "records joined into articles"
BEFORE = "records before the first heading, left out"
DIVIDED = "articles divided at data.max_line_mb"


def joined_by_headings(
    records: Iterable[tuple[P, Record]], counts: Counts, most_chars: int, source: str
) -> Iterator[tuple[P, Record]]:
    """Articles as records, each at the position of its heading; paragraphs are divided by blank lines.

    An article of more than `most_chars` is divided, and counted. Raises UserError if there is no heading.
    """
    first: tuple[P, Record] | None = None  # of the article that is being read
    pieces: list[str] = []
    chars = 0
    found = False
    for position, record in records:
        text = record.value if isinstance(record.value, str) else None
        heading = None if text is None else HEADING.fullmatch(text)
        is_full = chars + len(text or "") > most_chars
        if first is not None and (heading is not None or is_full):
            yield _article(first, pieces)
            first = None
            pieces = []
            chars = 0
            if heading is None:
                counts.add(DIVIDED, record.origin)
                first = position, record
        if heading is not None:
            found = True
            first = position, record
            text = heading[1] or heading[2]
        if first is None:
            if text is not None and text.strip():
                counts.add(BEFORE, record.origin)
            continue
        if text is not None and text.strip():
            counts.add(JOINED, record.origin)
            pieces.append(text.strip())
            chars += len(text)
    if not found:
        raise UserError(f"data.join=headings: there is no line `= Title =` or `# Title` in {source}; leave it out")
    if first is not None:
        yield _article(first, pieces)


def _article(first: tuple[P, Record], pieces: list[str]) -> tuple[P, Record]:
    position, record = first
    return position, record._replace(value="\n\n".join(pieces))
