"""Where documents come from, which of them are usable, and which are held out.

`documents(cfg)` streams one source, whatever it is, as clean `Document`s:

    stories                      the offline synthetic world: no file, no network
    corpus.txt notes/ 'a/*.gz'   .txt, .jsonl (both also .gz) and .parquet: a file, a folder or a glob pattern
    owner/name  hub:name:config  a data set of the Hugging Face hub, downloaded or streamed

Held out is decided by the hash of a document's words alone. So the split is the same on every machine, it does not
move when files are added, and two copies of a text are always on the same side.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError
from openjepa.data.readers import Counts, Record, TxtRule, find_files, read_files, read_hub, read_stories

Split = Literal["all", "train", "eval"]
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")  # a Thai, Japanese or Chinese letter is a word
KEPT = "documents"
UNLABELLED = "document without a label"


class DataConfig(BaseConfig):
    """Section `data` of a text recipe. A plain string stands for `source`."""

    source: str = "stories"
    """stories (offline world); .txt, .jsonl, .parquet file (also .gz), folder or glob; hub owner/name[:config]"""
    column: str = "text"
    """column or JSON key that holds the text"""
    label: str | None = None
    """column, JSON key or story factor that probes predict; unset = documents have no label"""
    ignore_labels: tuple[str, ...] = ()
    """labels that probes leave out, e.g. ["Uncategorized"]"""
    txt: TxtRule = "auto"
    """what a document of a .txt file is; auto = lines, unless 1 line in 20 is blank, then paragraphs"""
    config: str | None = None
    """configuration (subset) of a hub data set; may also follow the name after a colon"""
    split: str = "train"
    """split of a hub data set to read"""
    streaming: bool = False
    """read a hub data set over the network row by row instead of downloading it first"""
    documents: int = Field(0, ge=0)
    """usable documents to take from the start of the source, held-out ones included; 0 = all (stories: 100000)"""
    eval_fraction: float = Field(0.05, gt=0, lt=1)
    """share of the documents held out from training, chosen by their content"""
    min_words: int = Field(2, ge=1)
    """documents with fewer words are dropped and counted"""

    @model_validator(mode="before")
    @classmethod
    def _plain_string_is_source(cls, value: Any) -> Any:
        return {"source": str(value)} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _streams_end(self) -> Self:
        if self.streaming and not self.documents:
            raise ValueError("streaming needs data.documents, the number of documents to take from the stream")
        return self


@dataclass(frozen=True)
class Document:
    """One usable text: no NULs, valid Unicode, at least `min_words` words."""

    text: str
    label: str | None
    id: str  # where it came from: "corpus.jsonl:17" (line), "a.parquet:3" (row), "owner/name:3", "stories:12"


def documents(cfg: DataConfig, split: Split = "all", counts: Counts | None = None) -> Iterator[Document]:
    """Stream the usable documents of a split, in the source's order and in constant memory.

    `counts` is filled on the way: kept documents, and everything mended or dropped, by reason.
    Raises UserError if the source cannot be read or holds not a single usable document.
    """
    counts = Counts() if counts is None else counts
    for record in _records(cfg, counts):
        document = _clean(record, cfg.min_words, counts)
        if document is None:
            continue
        counts.add(KEPT, document.id)
        if cfg.label and document.label is None:
            counts.add(UNLABELLED, document.id)
        if split == "all" or (split == "eval") == is_held_out(document.text, cfg.eval_fraction):
            yield document
        if counts[KEPT] == cfg.documents:
            break
    if cfg.label and counts[UNLABELLED] == counts[KEPT] > 0:
        raise UserError(f"data.label={cfg.label}: no document of {cfg.source} has it; name a column that labels them")
    if not counts[KEPT]:
        reasons = ", ".join(f"{n} x {why} (first: {counts.first[why]})" for why, n in counts.items())
        raise UserError(f"data.source {cfg.source} holds no usable document: {reasons or 'it is empty'}")


def is_held_out(text: str, eval_fraction: float) -> bool:
    """Whether the hash of the text's words, blind to case and white space, falls in the held-out share."""
    words = " ".join(text.casefold().split())
    digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < eval_fraction * 2**64


def held_out_texts(cfg: DataConfig, limit: int) -> list[Document]:
    """The first `limit` held-out documents. Raises UserError if there are none."""
    found = list(islice(documents(cfg, "eval"), limit))
    if not found:
        raise nothing_held_out(cfg)
    return found


def nothing_held_out(cfg: DataConfig) -> UserError:
    return UserError(
        f"data.source {cfg.source} has too few documents: data.eval_fraction={cfg.eval_fraction} holds none of "
        "them out; raise it (0.2) or give more documents"
    )


def source_key(cfg: DataConfig) -> dict[str, Any]:
    """All that decides which documents come, JSON-able: settings, and the version of what is read.

    Files count by name, size and time of change, the story world by its code. A hub data set counts by name only:
    when it changes on the hub, delete the cache.
    """
    key = cfg.model_dump()
    kind, place = _kind(cfg)
    if kind == "files":
        files = [(file, file.stat()) for file in find_files(place, Counts())]
        key["files"] = [(str(file.resolve()), stat.st_size, stat.st_mtime_ns) for file, stat in files]
    elif kind == "stories":
        from openjepa.data.worlds import stories

        code = sorted(file for file in Path(str(stories.__file__)).parent.iterdir() if file.is_file())
        key["world"] = hashlib.blake2b(b"".join(file.read_bytes() for file in code), digest_size=8).hexdigest()
    return key


def cache_dir() -> Path:
    """Where derived data is kept between runs: $OPENJEPA_CACHE, or ~/.cache/openjepa."""
    return Path(os.environ.get("OPENJEPA_CACHE") or "~/.cache/openjepa").expanduser()


def _kind(cfg: DataConfig) -> tuple[Literal["stories", "files", "hub"], str]:
    source = cfg.source.strip()
    if source == "stories":
        return "stories", source
    if source.startswith("hub:"):
        return "hub", source.removeprefix("hub:")
    is_path = Path(source).expanduser().exists() or source.lower().endswith((".txt", ".jsonl", ".parquet", ".gz"))
    return ("hub", source) if not is_path and HUB_NAME.fullmatch(source) and source[0] != "." else ("files", source)


def _records(cfg: DataConfig, counts: Counts) -> Iterator[Record]:
    kind, place = _kind(cfg)
    if kind == "stories":
        return read_stories(cfg.documents, cfg.label)
    if kind == "hub":
        name, _, config = place.partition(":")
        return read_hub(name, config or cfg.config, cfg.split, cfg.streaming, cfg.column, cfg.label)
    return read_files(find_files(place, counts), cfg.column, cfg.label, cfg.txt, counts)


def _clean(record: Record, min_words: int, counts: Counts) -> Document | None:
    """The record as a Document, or None with the reason counted."""
    text = "" if record.text is None else record.text
    if isinstance(text, bytes):
        counts.add("mended: not UTF-8", record.place)
        text = text.decode(errors="replace")
    if not isinstance(text, str):
        counts.add(f"text is a {type(text).__name__}", record.place)
        return None
    if "\0" in text:
        counts.add("mended: NUL characters", record.place)
        text = text.replace("\0", "")
    try:
        text.encode()
    except UnicodeEncodeError:  # a JSON escape like \ud83d alone
        counts.add("mended: half a surrogate pair", record.place)
        text = text.encode(errors="replace").decode()
    text = text.strip()
    if not text:
        counts.add("empty", record.place)
        return None
    words = sum(1 for _ in islice(WORD.finditer(text), min_words))
    if words < min_words:
        counts.add("no words" if not words else f"fewer than {min_words} words", record.place)
        return None
    return Document(text, None if record.label is None else str(record.label), record.place)
