"""BM25, the word-based baseline of dense retrieval, as inner products of sparse rows.

Robertson & Zaragoza (2009, eq. 3.15) with Lucene's inverse document frequency, which is never negative:

    score(q, d) = sum over words t of q:  n(t, q) * idf(t) * n(t, d) / (n(t, d) + k1 * (1 - b + b * |d| / mean |d|))
    idf(t) = ln(1 + (N - df(t) + 1/2) / (df(t) + 1/2))

N documents, df(t) of them with t, n(t, x) times t in x, |d| words in d. The constant factor k1 + 1 of some versions
changes no ranking and is left out. No stemming and no stop words: words are those of TF-IDF (`tasks.tfidf`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from openjepa.core.errors import UserError
from openjepa.tasks.tfidf import WORDS

# Lucene's defaults, within the ranges that Robertson & Zaragoza recommend
K1 = 1.2
B = 0.75


def bm25(
    queries: Sequence[str], documents: Sequence[str], k1: float = K1, b: float = B
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Rows [Q, V] of the queries and [C, V] of the documents, whose inner products are the scores (at least 0).

    Raises UserError if the documents hold no words.
    """
    from sklearn.feature_extraction.text import CountVectorizer  # slow to import

    words = CountVectorizer(token_pattern=WORDS, dtype=np.float64)
    try:
        counts = sparse.csr_array(words.fit_transform(documents))  # [C, V]
    except ValueError:
        raise UserError(f"BM25 found no words in its {len(documents)} documents") from None
    present = np.bincount(counts.indices, minlength=counts.shape[1])  # [V] documents with the word
    idf = np.log1p((len(documents) - present + 0.5) / (present + 0.5))  # [V]
    lengths = counts.sum(axis=1)  # [C] words
    row = np.repeat(np.arange(len(documents)), np.diff(counts.indptr))  # [nonzero] document of each count
    damped = counts.data + k1 * (1 - b + b * lengths[row] / lengths.mean())
    counts.data = idf[counts.indices] * counts.data / damped
    return sparse.csr_array(words.transform(queries)), counts
