"""Exact search in an index: a score in three parts, each with its share.

    score = w_d cos(query, document) + w_s max over its sentences cos(text, sentence) + w_w cos of TF-IDF words

The query's vector is that of `encode_query`; for sentences the query is a text like them. The best sentence is shown as
the reason of a hit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core.errors import UserError
from openjepa.core.inside import say_outside
from openjepa.core.json_files import read_json
from openjepa.core.rundir import write_json
from openjepa.evals.features import unit_rows
from openjepa.retrieval.index import STATE, IndexState
from openjepa.retrieval.words import WordSearch
from openjepa.run.opened import Run, load

WEIGHTS = "weights.json"
BLOCK = 65_536  # sentences compared at a time


@dataclass(frozen=True)
class Weights:
    """Of the three parts of a score. The defaults are priors: on one-sentence documents, words lowered nDCG@10."""

    document: float = 1.0
    sentence: float = 0.5
    words: float = 0.5


@dataclass(frozen=True)
class Cosines:
    """What a query has in common with each of N documents, part by part."""

    document: np.ndarray  # [N] cosine with the document's vector
    sentence: np.ndarray  # [N] with that of its nearest sentence; 0 = it has none
    words: np.ndarray  # [N] of TF-IDF words
    nearest: np.ndarray  # [N] the number of that sentence within the document; -1 = it has none

    def shares(self, weights: Weights) -> dict[str, np.ndarray]:
        """What each part adds to the scores, each [N]."""
        return {
            "document": weights.document * self.document,
            "sentence": weights.sentence * self.sentence,
            "words": weights.words * self.words,
        }

    def scores(self, weights: Weights) -> np.ndarray:
        """[N]."""
        return np.sum(list(self.shares(weights).values()), axis=0)


@dataclass(frozen=True)
class Hit:
    """A document that was found."""

    id: str
    score: float
    shares: dict[str, float]  # what each part of the score adds
    text: str
    reason: str  # its sentence that is nearest to the query; "" if it has none

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Index:
    """An index opened for search. The run that made it encodes the queries, and is opened by the first."""

    def __init__(self, path: Path, device: str = "auto", precision: str = "auto", trust_code: bool = False) -> None:
        self.path = path
        self._device = device
        self._precision = precision
        self._trust_code = trust_code
        if not (path / STATE).is_file():
            raise UserError(f"{path} is no search index; openjepa index RUN data=... --out {path} makes one")
        self.state = read_json(path / STATE, IndexState)

    def __len__(self) -> int:
        return self.state["documents"]

    @cached_property
    def run(self) -> Run:
        """The run that made the index. Raises UserError if it has other weights now."""
        made_by = self.state["run"]
        say_outside(self.path, "run", made_by["path"])
        run = load(made_by["path"], self._device, self._precision, self._trust_code)
        if run.identity["weights"] != made_by["weights"]:
            raise UserError(
                f"{self.path} holds vectors of {made_by['checkpoint']} of {made_by['path']}, whose newest weights are "
                f"others ({run.identity['checkpoint']}); index the documents again: openjepa index {made_by['path']} "
                "data=... --out another.index"
            )
        return run

    @cached_property
    def documents(self) -> np.ndarray:
        """[N, D] float32 unit rows, read from disk."""
        return np.load(self.path / "documents.npy", mmap_mode="r")[: len(self)]

    @cached_property
    def _sentences(self) -> tuple[np.ndarray, np.ndarray]:
        """[P, D] float16 unit rows, and the document of each [P]."""
        whole = self.state["sentences"]  # a process that was killed may have left more than the state counts
        return np.load(self.path / "sentences.npy", mmap_mode="r")[:whole], np.load(self.path / "owner.npy")[:whole]

    @cached_property
    def _words(self) -> WordSearch:
        return WordSearch(self.path, len(self))

    @property
    def digests(self) -> np.ndarray:
        """[N, 16] uint8 hashes of the documents' words."""
        return np.load(self.path / "digests.npy", mmap_mode="r")[: len(self)]

    @cached_property
    def weights(self) -> Weights:
        """Those that were chosen by judged queries, else the defaults."""
        file = self.path / WEIGHTS
        kept = read_json(file, Weights) if file.exists() else {}
        return Weights(**{name: kept[name] for name in asdict(Weights()) if name in kept})

    def keep_weights(self, weights: Weights) -> None:
        """Make these the weights of searches that name none."""
        write_json(self.path / WEIGHTS, asdict(weights))
        self.__dict__.pop("weights", None)

    def search(self, query: str, top: int = 10, weights: Weights | None = None) -> list[Hit]:
        """The `top` documents of the highest scores, best first. Raises UserError for an empty query.

        `weights` are those of the index if none are given.
        """
        weights = weights or self.weights
        cosines = self.cosines(query, words=weights.words > 0)
        scores = cosines.scores(weights)
        order = np.argsort(-scores, kind="stable")[:top]
        return list(self._hits(order, scores, cosines.shares(weights), cosines.nearest))

    def cosines(self, query: str, words: bool = True) -> Cosines:
        """What the query has in common with every document; without `words`, none of those is looked up.

        Raises UserError for an empty query.
        """
        if not query.strip():
            raise UserError("the query is empty; ask something")
        vector = unit_rows(self.run.encode_query([query]))[0]
        vector = unit_rows(self.run.encode_document([query]))[0]
        sentence, nearest = self._best_sentences(vector)
        shared = self._words(query) if words else np.zeros(len(self))  # [N]
        return Cosines(self.documents @ vector.astype(np.float32), sentence, shared, nearest)

    def _best_sentences(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The highest cosine of each document's sentences [N], and which sentence that is [N], -1 = it has none."""
        sentences, owner = self._sentences
        cosines = np.concatenate(
            [
                sentences[start : start + BLOCK].astype(np.float32) @ vector.astype(np.float32)
                for start in range(0, len(owner), BLOCK)
            ]
            or [np.zeros(0)]
        )
        highest = np.zeros(len(self))  # a document without sentences gains nothing
        best = np.full(len(self), -1)
        if len(owner):
            documents, starts = np.unique(owner, return_index=True)
            highest[documents] = np.maximum.reduceat(cosines, starts)
            is_best = cosines == highest[owner]
            best[owner[is_best][::-1]] = np.flatnonzero(is_best)[::-1]  # the first of equal ones
            best[documents] -= starts  # its number within the document
        return highest, best

    def _hits(
        self, order: np.ndarray, score: np.ndarray, parts: dict[str, np.ndarray], best: np.ndarray
    ) -> Iterator[Hit]:
        for number in order.tolist():
            text = self._text(number)
            reason = text["sentences"][best[number]] if best[number] >= 0 else ""
            shares = {name: float(part[number]) for name, part in parts.items()}
            yield Hit(text["id"], float(score[number]), shares, text["text"], reason)

    def _text(self, number: int) -> dict[str, Any]:
        """A line of texts.jsonl."""
        ends = np.load(self.path / "text_ends.npy", mmap_mode="r")
        start = int(ends[number - 1]) if number else 0
        with (self.path / "texts.jsonl").open("rb") as file:
            file.seek(start)
            return json.loads(file.read(int(ends[number]) - start))
