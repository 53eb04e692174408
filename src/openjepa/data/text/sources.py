"""Sources of documents: reading, cleaning and holding out.

`documents(cfg)` streams one source of any kind as clean `Document`s:

    stories                      the offline synthetic world: no file, no network
    corpus.csv notes/ 'a/*.gz'   a file, a folder or a glob pattern; `files` lists the kinds
    owner/name  hub:name:config  a data set of the Hugging Face hub, downloaded or streamed

A source is a sequence of shards (its files), so that a reader can start in the middle: shards before it are not opened.
Copies of an earlier document are counted, and dropped on request; `held_out` decides which documents are held out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError
from openjepa.data.files.discovery import KNOWN_SUFFIXES, find_files
from openjepa.data.files.readers import hub_shards, read_files, read_stories
from openjepa.data.files.records import COPIES, MAX_LINE_MB, Counts, ReaderOptions, Record, TxtRule, chat_text
from openjepa.data.files.texts import decoded
from openjepa.data.loading.cache import code_version, file_versions
from openjepa.data.loading.held_out import is_held_out, nothing_held_out, word_digest
from openjepa.data.text.joining import joined_by_headings

Split = Literal["all", "train", "eval"]
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")  # a Thai, Japanese or Chinese letter is a word
KEPT = "documents"
WORLD = "stories"
UNLABELLED = "document without a label"
DROPPED_COPY = "dropped as copies of an earlier document"


class DataConfig(BaseConfig):
    """Section `data` of a text recipe. A plain string stands for `source`."""

    LOCATIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"source": (WORLD,)}
    SHORTHAND = "source"
    FIRST = ("source", "column", "label", "documents")

    source: str = Field("stories", min_length=1)
    """stories (a synthetic world), a file, folder or glob, or hub owner/name[:config]; files are .txt, .jsonl,
    .ndjson, .json, .csv, .tsv, .md, .html (all also as .gz or .zst), .parquet, .arrow, .feather, .xlsx; a folder may
    also be one of save_to_disk"""
    column: str = "text"
    """column or JSON key of the text; dotted for one within another: meta.body; it may also hold chat messages ({role,
    content} each: their contents are joined as paragraphs)"""
    label: str | None = None
    """column, JSON key (also dotted) or story factor that probes predict; unset = documents have no label"""
    ignore_labels: tuple[str, ...] = ()
    """labels that probes leave out, e.g. ["Uncategorized"]"""
    txt: TxtRule = "auto"
    """what a document of a .txt file is; auto = lines, unless 1 line in 20 is blank, then paragraphs"""
    join: Literal["none", "headings"] = "none"
    """headings = records are paragraphs, and those from one `= Title =` (WikiText) or `# Title` to the next are a
    document"""
    split: str = "train"
    """split to read of a hub data set, or of a folder that DatasetDict.save_to_disk wrote"""
    streaming: bool = False
    """never keep the source on disk: a hub data set is read over the network, and with documents=0 training streams
    any source, window by window"""
    documents: int = Field(0, ge=0)
    """documents to take from the start of the source, 0 = all of them (of stories: world_documents); only usable ones
    count, held-out ones included"""
    world_documents: int = Field(30_000, ge=1)
    """how many documents stories has where `documents` is 0; not used for other sources"""
    shuffle_window: int = Field(2000, ge=4)
    """documents shuffled together where training streams (streaming=true, documents=0); at most 2.5 times as many
    are in memory"""
    eval_documents: int = Field(1000, ge=1)
    """held-out documents to evaluate on where training streams: the first ones of the source"""
    eval_fraction: float = Field(0.05, gt=0, lt=1)
    """share of the documents held out from training, chosen by their content"""
    min_words: int = Field(2, ge=1)
    """documents with fewer words are dropped and counted"""
    drop_duplicates: bool = False
    """drop documents with the same words as an earlier one (case and white space do not count) instead of only counting
    them; about 100 bytes of memory a document; not where training streams"""
    max_line_mb: int = Field(MAX_LINE_MB, ge=1)
    """a line, JSON value or Markdown or HTML file of more MiB is left out and counted, so that memory stays bounded"""

    @model_validator(mode="after")
    def _duplicates_are_known(self) -> Self:
        if self.drop_duplicates and self.endless:
            raise ValueError(
                "drop_duplicates remembers every document, and with streaming=true they may have no end; set documents "
                "to how many to read, or leave one of the two out"
            )
        return self

    @property
    def synthetic(self) -> bool:
        """Whether the texts are generated: a tokenizer trained on them knows few of the words that people use."""
        return self.source.strip() == WORLD

    @property
    def generated_documents(self) -> int:
        """Number of documents that the offline world generates."""
        return self.documents or self.world_documents

    @property
    def endless(self) -> bool:
        """Whether training streams the source, as if it had no end."""
        return self.streaming and not self.documents


class Position(NamedTuple):
    """Position of a record in its source."""

    shard: int  # number of the file
    record: int  # number within the file


START = Position(0, 0)


@dataclass(frozen=True)
class Document:
    """One usable text: no NULs, valid Unicode, at least `min_words` words."""

    text: str
    label: str | None
    id: str  # where it came from: "corpus.jsonl:17" (line), "a.parquet:3" (row), "owner/name:3", "stories:12"
    position: Position


def documents(
    cfg: DataConfig,
    split: Split = "all",
    counts: Counts | None = None,
    start: Position = START,
    labels_are_titles: bool = False,
) -> Iterator[Document]:
    """Stream the usable documents of a split, in the source's order and in constant memory.

    `counts` is filled while reading: kept documents, and everything mended or dropped, by reason. Copies of an earlier
    document (of either split) are counted among those kept, or dropped; this stores 16 bytes of each document. Where
    training streams (`cfg.endless`), copies are neither counted nor dropped.
    With `labels_are_titles`, the label stands before the text, and may be all of a document.
    With `start`, documents before that position are skipped; this takes no longer than reading its shard up to there,
    and copies of skipped documents are not detected.
    Raises UserError if the source cannot be read or (read from its start) holds no usable document.
    """
    detect_copies = not cfg.endless and (cfg.drop_duplicates or counts is not None)
    seen: set[bytes] | None = set() if detect_copies else None
    counts = Counts() if counts is None else counts
    for position, record in _whole_records(cfg, counts, start):
        titled = _with_title(record, counts) if labels_are_titles else record
        document = _clean(titled, position, cfg.min_words, counts)
        if document is None or (seen is not None and _is_dropped_copy(document, seen, cfg.drop_duplicates, counts)):
            continue
        counts.add(KEPT, document.id)
        if cfg.label and document.label is None:
            counts.add(UNLABELLED, document.id)
        if split == "all" or (split == "eval") == is_held_out(document.text, cfg.eval_fraction):
            yield document
        if counts[KEPT] == cfg.documents:
            break
    if start != START:
        return
    if cfg.label and counts[UNLABELLED] == counts[KEPT] > 0:
        raise UserError(f"data.label={cfg.label}: no document of {cfg.source} has it; name a column that labels them")
    if not counts[KEPT]:
        raise nothing_usable(cfg.source, "document", counts)


def _is_dropped_copy(document: Document, seen: set[bytes], drop: bool, counts: Counts) -> bool:
    """Whether to drop a document as a copy of one in `seen`, to which it is added; a copy is counted."""
    digest = word_digest(document.text)
    if digest not in seen:
        seen.add(digest)
        return False
    counts.add(DROPPED_COPY if drop else COPIES, document.id)
    return drop


def held_out_texts(cfg: DataConfig, limit: int) -> list[Document]:
    """The first `limit` held-out documents. Raises UserError if there are none."""
    found = list(islice(documents(cfg, "eval"), limit))
    if not found:
        raise nothing_held_out(cfg.source, cfg.eval_fraction, (document.text for document in documents(cfg)), {})
    return found


def nothing_usable(source: str, what: str, counts: Counts) -> UserError:
    """The error for a source all of whose records were dropped, with the reasons."""
    return UserError(f"data.source {source} holds no usable {what}: {counts.reasons or 'it is empty'}")


def source_key(cfg: DataConfig) -> dict[str, Any]:
    """Everything that determines the documents, as JSON values: settings, and the version of files or code.

    Files are identified by name, size and time of change, the story world by its code, a hub data set by its name
    only: when it changes on the hub, delete the cache.
    """
    key = cfg.model_dump(exclude={"shuffle_window", "world_documents"})
    kind, location = source_kind(cfg.source)
    if kind == "files":
        key["files"] = file_versions(find_files(location, Counts(), split=cfg.split))
    elif kind == "world":
        from openjepa.data.worlds import stories

        key |= {"documents": cfg.generated_documents, "world": code_version(stories)}
    return key


def source_kind(
    source: str, world: str = "stories", suffixes: tuple[str, ...] = KNOWN_SUFFIXES
) -> tuple[Literal["world", "files", "hub"], str]:
    """What a `source` names: the offline `world`, files behind a path or pattern, or a data set of the hub."""
    source = source.strip()
    if source == world:
        return "world", source
    if source.startswith("hub:"):
        return "hub", source.removeprefix("hub:")
    is_path = os.path.exists(os.path.expanduser(source)) or source.lower().endswith(suffixes)
    return ("hub", source) if not is_path and HUB_NAME.fullmatch(source) and source[0] != "." else ("files", source)


def _whole_records(cfg: DataConfig, counts: Counts, start: Position) -> Iterator[tuple[Position, Record]]:
    """The records, or the articles that they are paragraphs of."""
    records = _records(cfg, counts, start)
    if cfg.join == "none":
        return records
    return joined_by_headings(records, counts, cfg.max_line_mb * 2**20, cfg.source)


def _records(cfg: DataConfig, counts: Counts, start: Position) -> Iterator[tuple[Position, Record]]:
    for number, read in islice(enumerate(_shards(cfg, counts)), start.shard, None):
        skipped = start.record if number == start.shard else 0
        for record_number, record in enumerate(read(skipped), start=skipped):
            yield Position(number, record_number), record


def _shards(cfg: DataConfig, counts: Counts) -> Sequence[Callable[[int], Iterator[Record]]]:
    """A reader for each shard, called with the number of the record to start from."""
    kind, location = source_kind(cfg.source)
    if kind == "world":
        return [partial(read_stories, cfg.generated_documents, cfg.label)]
    if kind == "hub":
        name, _, config = location.partition(":")
        return hub_shards(name, config or None, cfg.split, cfg.streaming, cfg.column, cfg.label)

    root = Path(location).expanduser()
    reading = ReaderOptions(cfg.column, cfg.label, cfg.txt, cfg.max_line_mb, root=root if os.path.isdir(root) else None)

    def read_file(file: Path, skip: int) -> Iterator[Record]:
        return islice(read_files([file], reading, counts), skip, None)

    return [partial(read_file, file) for file in find_files(location, counts, split=cfg.split)]


def _with_title(record: Record, counts: Counts) -> Record:
    """The record with its label before its text."""
    title, text = (clean_text(value, "text", record.origin, counts) for value in (record.label, record.value))
    return record if text is None else record._replace(value=" ".join(part for part in (title, text) if part))


def _clean(record: Record, position: Position, min_words: int, counts: Counts) -> Document | None:
    """The record as a Document, or None with the reason counted."""
    text = clean_text(record.value, "text", record.origin, counts)
    if text is None:
        return None
    if not text:
        counts.add("empty", record.origin)
        return None
    words = sum(1 for _ in islice(WORD.finditer(text), min_words))
    if words < min_words:
        counts.add("no words" if not words else f"fewer than {min_words} words", record.origin)
        return None
    return Document(text, None if record.label is None else str(record.label), record.origin, position)


def clean_text(value: Any, name: str, origin: str, counts: Counts) -> str | None:
    """A value as stripped text without NULs, in valid Unicode: "" if it is missing, None (counted) if it is no text.

    Bytes are UTF-8; chat messages are their contents, see `chat_text`.
    """
    text = "" if value is None else value
    if isinstance(text, bytes):
        text = decoded(text, origin, counts)
    if isinstance(text, list):
        joined = chat_text(text)
        text = text if joined is None else joined
    if not isinstance(text, str):
        counts.add(f"{name} is a {type(text).__name__}", origin)
        return None
    if "\0" in text:
        counts.add("mended: NUL characters", origin)
        text = text.replace("\0", "")
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone JSON escape like \ud83d
        counts.add("mended: half a surrogate pair", origin)
        text = text.encode(errors="replace").decode()
    return text.strip()
