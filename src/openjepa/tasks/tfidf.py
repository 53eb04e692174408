"""The TF-IDF vectoriser of all baselines, so that all columns of this name are comparable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

WORDS = r"(?u)\b\w+\b"  # what counts as a word, in lower case; BM25 reads the same


def vectorizer() -> TfidfVectorizer:
    """An unfitted vectoriser: sparse [N, V] unit rows of sublinear TF-IDF. Single characters and digits are words."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import

    return TfidfVectorizer(sublinear_tf=True, token_pattern=WORDS, dtype=np.float32)
