"""Documents to adapt to, and their parts: sentences or paragraphs, and the title where there is one.

A folder in BEIR's layout (corpus.jsonl beside queries.jsonl) is read as its corpus, with its titles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from openjepa.data.files.records import Counts
from openjepa.data.text.sentences import SentencesConfig, split_sentences
from openjepa.data.text.sources import DataConfig, documents

PartRule = Literal["sentences", "paragraphs"]
BLANK_LINES = re.compile(r"\n\s*\n")


class Text(NamedTuple):
    """A document as it is searched, and its parts."""

    id: str
    whole: str  # title and body
    parts: tuple[str, ...]


def beir_corpus(source: str) -> Path | None:
    """The corpus of a folder in BEIR's layout; None for any other source."""
    folder = Path(source).expanduser()
    corpus = folder / "corpus.jsonl"
    return corpus if corpus.is_file() and (folder / "queries.jsonl").is_file() else None


def texts(data: DataConfig, title: str | None, rule: PartRule, counts: Counts) -> Iterator[Text]:
    """The documents of `data` in order, counted on the way.

    `title` is the column of titles; None = there are none. Raises UserError if the source cannot be read.
    """
    with_titles = data if title is None else data.model_copy(update={"label": title})
    for document in documents(with_titles, counts=counts):
        name = "" if document.label is None else str(document.label).strip()
        whole = f"{name} {document.text}".strip()
        is_told_twice = document.text.startswith(name)
        parts = [] if is_told_twice else [name]
        yield Text(document.id, whole, (*parts, *parts_of(document.text, rule)))


def parts_of(text: str, rule: PartRule) -> list[str]:
    """The sentences of a text, or what blank lines divide."""
    if rule == "paragraphs":
        pieces = [piece.strip() for piece in BLANK_LINES.split(text)]
        return [piece for piece in pieces if piece]
    return [text[start:end] for start, end in split_sentences(text, SentencesConfig())]
