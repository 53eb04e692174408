"""TF-IDF over documents that come in one after another: counts are kept, weights are made when the index is opened.

Words and weights are those of scikit-learn's `TfidfVectorizer` with sublinear_tf=True.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from openjepa.encoding.growing import GrowingArray

VOCABULARY = "vocabulary.json"


class WordCounts:
    """Counts of words by document, on disk: numbers of words, counts, and where each document ends.

    `rows` documents and `entries` counts are whole.
    """

    def __init__(self, folder: Path, rows: int, entries: int, words: int) -> None:
        self._analyze = CountVectorizer().build_analyzer()
        file = folder / VOCABULARY
        known = json.loads(file.read_text(encoding="utf-8"))[:words] if file.exists() else []
        self.folder = folder
        self.vocabulary = {word: number for number, word in enumerate(known)}
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

    def abandon(self) -> None:
        """Close the files as they are."""
        for part in (self._numbers, self._counts, self._ends):
            part.abandon()


class WordSearch:
    """Cosines of a query's words with those of the first `rows` documents."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._analyze = CountVectorizer().build_analyzer()
        words = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        self._vocabulary = {word: number for number, word in enumerate(words)}
        numbers, counts, ends = (np.load(folder / f"word_{name}.npy") for name in ("numbers", "counts", "ends"))
        starts = np.concatenate([[0], ends[:rows]])
        entries = counts[: starts[-1]].astype(np.float64), numbers[: starts[-1]], starts
        documents = sparse.csr_array(entries, shape=(rows, len(words)))
        self._tfidf = TfidfTransformer(sublinear_tf=True)
        self._documents = self._tfidf.fit_transform(documents).tocsc()

    def __call__(self, query: str) -> np.ndarray:
        """[N] cosines, 0 to 1."""
        counts = np.zeros((1, len(self._vocabulary)))
        for word in self._analyze(query):
            if word in self._vocabulary:
                counts[0, self._vocabulary[word]] += 1
        weights = self._tfidf.transform(sparse.csr_array(counts))
        return (self._documents @ weights.T).toarray()[:, 0]
