"""A search index in a folder: documents, their sentences and their words, added to without a rebuild.

    index.json        the run, and how many rows of the other files are whole
    documents.npy     [N, D] float32 unit rows, for NumPy, FAISS (inner products) and sqlite-vec
    sentences.npy     [P, D] float16 unit rows      owner.npy [P] the document of each
    texts.jsonl       a document a line: id, text, sentences            text_ends.npy [N] where each line ends
    digests.npy       [N, 16] of each document's words, so that none is added twice
    word_*.npy, vocabulary.json                     counts of words

Blocks are appended, and `index.json` is written after each: a process that is killed loses the block it was at, and the
same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from openjepa.adaptation.documents import PartRule, Text, texts
from openjepa.core.atomic import writing
from openjepa.core.errors import UserError
from openjepa.core.json_files import LARGEST, Written, read_json
from openjepa.core.rundir import write_json
from openjepa.data.files.records import Counts
from openjepa.data.loading.held_out import word_digest
from openjepa.data.text.sources import DataConfig
from openjepa.encoding.exclusive import only_writer
from openjepa.encoding.growing import GrowingArray
from openjepa.evals.features import require_finite, unit_rows
from openjepa.retrieval.words import WordCounts
from openjepa.run.opened import Run

STATE = "index.json"
AT_ONCE = 256  # documents that are encoded together
DIGEST = 16  # bytes


@dataclass(frozen=True)
class Added:
    """What a call has added to an index."""

    path: Path
    documents: int  # in the index now
    sentences: int
    added: int
    there: int  # documents that were in it already
    counts: dict[str, int]  # of the reader

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path)}


def add_documents(
    run: Run,
    data: DataConfig,
    path: Path,
    title: str | None = None,
    parts: PartRule = "sentences",
    on_documents: Callable[[int, int], None] | None = None,
) -> Added:
    """Add the documents of `data` that are not in the index at `path` yet; it is made if there is none.

    `on_documents` is called with (documents, texts encoded) of each block. Raises UserError if the index was made by
    another run, another process writes it, or the documents cannot be read.
    """
    with only_writer(path, path), writing(path):
        return _add(run, data, path, title, parts, on_documents)


def _add(
    run: Run,
    data: DataConfig,
    path: Path,
    title: str | None,
    parts: PartRule,
    on_documents: Callable[[int, int], None] | None,
) -> Added:
    writer = _Writer(run, path)
    counts = Counts()
    before = writer.rows
    there = 0
    incoming = iter(texts(data, title, parts, counts))
    with writer:
        while chunk := list(islice(incoming, AT_ONCE)):
            new = writer.new_ones(chunk)
            there += len(chunk) - len(new)
            sentences = writer.sentences
            if new:
                writer.append(run, new)
            if on_documents is not None:
                on_documents(len(chunk), len(new) + writer.sentences - sentences)
    return Added(path, writer.rows, writer.sentences, writer.rows - before, there, dict(counts))


class _Writer:
    """The open files of an index."""

    def __init__(self, run: Run, path: Path) -> None:
        self.path = path
        self.identity = run.identity
        state = self._state()
        self.rows = state["documents"]
        self.sentences = state["sentences"]
        self.dim = state["dim"] or run.vector_dim()
        self.vectors = GrowingArray(path / "documents.npy", "<f4", (self.dim,), self.rows)
        self.parts = GrowingArray(path / "sentences.npy", "<f2", (self.dim,), self.sentences)
        self.owner = GrowingArray(path / "owner.npy", "<i8", (), self.sentences)
        self.digests = GrowingArray(path / "digests.npy", "|u1", (DIGEST,), self.rows)
        self.digests.flush()
        self.known = {row.tobytes() for row in np.load(path / "digests.npy")}
        self.words = WordCounts(path, self.rows, state["word_entries"], state["words"])
        self.texts = (path / "texts.jsonl").open("ab")
        self.texts.truncate(state["text_bytes"])
        self.ends = GrowingArray(path / "text_ends.npy", "<i8", (), self.rows)

    def _state(self) -> dict[str, Any]:
        file = self.path / STATE
        empty = {"documents": 0, "sentences": 0, "dim": 0, "word_entries": 0, "words": 0, "text_bytes": 0}
        if not file.exists():
            return empty
        state = read_json(file, IndexState)
        if state["run"]["weights"] != self.identity["weights"]:
            raise UserError(
                f"{self.path} was made by {state['run']['path']} ({state['run']['checkpoint']}) with other weights, "
                "which give other vectors; choose another --out"
            )
        return state

    def new_ones(self, texts: Sequence[Text]) -> dict[bytes, Text]:
        """Those of whose words there is no document yet, the first of each, by the digest of their words."""
        found: dict[bytes, Text] = {}
        for text in texts:
            digest = word_digest(text.whole)
            if digest not in self.known:
                found.setdefault(digest, text)
        return found

    def append(self, run: Run, added: Mapping[bytes, Text]) -> None:
        """Encode documents and their sentences, write them, and make them count."""
        new = list(added.values())
        parts = [part for text in new for part in text.parts]
        vectors = run.encode_quietly([*(text.whole for text in new), *parts])
        require_finite(vectors, "the run")
        rows = unit_rows(vectors)
        self.vectors.append(rows[: len(new)])
        self.parts.append(rows[len(new) :])
        numbers = np.arange(self.rows, self.rows + len(new))
        self.owner.append(np.repeat(numbers, [len(text.parts) for text in new]))
        self.known.update(added)
        self.digests.append(np.frombuffer(b"".join(added), dtype=np.uint8).reshape(-1, DIGEST))
        self.words.append([text.whole for text in new])
        for text in new:
            line = json.dumps({"id": text.id, "text": text.whole, "sentences": text.parts}, ensure_ascii=False)
            self.texts.write(line.encode("utf-8", "replace") + b"\n")
            self.ends.append(np.array([self.texts.tell()]))
        self.rows += len(new)
        self.sentences += len(parts)
        self._save()

    def _save(self) -> None:
        self.texts.flush()
        for part in (self.vectors, self.parts, self.owner, self.digests, self.ends, self.words):
            part.flush()
        state = {
            "run": self.identity,
            "documents": self.rows,
            "sentences": self.sentences,
            "dim": self.dim,
            "word_entries": self.words.entries,
            "words": len(self.words.vocabulary),
            "text_bytes": self.texts.tell(),
        }
        write_json(self.path / STATE, state)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        """Close the files; what no state counts is cut off by the next writer."""
        for part in (self.vectors, self.parts, self.owner, self.digests, self.ends, self.words):
            part.abandon()
        with suppress(OSError):
            self.texts.close()


Count = Annotated[int, Field(ge=0, le=LARGEST)]


class RunOfIndex(Written):
    """The run that made an index."""

    path: str
    checkpoint: str
    weights: str  # their checksum


class IndexState(Written):
    """What an index counts of its files; what is behind that is left of a process that was killed."""

    run: RunOfIndex
    documents: Count
    sentences: Count
    dim: Count
    word_entries: Count
    words: Count
    text_bytes: Count
