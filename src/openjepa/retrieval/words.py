"""TF-IDF over documents that come in one after another: counts are kept, weights are made when the index is opened.

Weights are (1 + log tf) (1 + log((1 + N) / (1 + df))), and rows are scaled to length 1, as in scikit-learn's
`TfidfVectorizer` with sublinear_tf=True; words are its words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from openjepa.retrieval.growing import GrowingArray

VOCABULARY = "vocabulary.json"


class WordCounts:
    """Counts of words by document, on disk: numbers of words, counts, and where each document ends.

    `rows` documents and `entries` counts are whole.
    """

    def __init__(self, folder: Path, rows: int, entries: int, words: int) -> None:
        self._analyze = CountVectorizer().build_analyzer()
        file = folder / VOCABULARY
        known = json.loads(file.read_text(encoding="utf-8"))[:words] if file.exists() else []
        self.folder, self.vocabulary = folder, {word: number for number, word in enumerate(known)}
        self._numbers = GrowingArray(folder / "word_numbers.npy", "<i4", (), entries)
        self._counts = GrowingArray(folder / "word_counts.npy", "<i4", (), entries)
        self._ends = GrowingArray(folder / "word_ends.npy", "<i8", (), rows)

    @property
    def entries(self) -> int:
        return self._numbers.rows

    def append(self, texts: Sequence[str]) -> None:
        """Add documents."""
        for text in texts:
            found = Counter(self._analyze(text))
            numbers = [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in found]
            self._numbers.append(np.array(numbers))
            self._counts.append(np.array(list(found.values())))
            self._ends.append(np.array([self._numbers.rows]))

    def flush(self) -> None:
        """Write everything to the disk."""
        temporary = self.folder / f".{VOCABULARY}.tmp"
        temporary.write_text(json.dumps(list(self.vocabulary), ensure_ascii=False), encoding="utf-8")
        temporary.replace(self.folder / VOCABULARY)
        for part in (self._numbers, self._counts, self._ends):
            part.flush()

    def close(self) -> None:
        for part in (self._numbers, self._counts, self._ends):
            part.close()


class WordSearch:
    """Cosines of a query's words with those of all documents."""

    def __init__(self, folder: Path) -> None:
        self._analyze = CountVectorizer().build_analyzer()
        words = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        self._vocabulary = {word: number for number, word in enumerate(words)}
        numbers, counts, ends = (np.load(folder / f"word_{name}.npy") for name in ("numbers", "counts", "ends"))
        starts = np.concatenate([[0], ends])
        frequency = np.bincount(numbers, minlength=len(words))  # documents that have the word
        self._rarity = 1 + np.log((1 + len(ends)) / (1 + frequency))  # [V]
        weights = (1 + np.log(counts)) * self._rarity[numbers]
        matrix = sparse.csr_array((weights, numbers, starts), shape=(len(ends), len(words)))
        lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1))  # [N]
        self._documents = (sparse.diags_array(1 / np.maximum(lengths, 1e-12)) @ matrix).tocsc()

    def __call__(self, query: str) -> np.ndarray:
        """[N] cosines, 0 to 1."""
        found: Mapping[str, int] = Counter(word for word in self._analyze(query) if word in self._vocabulary)
        weights = np.zeros(len(self._vocabulary))
        for word, count in found.items():
            number = self._vocabulary[word]
            weights[number] = (1 + np.log(count)) * self._rarity[number]
        length = np.linalg.norm(weights)
        return self._documents @ (weights / length) if length else np.zeros(self._documents.shape[0])
