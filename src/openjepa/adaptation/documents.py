"""Documents to adapt to, and their parts: sentences or paragraphs, and the title where there is one.

A folder in BEIR's layout (corpus.jsonl beside queries.jsonl) is read as its corpus, with its titles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from openjepa.core.errors import UserError
from openjepa.data.files.records import Counts
from openjepa.data.text.sentences import SentencesConfig, split_sentences
from openjepa.data.text.sources import UNLABELLED, DataConfig, Document, documents

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
    for document in _titled(with_titles, title, counts):
        name = "" if document.label is None else str(document.label).strip()
        body = document.text.removeprefix(name).strip()
        is_told_twice = body.startswith(name) and not body[len(name) :][:1].isalnum()
        parts = [name] if name and not is_told_twice else []
        yield Text(document.id, document.text, (*parts, *parts_of(body, rule)))


def _titled(data: DataConfig, title: str | None, counts: Counts) -> Iterator[Document]:
    try:
        yield from documents(data, counts=counts, labels_are_titles=title is not None)
    except UserError as error:
        if title is not None and counts["documents"] and counts["documents"] == counts[UNLABELLED]:
            raise UserError(f"title={title}: no document of {data.source} has it; name a column that does") from error
        raise


def parts_of(text: str, rule: PartRule) -> list[str]:
    """The sentences of a text, or what blank lines divide."""
    if rule == "paragraphs":
        pieces = [piece.strip() for piece in BLANK_LINES.split(text)]
        return [piece for piece in pieces if piece]
    return [text[start:end] for start, end in split_sentences(text, SentencesConfig())]
